"""Batches of consecutive rows, for streams whose order matters."""

from __future__ import annotations

from collections.abc import Iterator

from .. import checks


class InOrder:
    """Batches of consecutive rows, in every pass the same; see `paperlab.loop.Trainable.batches`.

    rows: an object with ``take(slice)`` and a length. batch_size >= 1.
    """

    def __init__(self, rows: object, batch_size: int):
        checks.whole(batch_size=batch_size)
        self.rows, self.batch_size, self.start = rows, batch_size, 0

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator:
        for step in range(self.start, len(self)):
            yield self.rows.take(slice(step * self.batch_size, (step + 1) * self.batch_size))

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start = state["start"]
