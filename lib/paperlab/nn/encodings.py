"""When an event happened, as a vector: by rank or by time from the target (TIN's TTE-P, TTE-T), or
by its place in the sequence, for comparison.

TIN counts from the target: an index means the same recency for histories of any length. ``absolute``
and ``reversed`` do not; they are not in the paper and serve as comparisons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .. import checks

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

KINDS = ("rank", "interval", "absolute", "reversed")
BUCKETS = 32  # of elapsed time: the last one begins after 2^31 hours


def positions(
    kind: str,
    mask: Bool[Tensor, "B T"],
    elapsed: Float[Tensor, "B T"] | None = None,
    size: int | None = None,
) -> tuple[Int[Tensor, "B T"], Int[Tensor, " B"]]:
    """f(X_i) of every event and f(X_t) of the target; 0 at padding.

    kind: ``rank``: 1 for the most recent event, n for the oldest; target 0 (TTE-P).
        ``interval``: floor(log2(1 + hours before the target)) + 1; target 0 (TTE-T; the buckets are our choice).
        ``absolute``: 1 for the oldest, n for the most recent, n + 1 for the target: the place in a
        sequence that ends with the target, as in a Transformer.
        ``reversed``: the same with target 0: TTE-P counted from the wrong end.
    elapsed: hours >= 0 from event to target; only ``interval`` reads it.
    size: the highest index; what is above it gets it. None: no limit.
    Raises ValueError for an unknown kind, and for ``interval`` without elapsed times.
    """
    checks.one_of(KINDS, encoding=kind)
    target = mask.new_zeros(len(mask), dtype=torch.long)
    if kind == "interval":
        if elapsed is None:
            raise ValueError("encoding 'interval' needs times of events, which this log has not")
        index = elapsed.clamp(min=0).add(1).log2().floor().long() + 1
    elif kind == "rank":
        index = mask.flip(1).cumsum(1).flip(1)
    else:
        index = mask.cumsum(1)
        if kind == "absolute":
            target = mask.sum(1) + 1
    index = index * mask
    return (index, target) if size is None else (index.clamp(max=size), target.clamp(max=size))


class TemporalEncoding(nn.Module):
    """e~_i = e_i + p_f(X_i), v~_t = v_t + p_f(X_t), with one table P (size + 1, dim).

    kind: see `positions`. size: R >= 1, the highest index. std: of P's initial normal weights.
    Raises ValueError for an unknown kind or a size below 1.
    """

    def __init__(self, kind: str, size: int, dim: int, std: float = 0.05):
        checks.one_of(KINDS, encoding=kind)
        checks.whole(size=size)
        super().__init__()
        self.kind, self.size = kind, size
        self.table = nn.Embedding(size + 1, dim)
        nn.init.normal_(self.table.weight, 0, std)

    @classmethod
    def for_length(cls, kind: str, length: int, dim: int, std: float) -> TemporalEncoding:
        """With the size that histories of up to ``length`` events can use."""
        size = {"interval": BUCKETS, "absolute": length + 1}.get(kind, length)
        return cls(kind, size, dim, std)

    def forward(
        self,
        events: Float[Tensor, "B T D"],
        target: Float[Tensor, "B D"],
        mask: Bool[Tensor, "B T"],
        elapsed: Float[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D"]]:
        index, at_target = positions(self.kind, mask, elapsed, self.size)
        return events + self.table(index), target + self.table(at_target)

    def extra_repr(self) -> str:
        return f"{self.kind}, {self.size}"
