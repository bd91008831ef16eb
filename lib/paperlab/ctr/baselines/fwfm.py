"""FwFM: Pan et al., "Field-weighted Factorization Machines for Click-Through Rate Prediction in
Display Advertising", WWW 2018."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ... import checks
from ...data.schema import Schema
from ...data.store import Batch
from ...nn.click import ClickModel
from .fm import first_order

if TYPE_CHECKING:
    from jaxtyping import Float

LINEAR = ("weight", "field")


def weighted_pairs(e: Float[Tensor, "B F d"], r: Float[Tensor, " P"]) -> Float[Tensor, " B"]:
    """sum_{i<j} r_ij <e_i, e_j>; r holds the P = F (F - 1) / 2 pairs row by row: 01, 02, ..., 12, ..."""
    fields = e.shape[1]
    above = torch.triu_indices(fields, fields, 1, device=e.device)
    weight = e.new_zeros(fields, fields).index_put((above[0], above[1]), r)
    return (e * (weight @ e)).sum((1, 2))


class FwFM(ClickModel):
    """FM with one strength r_ij for each pair of fields: b + linear + sum_{i<j} r_ij <e_i, e_j>.

    linear: ``weight`` is FM's sum_f w_f, a number an id; ``field`` is sum_f <e_f, v_f> with a vector
        v_f for each field (the paper's FiLV), which needs no further number an id.
    options: see `ClickModel`.
    r starts at 1, so that the model starts as FM (the paper does not say how it starts).
    Raises ValueError for an unknown linear part and a schema of one field.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        linear: Literal["weight", "field"] = "weight",
        **options,
    ):
        checks.one_of(LINEAR, linear=linear)
        checks.whole(2, fields=len(schema.fields))
        super().__init__(schema, dim + (linear == "weight"), **options)
        self.linear, self.dim, self.d_in = linear, dim, self.n_fields * dim
        self.bias = nn.Parameter(torch.zeros(()))
        self.r = nn.Parameter(torch.ones(self.n_fields * (self.n_fields - 1) // 2))
        self.v = nn.Parameter(torch.zeros(self.n_fields, dim)) if linear == "field" else None

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        rows = self.embed(batch)
        w, e = first_order(rows) if self.v is None else ((rows * self.v).sum((1, 2)), rows)
        return self.bias + w + weighted_pairs(e, self.r)
