"""GDCN: Wang et al., "Towards Deeper, Lighter and Interpretable Cross Network for CTR Prediction",
CIKM 2023, as FuxiCTR defines it, except where said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ... import checks
from ...data.schema import Schema
from ...data.store import Batch
from ...nn.click import ClickModel
from ...nn.mlp import MLP, linear

if TYPE_CHECKING:
    from jaxtyping import Float

STRUCTURES = ("stacked", "parallel")


class GatedCrossNet(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) * sigmoid(G_l x_l) + x_l: DCNv2's cross, each with a gate.

    ``project[l]`` (2 D, D) is W_l above G_l, each Xavier normal: one product serves both. b starts
    at 0 (ours, as in every other model here; FuxiCTR draws it uniform in (0, 1), which adds a large
    multiple of x_0 to every row at the start).
    """

    def __init__(self, d_in: int, crosses: int):
        super().__init__()
        self.project = nn.ParameterList(torch.empty(2 * d_in, d_in) for _ in range(crosses))
        self.b = nn.ParameterList(torch.zeros(d_in) for _ in range(crosses))
        for weight in self.project:
            for half in weight.chunk(2):
                nn.init.xavier_normal_(half)

    def forward(self, x0: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        x = x0
        for weight, b in zip(self.project, self.b, strict=True):
            wx, gx = F.linear(x, weight).chunk(2, 1)
            x = x0 * (wx + b) * gx.sigmoid() + x
        return x


class GDCN(ClickModel):
    """Gated crosses below or beside an MLP.

    structure: ``stacked`` (GDCN-S) is an MLP on x_L, ``parallel`` (GDCN-P) a Linear on
        [x_L; MLP(x_0)]. crosses: layers L >= 1. widths, dropout, batch_norm: see `MLP`.
    options: see `ClickModel`.
    Raises ValueError for an unknown structure or crosses < 1.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        structure: Literal["stacked", "parallel"] = "parallel",
        crosses: int = 3,
        widths: Sequence[int] = (400, 400, 400),
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options,
    ):
        checks.one_of(STRUCTURES, structure=structure)
        checks.whole(crosses=crosses)
        super().__init__(schema, dim, **options)
        self.structure = structure
        self.cross = GatedCrossNet(self.d_in, crosses)
        out = 1 if structure == "stacked" else None
        self.mlp = MLP(self.d_in, widths, out=out, dropout=dropout, batch_norm=batch_norm)
        if structure == "parallel":
            self.head = linear(self.d_in + self.mlp.d_out, 1)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        x0 = self.embed(batch).flatten(1)
        x = self.cross(x0)
        if self.structure == "stacked":
            return self.mlp(x).squeeze(1)
        return self.head(torch.cat([x, self.mlp(x0)], 1)).squeeze(1)
