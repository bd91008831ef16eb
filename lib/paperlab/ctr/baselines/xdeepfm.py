"""xDeepFM: Lian et al., "xDeepFM: Combining Explicit and Implicit Feature Interactions for
Recommender Systems", KDD 2018, as BARS defines it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ... import checks
from ...data.schema import Schema
from ...data.store import Batch
from ...nn.mlp import linear
from .deepfm import DeepFM
from .fm import first_order

if TYPE_CHECKING:
    from jaxtyping import Float


class CIN(nn.Module):
    """X^l_h = sum_{i,j} W^l_{h,ij} (X^0_i * X^{l-1}_j) + b^l_h, summed over d, all layers (Eqs. 6-7).

    maps: feature maps H_l of each layer, each >= 1. The paper's activation is the identity.
    ``weight[l]`` (H_{l-1}, F H_l) is applied to X^{l-1} first: the F x H_{l-1} products of field
    vectors are never written down.
    """

    def __init__(self, fields: int, maps: Sequence[int]):
        super().__init__()
        self.fields, self.maps = fields, tuple(maps)
        before = (fields, *self.maps[:-1])
        self.weight = nn.ParameterList(
            # Xavier as for the 1x1 convolution over F H_{l-1} products that it is in BARS
            torch.randn(n, fields * h) * (2 / (n * fields + h)) ** 0.5
            for n, h in zip(before, self.maps, strict=True)
        )
        self.bias = nn.ParameterList(torch.zeros(h) for h in self.maps)

    def forward(self, e: Float[Tensor, "B F d"]) -> Float[Tensor, "B H"]:
        x0 = x = e.transpose(1, 2).contiguous()  # (B, d, F): every coordinate of d by itself
        sums = []
        for weight, bias, h in zip(self.weight, self.bias, self.maps, strict=True):
            mixed = (x @ weight).view(-1, self.fields, h)  # sum over j, for each (b, d), i and h
            x = (x0.view(-1, 1, self.fields) @ mixed).view(*x0.shape[:2], h) + bias  # sum over i
            sums.append(x.sum(1))
        return torch.cat(sums, 1)


class XDeepFM(DeepFM):
    """LR + CIN + MLP; the table is FM's, w and e in one row.

    maps: see `CIN`. widths, dropout, batch_norm: see `MLP`. options: see `ClickModel`.
    Raises ValueError when there is no layer of maps, or one below 1.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        maps: Sequence[int] = (16, 16),
        widths: Sequence[int] = (400, 400, 400),
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options,
    ):
        checks.widths(maps=maps)
        super().__init__(
            schema,
            dim,
            widths=widths,
            dropout=dropout,
            batch_norm=batch_norm,
            **options,
        )
        self.cin = CIN(self.n_fields, maps)
        self.head = linear(sum(maps), 1)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        w, e = first_order(self.embed(batch))
        logit = self.head(self.cin(e)) + self.mlp(e.flatten(1))
        return self.bias + w + logit.squeeze(1)
