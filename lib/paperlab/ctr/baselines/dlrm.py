"""DLRM: Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation
Systems", 2019, arXiv 1906.00091."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ... import checks
from ...data.schema import Schema
from ...data.store import Batch
from ...nn.click import ClickModel
from ...nn.mlp import MLP

if TYPE_CHECKING:
    from jaxtyping import Float


def upper_dots(x: Float[Tensor, "B n d"]) -> Float[Tensor, "B p"]:
    """Dot products of all pairs i < j of n vectors, p = n (n - 1) / 2, in the order of (i, j)."""
    n = x.shape[1]
    i, j = torch.triu_indices(n, n, 1, device=x.device)
    return (x @ x.transpose(1, 2)).flatten(1).index_select(1, i * n + j)


class DLRM(ClickModel):
    """An MLP on [bottom; dot products of all pairs], bottom = MLP(numeric values) (B, d).

    The pairs are of the categorical (and history) vectors and ``bottom``. Numeric values enter only
    through the bottom MLP, as they are; a schema without numeric fields has no
    bottom, and then the top MLP sees dot products only: no field by itself.
    bottom_widths: hidden layers of the bottom MLP; ReLU also at its end, as in the released code.
    widths, dropout, batch_norm: the top MLP, see `MLP`. options: see `ClickModel`.
    Raises ValueError when there is no pair.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        bottom_widths: Sequence[int] = (64, 64),
        widths: Sequence[int] = (400, 400, 400),
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options,
    ):
        fields = tuple(f for f in schema.fields if f.kind != "numeric")
        checks.widths(True, bottom_widths=bottom_widths)
        n = len(fields) + bool(schema.numeric)
        if n < 2:
            raise ValueError(f"schema must give at least two vectors to pair, it gives {n}")
        super().__init__(replace(schema, fields=fields), dim, **options)
        self.schema = schema
        self.bottom = None
        if schema.numeric:
            self.bottom = MLP(len(schema.numeric), (*bottom_widths, dim))
        d_top = n * (n - 1) // 2 + (dim if schema.numeric else 0)
        self.top = MLP(d_top, widths, out=1, dropout=dropout, batch_norm=batch_norm)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        x = self.embed(batch)
        if self.bottom is None:
            return self.top(upper_dots(x)).squeeze(1)
        dense = self.bottom(batch.numeric)
        x = torch.cat([dense[:, None], x], 1)
        return self.top(torch.cat([dense, upper_dots(x)], 1)).squeeze(1)
