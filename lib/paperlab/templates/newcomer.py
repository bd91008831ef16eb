"""Newcomer: one hidden layer on the fields of an impression. (A start: put the paper's model here.)

Title of the paper. (Name authors, venue and arXiv id.)

    h     = ReLU(W x + c)        1. what each hidden unit sees of the input x
    logit = v h + b              2. what the units add up to

Ours: all of it, as long as this is the start. Say here what the paper's equations are, what its
released code does differently, and what you add.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from ..data.schema import Schema
from ..data.store import Batch
from ..nn.click import ClickModel
from ..nn.mlp import linear

if TYPE_CHECKING:
    from jaxtyping import Float


def logit(
    x: Float[Tensor, "*rows d_in"],
    weight: Float[Tensor, "width d_in"],
    bias: Float[Tensor, " width"],
    out: Float[Tensor, " width"],
    bend: bool = True,
) -> Float[Tensor, "*rows"]:
    """out · ReLU(weight x + bias), equations 1 and 2 without b. bend: False leaves ReLU out."""
    h = F.linear(x, weight, bias)
    return (h.relu() if bend else h) @ out


class Newcomer(ClickModel):
    """b + `logit` of the F field vectors laid end to end.

    dim: width of a field vector, at least 1. width: hidden units, at least 1. bend: False is the
    ablation, which is a logistic regression. lr: Adam's learning rate.
    Raises ValueError for sizes out of range.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        dim: int = 16,
        width: int = 64,
        bend: bool = True,
        lr: float = 1e-3,
    ):
        if min(dim, width) < 1:
            raise ValueError(f"dim and width must be at least 1, got {dim} and {width}")
        super().__init__(schema, dim, lr=lr)
        self.hidden, self.out, self.bend = linear(self.d_in, width), linear(width, 1), bend

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        x = self.embed(batch).flatten(1)
        found = logit(x, self.hidden.weight, self.hidden.bias, self.out.weight[0], self.bend)
        return found + self.out.bias
