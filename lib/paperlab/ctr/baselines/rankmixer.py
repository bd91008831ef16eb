"""RankMixer: Zhu et al., "RankMixer: Scaling Up Ranking Models in Industrial Recommenders", 2025
(arXiv 2507.15551), without its sparse mixture of experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from ... import checks
from ...data.schema import Schema
from ...data.store import Batch
from ...nn.click import ClickModel
from ...nn.grouped import GroupedLinear
from ...nn.mlp import linear

if TYPE_CHECKING:
    from jaxtyping import Float


def mix(x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """Multi-head token mixing: head h of every token, end to end, is the new token h.

    As many heads as tokens; no parameters; its own inverse.
    """
    tokens = x.shape[1]
    return x.unflatten(2, (tokens, -1)).transpose(1, 2).flatten(2)


class RankMixerBlock(nn.Module):
    """S = LN(Mix(X) + X), X' = LN(PFFN(S) + S); PFFN: Linear D -> kD, GELU, Linear kD -> D, its own
    for each token."""

    def __init__(self, tokens: int, width: int, expansion: int):
        super().__init__()
        self.norm_mix, self.norm_ffn = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up = GroupedLinear(tokens, width, expansion * width)
        self.down = GroupedLinear(tokens, expansion * width, width)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        s = self.norm_mix(mix(x) + x)
        ffn = self.down(F.gelu(self.up(s.transpose(0, 1)))).transpose(0, 1)
        return self.norm_ffn(ffn + s)


class RankMixer(ClickModel):
    """Fields cut into tokens, blocks of parameter-free mixing and per-token networks, mean, Linear.

    tokens: T >= 1; the concatenated fields, padded with zeros, are cut into T equal chunks, each
        with its own Linear to a token (ours: the paper groups fields by meaning).
    width: D, a multiple of T. layers: blocks >= 1. expansion: k >= 1 (the SSR authors' runs: 1).
    options: see `ClickModel`.
    Raises ValueError when T does not divide D or a number is below 1.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        tokens: int = 16,
        width: int = 256,
        layers: int = 2,
        expansion: int = 4,
        **options,
    ):
        checks.whole(tokens=tokens, width=width, layers=layers, expansion=expansion)
        checks.multiple(tokens, width=width)
        super().__init__(schema, dim, **options)
        chunk = -(-self.d_in // tokens)
        self.padding = chunk * tokens - self.d_in
        self.tokenize = GroupedLinear(tokens, chunk, width)
        self.blocks = nn.Sequential(
            *(RankMixerBlock(tokens, width, expansion) for _ in range(layers))
        )
        self.head = linear(width, 1)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        e = F.pad(self.embed(batch).flatten(1), (0, self.padding))
        chunks = e.unflatten(1, (len(self.tokenize.weight), -1))
        x = self.tokenize(chunks.transpose(0, 1)).transpose(0, 1)
        return self.head(self.blocks(x).mean(1)).squeeze(1)
