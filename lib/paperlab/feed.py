"""A model's batches in epochs of a given length, resumable, for Lightning's trainer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from . import checks


class Feed:
    """Batches, cut or repeated to an epoch's length; it remembers the position of the next one.

    batches: see `paperlab.loop.Trainable.batches`. total: batches of an epoch, which may be more or
    fewer than a pass has; None: a pass, or ``limit`` of it: a share in (0, 1] where float, else a
    number of batches, at least 1.
    Raises ValueError for a limit out of range or beside a total, and, at ``len``, where there is no
    batch or no end.
    """

    def __init__(self, batches: Iterable, total: int | None, limit: float | None):
        if limit is not None and total is not None:
            raise ValueError("steps or limit_train_batches must be given, not both")
        if isinstance(limit, float):
            checks.inside("(0, 1]", limit_train_batches=limit)
        elif limit is not None:
            checks.whole(limit_train_batches=limit)
        self.batches, self.total, self.limit = batches, total, limit
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        endless = not hasattr(self.batches, "__len__")
        if endless and self.total is None:
            raise ValueError("steps must be given for batches without an end")
        whole = self.total if endless else len(self.batches)
        if not whole:
            raise ValueError("batch_size must be at most the number of training rows")
        if self.total is not None or self.limit is None:
            return self.total or whole
        share = isinstance(self.limit, float)
        return max(1, int(self.limit * whole) if share else min(self.limit, whole))

    def __iter__(self) -> Iterator:
        length = len(self)
        whole = len(self.batches) if hasattr(self.batches, "__len__") else length
        while True:
            place = {"epoch": self.epoch + self.start // whole, "start": self.start % whole}
            self.batches.load_state_dict(place)
            for batch in self.batches:
                self.start += 1  # move on before the yield: a reader need not ask again
                if last := self.start >= length:
                    self.epoch, self.start = self.epoch + 1, 0
                yield batch
                if last:
                    return

    def first(self) -> object:
        """The first batch of all."""
        self.batches.load_state_dict({"epoch": 0, "start": 0})
        return next(iter(self.batches))

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "start": self.start}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.start = state["epoch"], state["start"]
