"""DCN: Wang et al., "Deep & Cross Network for Ad Click Predictions", ADKDD 2017, as BARS runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ... import checks
from ...data.schema import Schema
from ...data.store import Batch
from ...nn.click import ClickModel
from ...nn.mlp import MLP, linear

if TYPE_CHECKING:
    from jaxtyping import Float


class VectorCrossNet(nn.Module):
    """x_{l+1} = x_0 (w_l^T x_l) + b_l + x_l, with one vector w_l (D,) a layer (Eq. 3).

    Every x_l is a_l x_0 + c_l, a_l a number a row and c_l = b_0 + ... + b_{l-1}: so one product
    x_0 [w_0 ... w_{L-1}] serves all layers, and what is left is arithmetic on B numbers a layer.
    """

    def __init__(self, d_in: int, crosses: int):
        super().__init__()
        self.w = nn.Parameter(
            torch.randn(crosses, d_in) * (2 / (d_in + 1)) ** 0.5
        )  # Xavier, D to 1
        self.b = nn.Parameter(torch.zeros(crosses, d_in))

    def forward(self, x0: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        c = self.b.cumsum(0)
        from_x0 = (x0 @ self.w.t()).unbind(1)  # w_l^T x_0
        from_c = (self.w[1:] * c[:-1]).sum(1).unbind(0)  # w_l^T c_l; c_0 = 0
        a = 1 + from_x0[0]
        for s, t in zip(from_x0[1:], from_c, strict=True):
            a = a + a * s + t  # w_l^T x_l = a_l (w_l^T x_0) + w_l^T c_l
        return torch.addcmul(c[-1], a[:, None], x0)


class DCN(ClickModel):
    """A Linear on [x_L; MLP(x_0)].

    crosses: layers L >= 1. widths, dropout, batch_norm: see `MLP`. options: see
    `ClickModel`. Raises ValueError for crosses < 1.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        crosses: int = 3,
        widths: Sequence[int] = (400, 400, 400),
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options,
    ):
        checks.whole(crosses=crosses)
        super().__init__(schema, dim, **options)
        self.cross = VectorCrossNet(self.d_in, crosses)
        self.mlp = MLP(self.d_in, widths, dropout=dropout, batch_norm=batch_norm)
        self.head = linear(self.d_in + self.mlp.d_out, 1)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        x0 = self.embed(batch).flatten(1)
        return self.head(torch.cat([self.cross(x0), self.mlp(x0)], 1)).squeeze(1)
