"""A Transformer decoder's layer whose memory is one vector.

Cross-attention over a memory of length one has one key, and a softmax over one key is 1 whatever the
query: the part equals adding W_o W_v m + b to every position. It is computed as that: one linear map.
Its query and key weights would never get a gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Float


class DecoderLayer(nn.Module):
    """LayerNorm after each of three parts: causal self-attention, a map of the memory, feed-forward.

    dim: its width, a multiple of ``heads``; the feed-forward part has 2 dim hidden units. memory: width
    of the encoder's vector. dropout: of each part's output.
    """

    def __init__(self, dim: int, memory: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.memory = nn.Linear(memory, dim)
        self.feed = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "B T dim"],
        memory: Float[Tensor, "B memory"],
        past: Float[Tensor, "2 B H P D"] | None = None,
    ) -> tuple[Float[Tensor, "B T dim"], Float[Tensor, "2 B H P+T D"]]:
        """Outputs, and keys and values; with a past, T is 1."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        seen = self.out(seen.transpose(1, 2).flatten(2))
        x = self.norms[0](x + self.dropout(seen))
        x = self.norms[1](x + self.dropout(self.memory(memory))[:, None])
        return self.norms[2](x + self.dropout(self.feed(x))), torch.stack([k, v])
