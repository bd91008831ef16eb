"""Towers of which a sample meets only those of its group, whatever the groups' sizes.

A batch is dealt: each sample takes a seat at the tower of its group, so that all towers of all
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


class Deal(NamedTuple):
    """Where each sample of a batch goes when it is dealt to the towers of its group."""

    place: Int[Tensor, " B"]  # tower * room + seat
    towers: int
    room: int  # seats a tower: the largest share of the batch

    def hand_out(self, x: Float[Tensor, "B d"]) -> Float[Tensor, "towers room d"]:
        seats = x.new_zeros(self.towers * self.room, x.shape[1]).index_copy(0, self.place, x)
        return seats.view(self.towers, self.room, -1)

    def collect(self, y: Float[Tensor, "heads towers room d"]) -> Float[Tensor, "heads B d"]:
        return y.flatten(1, 2)[:, self.place]


def deal(tower: Int[Tensor, " B"], towers: int) -> Deal:
    """Seat each sample at its tower, in order; an empty seat costs time but moves nothing."""
    count = torch.bincount(tower, minlength=towers)
    order = tower.argsort(stable=True)
    seat = torch.arange(len(tower), device=tower.device) - (count.cumsum(0) - count)[tower[order]]
    room = int(count.max())
    place = torch.empty_like(order).scatter_(0, order, tower[order] * room + seat)
    return Deal(place, towers, room)


class GroupTowers(nn.Module):
    """ELU towers, one a head and a tower group; a sample meets only those of its group.

    All towers of all heads are one batched product a layer. heads: independent copies that read the
    same input.
    """

    def __init__(self, d_in: int, widths: Sequence[int], d_out: int, towers: int, heads: int = 1):
        super().__init__()
        self.heads = heads
        self.layers = nn.ModuleList(
            GroupedLinear(heads * towers, a, b) for a, b in pairwise((d_in, *widths, d_out))
        )

    def forward(
        self, x: Float[Tensor, "towers room d_in"], to: Deal
    ) -> Float[Tensor, "heads B d_out"]:
        h = x.repeat(self.heads, 1, 1)
        for layer in self.layers[:-1]:
            h = F.elu(layer(h))
        return to.collect(self.layers[-1](h).unflatten(0, (self.heads, -1)))
