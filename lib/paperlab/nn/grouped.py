"""Layers with weights of their own for each group of units, all groups at once.

Input and output have the group first, the layout of a batched product: transposing (B, G, d) costs
nothing on the way in, and a copy on the way out only where a kernel needs one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Float


class GroupedLinear(nn.Module):
    """y_g = x_g W_g + b_g for G groups: a dense layer whose weight is block-diagonal.

    ``weight`` (G, d_in, d_out) is Xavier normal group by group, ``bias`` (G, d_out) is 0.
    """

    def __init__(self, groups: int, d_in: int, d_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(groups, d_in, d_out))
        self.bias = nn.Parameter(torch.zeros(groups, d_out))
        for w in self.weight:
            nn.init.xavier_normal_(w)

    def forward(self, x: Float[Tensor, "G B d_in"]) -> Float[Tensor, "G B d_out"]:
        return torch.baddbmm(self.bias[:, None], x, self.weight)

    def extra_repr(self) -> str:
        return "{} groups, {} -> {}".format(*self.weight.shape)


class GroupedLayerNorm(nn.Module):
    """LayerNorm over d with a scale and a shift of its own for each of G groups."""

    def __init__(self, groups: int, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(groups, dim))
        self.bias = nn.Parameter(torch.zeros(groups, dim))

    def forward(self, x: Float[Tensor, "G B d"]) -> Float[Tensor, "G B d"]:
        return F.layer_norm(x, x.shape[-1:]) * self.weight[:, None] + self.bias[:, None]
