"""FM: Rendle, "Factorization Machines", ICDM 2010, as BARS defines it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...data.schema import Schema
from ...data.store import Batch
from ...nn.click import ClickModel

if TYPE_CHECKING:
    from jaxtyping import Float


def pairwise(e: Float[Tensor, "B F d"]) -> Float[Tensor, " B"]:
    """Dot products of all pairs of fields, sum_{i<j} <e_i, e_j>, in time linear in F.

    = 1/2 sum_j [(sum_f e_fj)^2 - sum_f e_fj^2]  (Lemma 3.1 of the paper).
    """
    total = e.sum(1)
    return (total.square().sum(1) - e.square().sum((1, 2))) / 2


class _Columns(torch.autograd.Function):
    """A table's rows to sum_f w_f and the vectors e.

    As ``split`` and ``sum`` would; but their backward pass joins columns of width 1 and d by ``cat``,
    which takes longer than all the rest of a small model's.
    """

    @staticmethod
    def forward(ctx, rows):
        return rows[:, :, 0].sum(1), rows[:, :, 1:].contiguous()

    @staticmethod
    def backward(ctx, grad_w, grad_e):
        grad = grad_e.new_empty(*grad_e.shape[:2], 1 + grad_e.shape[2])
        grad[:, :, 0] = grad_w[:, None]
        grad[:, :, 1:] = grad_e
        return grad


def first_order(
    rows: Float[Tensor, "B F D"],
) -> tuple[Float[Tensor, " B"], Float[Tensor, "B F d"]]:
    """sum_f w_f, w being column 0, and e, the other d = D - 1 columns."""
    return _Columns.apply(rows)


class FM(ClickModel):
    """b + sum_f w_f + sum_{f<g} <e_f, e_g>.

    w and e are columns of one table of width ``dim + 1``, so that one lookup fetches both.
    options: see `ClickModel`.
    """

    def __init__(self, schema: Schema, dim: int = 16, **options):
        super().__init__(schema, dim + 1, **options)
        self.dim, self.d_in = dim, self.n_fields * dim
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        w, e = first_order(self.embed(batch))
        return self.bias + w + pairwise(e)
