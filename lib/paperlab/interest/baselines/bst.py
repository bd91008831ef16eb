"""BST: Chen et al., "Behavior Sequence Transformer for E-commerce Recommendation in Alibaba", DLP-KDD
2019 (arXiv 1905.06874), as BARS runs it best on Amazon: one block, no LayerNorm, and the state of
the target's step alone is used. So only that step needs queries, and the cost is linear in the
length of the history."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ... import checks
from ...data.schema import Schema
from ...nn.attention import MultiHeadAttention
from ...nn.encodings import positions
from ...nn.mlp import linear
from ..base import InterestModel


class BST(InterestModel):
    """[the target's step of one Transformer block over [s_1..s_n; v_t]; v_t].

    A step is its fields' vectors and a position vector of width ``dim``, side by side; positions
    count from the target, as they do in sequences padded in front to one length. The table starts
    sinusoidal and is learned.

    heads: must divide the width of a step. dropout: in the block and in the head.
    widths, options: see `InterestModel`.
    Raises ValueError when ``heads`` does not divide the width, and for an odd ``dim``.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        heads: int = 4,
        widths: Sequence[int] = (200, 80),
        dropout: float = 0.0,
        **options,
    ):
        checks.multiple(2, dim=dim)  # pairs of sine and cosine
        checks.inside("[0, 1)", dropout=dropout)
        super().__init__(schema, dim, **options)
        d = self.d_event + dim
        self.table = nn.Embedding.from_pretrained(
            self.std * sinusoids(schema.length + 1, dim), freeze=False
        )
        self.attention = MultiHeadAttention(d, heads)
        self.feed = nn.Sequential(linear(d, d), nn.LeakyReLU(), linear(d, d))
        self.dropout = dropout
        self.head = self.head_on(d + self.d_event, widths, dropout)

    def encode(self, events, target, mask, elapsed):
        index, at_target = positions("rank", mask, size=self.table.num_embeddings - 1)
        return (
            torch.cat([events, self.table(index)], 2),
            torch.cat([target, self.table(at_target)], 1),
        )

    def interest(self, events, target, mask, elapsed):
        steps, last = self.encode(events, target, mask, elapsed)
        steps = torch.cat([steps, last[:, None]], 1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        mixed, _ = self.attention(last[:, None], steps, mask[:, None])
        x = last + F.dropout(mixed.squeeze(1), self.dropout, self.training)
        x = x + F.dropout(self.feed(x), self.dropout, self.training)
        return torch.cat([x, target], 1)


def sinusoids(rows: int, dim: int) -> torch.Tensor:
    """(rows, dim): sine and cosine of the row number at dim / 2 wavelengths, from 2 pi to 10^4."""
    rate = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    angle = torch.arange(rows)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)
