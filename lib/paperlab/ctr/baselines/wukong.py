"""Wukong: Zhang et al., "Wukong: Towards a Scaling Law for Large-Scale Recommendation", ICML 2024."""

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


def projected_pairs(x: Float[Tensor, "B n d"], y: Float[Tensor, "n r"]) -> Float[Tensor, "B n r"]:
    """X (X^T Y): dot products of all pairs of embeddings, the second taken in r mixtures.

    With r = n and Y = I it is the Gram matrix X X^T; the brackets make it linear in n.
    """
    return x @ (x.transpose(1, 2) @ y)


class WukongLayer(nn.Module):
    """X' = LN([FMB; LCB] + W_res X), from n to n_fmb + n_lcb embeddings of width d.

    FMB = MLP(LN(flat(X (X^T Y)))), ReLU also at its end; LCB = W_L X. W_res is the identity where
    the number of embeddings stays. Y starts as N(0, 1/n) (ours: the released scale, N(0, 1), makes
    products grow with n).
    """

    def __init__(
        self, n: int, dim: int, n_lcb: int, n_fmb: int, rank: int, fmb_widths: Sequence[int]
    ):
        super().__init__()
        self.Y = nn.Parameter(torch.randn(n, rank) / n**0.5)
        self.norm_pairs = nn.LayerNorm(n * rank)
        self.mlp = MLP(n * rank, (*fmb_widths, n_fmb * dim))
        self.W_lcb = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_lcb, n)))
        self.W_res = None
        if n != n_fmb + n_lcb:
            self.W_res = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_fmb + n_lcb, n)))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "B n d"]) -> Float[Tensor, "B m d"]:
        fmb = self.mlp(self.norm_pairs(projected_pairs(x, self.Y).flatten(1)))
        fmb = fmb.unflatten(1, (-1, x.shape[2]))
        residual = x if self.W_res is None else self.W_res @ x
        return self.norm(torch.cat([fmb, self.W_lcb @ x], 1) + residual)


class Wukong(ClickModel):
    """Stacked factorisation machines, then an MLP on all embeddings.

    layers >= 1. n_lcb, n_fmb: embeddings that a layer's linear and pairwise part give, >= 1.
    rank: mixtures r in a layer's pairs, >= 1. fmb_widths: hidden layers of a layer's MLP.
    widths, dropout, batch_norm: the MLP at the end, see `MLP`. options: see `ClickModel`.
    Raises ValueError for numbers out of range.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        layers: int = 3,
        n_lcb: int = 40,
        n_fmb: int = 40,
        rank: int = 8,
        fmb_widths: Sequence[int] = (512, 256),
        widths: Sequence[int] = (256,),
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options,
    ):
        checks.whole(layers=layers, n_lcb=n_lcb, n_fmb=n_fmb, rank=rank)
        super().__init__(schema, dim, **options)
        n = n_lcb + n_fmb
        self.layers = nn.Sequential(
            *(
                WukongLayer(size, dim, n_lcb, n_fmb, rank, fmb_widths)
                for size in (self.n_fields, *[n] * (layers - 1))
            )
        )
        self.head = MLP(n * dim, widths, out=1, dropout=dropout, batch_norm=batch_norm)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        return self.head(self.layers(self.embed(batch)).flatten(1)).squeeze(1)
