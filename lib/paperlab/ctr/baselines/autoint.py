"""AutoInt: Song et al., "AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural
Networks", CIKM 2019, as BARS defines it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

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


class InteractingLayer(nn.Module):
    """ReLU(A V + W_res X) with A = softmax(Q K^T) over the fields, in ``heads`` heads (Eqs. 5-8).

    ``project`` (4, a, d) holds W_query, W_key, W_value and W_res, without bias.
    scale: divide Q K^T by the root of a head's width, which the paper does not.
    """

    def __init__(self, d_in: int, attention_dim: int, heads: int, scale: bool):
        super().__init__()
        self.heads = heads
        self.scale = (heads / attention_dim) ** 0.5 if scale else 1.0
        self.project = nn.Parameter(torch.empty(4, attention_dim, d_in))
        for weight in self.project:
            nn.init.xavier_normal_(weight)

    def forward(self, x: Float[Tensor, "B F d"]) -> Float[Tensor, "B F a"]:
        q, k, v, residual = (F.linear(x, weight) for weight in self.project)
        # By hand: over some forty fields torch's fused attention is slower on a CPU, 4x in bf16.
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        mixed = (self.scale * q @ k.transpose(2, 3)).softmax(3) @ v
        return F.relu(mixed.transpose(1, 2).flatten(2) + residual)


class AutoInt(ClickModel):
    """Self-attention over fields, then a Linear; with ``widths``, AutoInt+: an MLP's logit added.

    layers >= 1. attention_dim: width a of a field after a layer, a multiple of ``heads``.
    scale: see `InteractingLayer`. widths, dropout, batch_norm: the MLP of AutoInt+, see `MLP`.
    options: see `ClickModel`.
    Raises ValueError when ``heads`` does not divide ``attention_dim`` or ``layers`` < 1.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        layers: int = 3,
        attention_dim: int = 64,
        heads: int = 2,
        scale: bool = False,
        widths: Sequence[int] = (),
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options,
    ):
        checks.whole(layers=layers, heads=heads)
        checks.multiple(heads, attention_dim=attention_dim)
        super().__init__(schema, dim, **options)
        sizes = [dim] + [attention_dim] * (layers - 1)
        self.layers = nn.Sequential(
            *(InteractingLayer(d, attention_dim, heads, scale) for d in sizes)
        )
        self.head = linear(self.n_fields * attention_dim, 1)
        self.mlp = None
        if widths:
            self.mlp = MLP(self.d_in, widths, out=1, dropout=dropout, batch_norm=batch_norm)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        e = self.embed(batch)
        logit = self.head(self.layers(e).flatten(1))
        if self.mlp is not None:
            logit = logit + self.mlp(e.flatten(1))
        return logit.squeeze(1)
