"""HSTU's layers as a target-aware ranker, for `paperlab.tryout` on a reader's next-item log."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from .. import checks
from ..data.schema import Schema
from ..data.store import Batch
from ..nn.click import ClickModel
from ..nn.mlp import MLP
from ..nn.transformer import causal_mask
from .hstu_studies import LAYERS

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class HSTURanker(ClickModel):
    """The logit of a target from its own place, after its history, in ``blocks`` causal layers.

    An event is its fields' vectors side by side, d numbers wide, and so is the target. Tokens are
    sqrt(d) times these plus a learned place, counted from the target.
    layer: of `hstu_studies.LAYERS`. heads: must divide d. width: hidden units of the head.
    std, lr: see `ClickModel`.
    Raises ValueError for an unknown layer and numbers out of range.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        layer: str = "HSTU",
        blocks: int = 2,
        heads: int = 2,
        width: int = 64,
        std: float = 0.05,
        lr: float = 1e-3,
    ):
        checks.one_of(LAYERS, layer=layer)
        checks.whole(blocks=blocks, heads=heads, width=width)
        super().__init__(schema, dim, std=std, lr=lr)
        d, self.length = self.embed.d_events, schema.length
        checks.multiple(heads, d=d)
        self.places = nn.Embedding(self.length + 1, d)
        nn.init.normal_(self.places.weight, 0, std)
        self.layers = nn.ModuleList(LAYERS[layer](d, heads, self.length + 1) for _ in range(blocks))
        self.head = MLP(d + self.embed.d_others, [width], out=1)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        events, target, mask, others = self.embed.sequence(batch)
        there = F.pad(mask, (0, 1), value=True)
        x = torch.cat([events, target[:, None]], 1) * math.sqrt(self.places.embedding_dim)
        at = torch.arange(there.shape[1], device=x.device)
        x = (x + self.places(at.flip(0))) * there[:, :, None]
        reads = causal_mask(len(at)).to(x.device) & there[:, None]
        for layer in self.layers:
            x, _ = layer(x, reads, at)
        return self.head(torch.cat([x[:, -1], others], 1)).squeeze(1)


def contenders() -> dict[str, Callable[[Schema, int | None], ClickModel]]:
    """What `paperlab.tryout` compares: rankers that differ in their layers alone."""

    def build(layer: str) -> Callable[[Schema, int | None], ClickModel]:
        return lambda schema, width: HSTURanker(schema, layer=layer, width=width)

    return {name: build(name) for name in ("HSTU", "softmax", "SASRec")}
