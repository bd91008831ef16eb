"""One hidden layer on the fields of an impression. (A start: put the paper's model here.)

Title of the paper. (Name authors, venue and arXiv id.)

    h     = ReLU(W x + c)        1. what each hidden unit sees of the input x
    logit = v h + b              2. what the units add up to

Say here which equations are the paper's, what its released code does differently, and what you add.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from .. import checks
from ..data.schema import Schema
from ..data.store import Batch
from ..nn.click import ClickModel
from ..nn.mlp import linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float


def logit(
    x: Float[Tensor, "*rows d_in"],
    weight: Float[Tensor, "width d_in"],
    bias: Float[Tensor, " width"],
    out: Float[Tensor, " width"],
    nonlinear: bool = True,
) -> Float[Tensor, "*rows"]:
    """out · ReLU(weight x + bias), equations 1 and 2 without b. nonlinear: False leaves ReLU out."""
    h = F.linear(x, weight, bias)
    return (h.relu() if nonlinear else h) @ out


class Newcomer(ClickModel):
    """b + `logit` of the F field vectors laid end to end.

    dim: width of a field vector, at least 1.
    width: hidden units, at least 1.
    nonlinear: False is the ablation, which is a logistic regression.
    std, lr: see `ClickModel`.
    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        dim: int = 16,
        width: int = 64,
        nonlinear: bool = True,
        std: float = 0.01,
        lr: float = 1e-3,
    ):
        checks.whole(dim=dim, width=width)
        super().__init__(schema, dim, std=std, lr=lr)
        self.hidden, self.out = linear(self.d_in, width), linear(width, 1)
        self.nonlinear = nonlinear

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        x = self.embed(batch).flatten(1)
        hidden, out = self.hidden, self.out
        return logit(x, hidden.weight, hidden.bias, out.weight[0], self.nonlinear) + out.bias


def contenders() -> dict[str, Callable[[Schema, int | None], ClickModel]]:
    """What `paperlab.tryout` compares on a reader's log. (Put the paper's own rivals here too.)"""

    def build(nonlinear: bool):
        def made(schema: Schema, width: int) -> ClickModel:
            return Newcomer(schema, width=width, nonlinear=nonlinear)

        return made

    return {"Newcomer": build(True), "without ReLU": build(False)}
