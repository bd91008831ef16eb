"""SASRec as a ranker: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018
(arXiv 1808.09781). The blocks are the paper's; the head that compares the last state with the target
is that of all models here, where the paper takes their dot product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ... import checks
from ...data.schema import Schema
from ...nn.attention import MultiHeadAttention
from ...nn.encodings import positions
from ...nn.mlp import linear
from ..base import InterestModel

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


class Block(nn.Module):
    """x + attention(LN x), then x + FFN(LN x), for the last ``queries`` steps (None: all)."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.attention = MultiHeadAttention(dim, heads)
        self.feed = nn.Sequential(linear(dim, dim), nn.ReLU(), linear(dim, dim))
        self.dropout = dropout

    def forward(
        self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"], queries: int | None = None
    ) -> Float[Tensor, "B Q D"]:
        steps = x.shape[1]
        first = 0 if queries is None else steps - queries
        causal = torch.ones(steps, steps, dtype=torch.bool, device=x.device).tril()[first:]
        normed = self.norms[0](x)  # causal and padding, before the softmax over keys
        mixed, _ = self.attention(normed[:, first:], normed, causal & mask[:, None])
        x = x[:, first:] + F.dropout(mixed, self.dropout, self.training)
        return x + F.dropout(self.feed(self.norms[1](x)), self.dropout, self.training)


class SASRec(InterestModel):
    """[h; v_t; h * v_t], h the last state of causal self-attention over the history.

    Steps are sqrt(d) s_i + a learned position that counts from the end. Of the last block only the
    last step is computed. An empty history has h = 0.

    blocks >= 1; heads must divide d. dropout: on steps, in blocks and in the head.
    widths, options: see `InterestModel`.
    Raises ValueError for numbers out of range.
    """

    product = True

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        blocks: int = 2,
        heads: int = 2,
        widths: Sequence[int] = (200, 80),
        dropout: float = 0.0,
        **options,
    ):
        checks.whole(blocks=blocks, heads=heads)
        checks.inside("[0, 1)", dropout=dropout)
        super().__init__(schema, dim, **options)
        d = self.d_event
        self.table = nn.Embedding(schema.length + 1, d)
        nn.init.normal_(self.table.weight, 0, self.std)
        self.blocks = nn.ModuleList(Block(d, heads, dropout) for _ in range(blocks))
        self.norm, self.dropout = nn.LayerNorm(d), dropout
        self.head = self.head_on(3 * d, widths, dropout)

    def encode(self, events, target, mask, elapsed):
        index, _ = positions("rank", mask, size=self.table.num_embeddings - 1)
        return events * self.d_event**0.5 + self.table(index), target

    def states(
        self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"], last: bool = False
    ) -> Float[Tensor, "B Q D"]:
        """States of all steps of encoded events, or of the last one only (Q = 1)."""
        for k, block in enumerate(self.blocks):
            x = block(x, mask, 1 if last and k == len(self.blocks) - 1 else None)
        return self.norm(x)

    def interest(self, events, target, mask, elapsed):
        order = mask.int().argsort(dim=1, stable=True)  # an unknown event last is padding, too
        events = events.gather(1, order[:, :, None].expand_as(events))
        mask = mask.gather(1, order)
        x, _ = self.encode(events, target, mask, elapsed)
        h = self.states(F.dropout(x, self.dropout, self.training), mask, last=True).squeeze(1)
        h = h * mask[:, -1:]  # padding stands in front: the last step is real unless none is
        return torch.cat([h, target, h * target], 1)
