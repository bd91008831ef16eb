"""Shuffled batches of a split for one process or many, and the place to resume from."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from .. import checks
from .store import Batch, Split


class Batches:
    """Iterate rows in batches, in a new seeded order each epoch.

    split: a `Split`, or any object with ``take(rows)`` and a length.

    With several processes each takes its slice of every global batch, so that the weights after a
    step do not depend on how many processes shared it. The last, smaller batch is kept with one
    process and dropped with several (all must have the same number of rows).

    batch_size: rows per global batch, >= 1.
    bucket: whether to batch rows with histories of similar length together, which saves padding.
        Lengths are sorted within 50 batches at a time, drawn anew each epoch, so that batches differ
        between epochs. No effect without sequences.
    """

    WINDOW = 50  # batches

    def __init__(self, split: Split, batch_size: int, seed: int = 0, bucket: bool = True):
        checks.whole(batch_size=batch_size)
        if not len(split):
            raise ValueError("cannot make batches of an empty split")
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.bucket = bucket and getattr(split, "spans", None) is not None
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        if self._processes()[1] > 1:
            return len(self.split) // self.batch_size
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        rank, world = self._processes()
        if self.batch_size % world:
            raise ValueError(
                f"batch_size {self.batch_size} does not divide among {world} processes"
            )
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.split), generator=generator)
        if self.bucket:
            order = self._by_length(order, generator)
        if isinstance(self.split, Split):
            order = order.to(self.split.ids.device)
        for step in range(self.start, len(self)):
            last = step + 1 == len(self)  # before the yield: a reader may stop after the last batch
            self.epoch, self.start = (self.epoch + 1, 0) if last else (self.epoch, step + 1)
            rows = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self.split.take(rows[rank::world] if world > 1 else rows)

    def _by_length(self, order: Tensor, generator: torch.Generator) -> Tensor:
        """Sort each window of rows by length, then shuffle the whole batches; the rest stays last."""
        whole = len(order) // self.batch_size
        rows, rest = order[: whole * self.batch_size], order[whole * self.batch_size :]
        length = self.split.lengths.cpu()[rows]
        window = torch.arange(len(rows)) // (self.WINDOW * self.batch_size)
        rows = rows[(window * (self.split.length + 1) + length).argsort(stable=True)]
        rows = rows.view(whole, self.batch_size)[torch.randperm(whole, generator=generator)]
        return torch.cat([rows.flatten(), rest])

    def state_dict(self) -> dict[str, int]:
        """Epoch and step of the next batch, which Lightning stores in its checkpoints."""
        return {"epoch": self.epoch, "start": self.start}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.start = state["epoch"], state["start"]

    @staticmethod
    def _processes() -> tuple[int, int]:
        if dist.is_available() and dist.is_initialized():
            return dist.get_rank(), dist.get_world_size()
        return 0, 1
