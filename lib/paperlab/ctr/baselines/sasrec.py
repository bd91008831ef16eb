"""SASRec's layer: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018
(arXiv 1808.09781), as a layer of `paperlab.ctr.next_item.NextItem`, pre-norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional as F

from ... import checks
from ...nn.transformer import attention_weights

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


class SASRecLayer(nn.Module):
    """x + softmax attention(LN x), then x + FFN(LN x).

    inner: width of queries, keys and values over all heads; None: dim. hidden: units of the FFN; 0
    leaves it out. With inner = dim and hidden = dim / 2, or inner = 1.25 dim and hidden = 0, the
    matrices have 5 dim^2 weights, as those of an HSTU layer.
    Raises ValueError for widths that the heads do not divide.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        inner: int | None = None,
        hidden: int = 0,
        dropout: float = 0.0,
    ):
        inner = dim if inner is None else inner
        checks.whole(dim=dim, heads=heads)
        checks.whole(0, hidden=hidden)
        checks.multiple(heads, inner=inner)
        checks.inside("[0, 1)", dropout=dropout)
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv, self.out = nn.Linear(dim, 3 * inner), nn.Linear(inner, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(1 + (hidden > 0)))
        self.feed = None
        if hidden:
            self.feed = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        for weight in (p for p in self.parameters() if p.ndim > 1):
            nn.init.xavier_uniform_(weight)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "#B T T"],
        positions: Int[Tensor, " T"],
        times: tuple | None = None,
    ) -> tuple[Float[Tensor, "B T D"], None]:
        """The tokens one layer on. positions, times: not used."""
        qkv = self.qkv(self.norms[0](x)).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        a = attention_weights(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5, mask[:, None])
        x = x + self._drop(self.out((a @ v).transpose(1, 2).flatten(2)))
        return (x if self.feed is None else x + self._drop(self.feed(self.norms[1](x)))), None

    def _drop(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return F.dropout(x, self.dropout, self.training)
