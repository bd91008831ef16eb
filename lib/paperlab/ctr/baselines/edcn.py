"""EDCN: Chen et al., "Enhancing Explicit and Implicit Feature Interactions via Information Sharing
for Parallel Deep CTR Models", CIKM 2021."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ... import checks
from ...data.schema import Schema
from ...data.store import Batch
from ...nn.click import ClickModel
from ...nn.mlp import MLP, linear

if TYPE_CHECKING:
    from jaxtyping import Float

BRIDGES = ("hadamard", "addition", "concatenation")


class Regulation(nn.Module):
    """softmax(g / temperature)_f e_f for the cross network and, with another g, for the deep one.

    ``g`` (2, F) starts at 1: every field's vector is divided by F. Fields keep their d columns.
    """

    def __init__(self, fields: int, temperature: float):
        super().__init__()
        self.temperature = temperature
        self.g = nn.Parameter(torch.ones(2, fields))

    def forward(self, x: Float[Tensor, "B D"]) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        gates = (self.g / self.temperature).softmax(1)
        fields = x.unflatten(1, (gates.shape[1], -1))
        cross, deep = ((fields * gate[:, None]).flatten(1) for gate in gates)
        return cross, deep


class EDCN(ClickModel):
    """DCN whose cross and deep layers exchange what they hold: L layers, then a Linear.

    Layer l: x = x_0 (w_l^T x) + b_l + x, h = ReLU(V_l h + c_l), s = bridge(x, h); both networks go
    on from s, each with its own regulation of the fields. The Linear reads [x; h; s] of the last.
    bridge: s is x * h (``hadamard``, the paper's best), x + h (``addition``) or ReLU of a Linear on
        [x; h] (``concatenation``); None: each network goes on from its own output. The paper's
        fourth way, attention pooling, is left out.
    regulation: gate the fields (`Regulation`); False: both networks get the same.
    crosses: layers L >= 1. temperature: of the gates, > 0.
    hidden: None is the paper's deep layer from D to D; a number is a further ReLU layer of that
        width inside each, for comparisons at equal numbers of weights.
    dropout: on h, a probability in [0, 1). options: see `ClickModel`.
    With neither bridge nor regulation it is DCN with L hidden layers of D units.
    Raises ValueError for an unknown bridge and numbers out of range.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        bridge: Literal["hadamard", "addition", "concatenation"] | None = "hadamard",
        regulation: bool = True,
        crosses: int = 3,
        temperature: float = 1.0,
        hidden: int | None = None,
        dropout: float = 0.0,
        **options,
    ):
        checks.one_of((*BRIDGES, None), bridge=bridge)
        checks.whole(crosses=crosses, hidden=1 if hidden is None else hidden)
        checks.positive(temperature=temperature)
        super().__init__(schema, dim, **options)
        d, self.bridge = self.d_in, bridge
        widths = (d,) if hidden is None else (hidden, d)
        self.w = nn.Parameter(torch.randn(crosses, d) * (2 / (d + 1)) ** 0.5)  # Xavier, D to 1
        self.b = nn.Parameter(torch.zeros(crosses, d))
        self.deep = nn.ModuleList(MLP(d, widths, dropout=dropout) for _ in range(crosses))
        gates = crosses if regulation and bridge else int(regulation)
        self.regulation = nn.ModuleList(
            Regulation(self.n_fields, temperature) for _ in range(gates)
        )
        joined = crosses if bridge == "concatenation" else 0
        self.joins = nn.ModuleList(linear(2 * d, d) for _ in range(joined))
        self.head = linear((2 + bool(bridge)) * d, 1)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        shared = self.embed(batch).flatten(1)
        for layer, (w, b, deep) in enumerate(zip(self.w, self.b, self.deep, strict=True)):
            if layer == 0 or self.bridge:
                regulated = layer < len(self.regulation)
                x, h = self.regulation[layer](shared) if regulated else (shared, shared)
                x0 = x if layer == 0 else x0
            x = x0 * (x @ w)[:, None] + b + x
            h = deep(h)
            if self.bridge:
                shared = self._bridge(layer, x, h)
        return self.head(torch.cat([x, h, shared] if self.bridge else [x, h], 1)).squeeze(1)

    def _bridge(
        self, layer: int, x: Float[Tensor, "B D"], h: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B D"]:
        if self.bridge == "hadamard":
            return x * h
        if self.bridge == "addition":
            return x + h
        return self.joins[layer](torch.cat([x, h], 1)).relu()
