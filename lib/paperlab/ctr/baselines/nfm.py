"""NFM: He and Chua, "Neural Factorization Machines for Sparse Predictive Analytics", SIGIR 2017."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ...data.schema import Schema
from ...data.store import Batch
from ...nn.mlp import MLP
from .fm import FM, first_order

if TYPE_CHECKING:
    from jaxtyping import Float


def bi_interaction(e: Float[Tensor, "B F d"]) -> Float[Tensor, "B d"]:
    """Sum over pairs of fields of their elementwise products, sum_{i<j} e_i * e_j.

    = 1/2 [(sum_f e_f)^2 - sum_f e_f^2], coordinate by coordinate: Bi-Interaction pooling of the
    paper's Section 3. Its sum over d is FM's `pairwise`.
    """
    return (e.sum(1).square() - e.square().sum(1)) / 2


class NFM(FM):
    """b + sum_f w_f + MLP(sum_{i<j} e_i * e_j): FM's pairs, read by a network before they are summed.

    w and e are FM's, columns of one table. dropout, batch_norm: also on the pooled pairs, as in the
    paper; widths: see `MLP`. options: see `ClickModel`.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        widths: Sequence[int] = (400, 400, 400),
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options,
    ):
        super().__init__(schema, dim, **options)
        self.mlp = MLP(dim, widths, out=1, dropout=dropout, batch_norm=batch_norm)
        norm = [nn.BatchNorm1d(dim)] if batch_norm else []
        self.pooled = nn.Sequential(*norm, *([nn.Dropout(dropout)] if dropout else []))

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        w, e = first_order(self.embed(batch))
        return self.bias + w + self.mlp(self.pooled(bi_interaction(e))).squeeze(1)
