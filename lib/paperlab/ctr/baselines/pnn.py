"""PNN: Qu et al., "Product-based Neural Networks for User Response Prediction", ICDM 2016."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ... import checks
from ...data.schema import Schema
from ...data.store import Batch
from ...nn.click import ClickModel
from ...nn.mlp import MLP

if TYPE_CHECKING:
    from jaxtyping import Float

PRODUCTS = ("inner", "outer", "both")


def inner_products(e: Float[Tensor, "B F d"]) -> Float[Tensor, "B P"]:
    """<e_i, e_j> for the P = F (F - 1) / 2 pairs i < j, row by row: 01, 02, ..., 12, ..."""
    i, j = torch.triu_indices(e.shape[1], e.shape[1], 1, device=e.device)
    return (e @ e.transpose(1, 2))[:, i, j]


def outer_product(e: Float[Tensor, "B F d"]) -> Float[Tensor, "B d*d"]:
    """sum_{i,j} e_i e_j^T = s s^T with s = sum_f e_f, flattened (the paper's superposition)."""
    s = e.sum(1)
    return (s[:, :, None] * s[:, None, :]).flatten(1)


class PNN(ClickModel):
    """MLP([e; p]): the fields end to end, and their products.

    product: p holds the inner products of all pairs (``inner``, IPNN), the summed outer product
        (``outer``, OPNN), or ``both`` (the paper's PNN*).
    widths, dropout, batch_norm: see `MLP`; options: see `ClickModel`.
    The first layer has a free weight for each inner product. The paper ties them (rank one over
    fields) to save time, and counts <e_i, e_i> too; BARS runs the form here.
    Raises ValueError for an unknown product and a schema of one field.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        product: Literal["inner", "outer", "both"] = "inner",
        widths: Sequence[int] = (400, 400, 400),
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options,
    ):
        checks.one_of(PRODUCTS, product=product)
        checks.whole(2, fields=len(schema.fields))
        super().__init__(schema, dim, **options)
        self.product = product
        pairs = 0 if product == "outer" else self.n_fields * (self.n_fields - 1) // 2
        d_in = self.d_in + pairs + (0 if product == "inner" else dim * dim)
        self.mlp = MLP(d_in, widths, out=1, dropout=dropout, batch_norm=batch_norm)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        e = self.embed(batch)
        parts = [e.flatten(1)]
        if self.product != "outer":
            parts.append(inner_products(e))
        if self.product != "inner":
            parts.append(outer_product(e))
        return self.mlp(torch.cat(parts, 1)).squeeze(1)
