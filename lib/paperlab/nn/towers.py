"""One MLP tower a group of samples, for groups of any sizes.

Each sample of a batch is scattered into a slot of its group's tower, so that all towers of all
heads are one batched product a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .grouped import GroupedLinear

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class GroupIndex(NamedTuple):
    """Where each sample of a batch stands among the slots of its group's tower."""

    place: Int[Tensor, " B"]  # tower * capacity + slot
    towers: int
    capacity: int  # slots a tower: the largest share of the batch

    def scatter(self, x: Float[Tensor, "B d"]) -> Float[Tensor, "towers capacity d"]:
        """Samples in their slots; an empty slot is 0."""
        slots = x.new_zeros(self.towers * self.capacity, x.shape[1])
        return slots.index_copy(0, self.place, x).view(self.towers, self.capacity, -1)

    def gather(self, y: Float[Tensor, "heads towers capacity d"]) -> Float[Tensor, "heads B d"]:
        """Samples in the order of the batch."""
        return y.flatten(1, 2)[:, self.place]


def group_index(tower: Int[Tensor, " B"], towers: int) -> GroupIndex:
    """Give each sample the next slot of its tower; an empty slot costs time but moves nothing."""
    count = torch.bincount(tower, minlength=towers)
    order = tower.argsort(stable=True)
    slot = torch.arange(len(tower), device=tower.device) - (count.cumsum(0) - count)[tower[order]]
    capacity = int(count.max())
    place = torch.empty_like(order).scatter_(0, order, tower[order] * capacity + slot)
    return GroupIndex(place, towers, capacity)


class GroupedMLP(nn.Module):
    """Independent ELU MLPs, one a group, as batched products. widths: input, hidden, output."""

    def __init__(self, groups: int, widths: Sequence[int]):
        super().__init__()
        self.layers = nn.ModuleList(GroupedLinear(groups, a, b) for a, b in pairwise(widths))

    def forward(self, x: Float[Tensor, "G B d_in"]) -> Float[Tensor, "G B d_out"]:
        for layer in self.layers[:-1]:
            x = F.elu(layer(x))
        return self.layers[-1](x)


class GroupTowers(GroupedMLP):
    """ELU towers, one a head and a group; a sample passes through those of its group only.

    heads: independent copies that read the same input.
    """

    def __init__(self, d_in: int, widths: Sequence[int], d_out: int, towers: int, heads: int = 1):
        super().__init__(heads * towers, (d_in, *widths, d_out))
        self.heads = heads

    def forward(
        self, x: Float[Tensor, "towers capacity d_in"], to: GroupIndex
    ) -> Float[Tensor, "heads B d_out"]:
        y = super().forward(x.repeat(self.heads, 1, 1))
        return to.gather(y.unflatten(0, (self.heads, -1)))
