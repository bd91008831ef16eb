"""AFN and AFN+: Cheng, Shen and Huang, "Adaptive Factorization Network: Learning Adaptive-Order
Feature Interactions", AAAI 2020."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ... import checks
from ...data.schema import Schema
from ...data.store import Batch
from ...nn.click import ClickModel
from ...nn.mlp import MLP

if TYPE_CHECKING:
    from jaxtyping import Float

LEAST = 1e-5  # of |e| before the logarithm; the paper has 1e-7, BARS finds 1e-5 better


def magnitudes(e: Float[Tensor, "*n"], least: float = LEAST) -> Float[Tensor, "*n"]:
    """ln max(|e|, least): finite everywhere; what is below ``least`` gets no gradient."""
    return e.abs().clamp(min=least).log()


def products(logs: Float[Tensor, "B F d"], w: Float[Tensor, "N F"]) -> Float[Tensor, "B N d"]:
    """exp(sum_f w_nf logs_f) = prod_f |e_f|^{w_nf}: N products whose exponents are learned.

    With w_nf 0 or 1 it is a product of some fields, of order sum_f w_nf.
    """
    return (w @ logs).exp()


class AFN(ClickModel):
    """MLP on N learned products of the fields; AFN+ adds a DNN on embeddings of its own.

    units: products N >= 1, each with one exponent a field. ensemble: True is AFN+, whose logit is
        c_1 AFN + c_2 DNN + c_0; False is AFN alone.
    widths: of the MLP on the products and of the DNN; dropout, batch_norm: see `MLP`.
    options: see `ClickModel`.
    The logarithms and the products pass a BatchNorm each, over rows and d, always: without it the
    products of small embeddings vanish. The DNN's embeddings are the table's other dim columns.
    Raises ValueError for units < 1.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        units: int = 64,
        ensemble: bool = True,
        widths: Sequence[int] = (400, 400, 400),
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options,
    ):
        checks.whole(units=units)
        super().__init__(schema, dim * (1 + ensemble), **options)
        self.dim, self.d_in = dim, self.n_fields * dim
        self.log_norm, self.norm = nn.BatchNorm1d(self.n_fields), nn.BatchNorm1d(units)
        self.w = nn.Parameter(nn.init.xavier_normal_(torch.empty(units, self.n_fields)))
        rest = {"out": 1, "dropout": dropout, "batch_norm": batch_norm}
        self.mlp = MLP(units * dim, widths, **rest)
        self.dnn = MLP(self.d_in, widths, **rest) if ensemble else None
        self.join = nn.Linear(2, 1) if ensemble else None
        if ensemble:  # starts as the plain sum
            nn.init.ones_(self.join.weight)
            nn.init.zeros_(self.join.bias)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        rows = self.embed(batch)
        crossed = products(self.log_norm(magnitudes(rows[..., : self.dim])), self.w)
        logit = self.mlp(self.norm(crossed).flatten(1))
        if self.dnn is not None:
            logit = self.join(torch.cat([logit, self.dnn(rows[..., self.dim :].flatten(1))], 1))
        return logit.squeeze(1)
