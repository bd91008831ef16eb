"""Popularity along a stream: a trivial rival that reads no user and no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import torch

from ... import checks
from ...data.store import Split

if TYPE_CHECKING:
    from jaxtyping import Float


class ItemCounts:
    """Decayed counts of an item's positives (a method of `prequential`).

    size: of the item table. decay: share of a count that is left after a period, in [0, 1];
    0: the last period alone, 1: all periods alike. column: of the item among the ids.
    Raises ValueError for values out of range.
    """

    def __init__(self, size: int, decay: float = 1.0, column: int = 1):
        checks.whole(size=size)
        checks.inside("[0, 1]", decay=decay)
        checks.whole(0, column=column)
        self.size, self.decay, self.column = size, decay, column

    def update(self, periods: Sequence[Split]) -> Self:
        """Count the positives of all periods so far."""
        self.counts = torch.zeros(self.size)
        for p in periods:
            bought = p.ids[p.labels[:, 0] == 1, self.column]
            self.counts = self.decay * self.counts + bought.bincount(minlength=self.size)
        return self

    def predict(self, period: Split) -> Float[torch.Tensor, " n"]:
        """ln(1 + count): for ranking; it is not calibrated."""
        return self.counts[period.ids[:, self.column].long()].log1p()
