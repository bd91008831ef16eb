"""MMoE: Ma, Zhao, Yi, Chen, Hong, Chi, "Modeling Task Relationships in Multi-task Learning with
Multi-gate Mixture-of-Experts", KDD 2018.

    f^k(x) = sum_i g^k(x)_i f_i(x),   g^k(x) = softmax(W_k x)          shared experts f_i, a gate a label
    r_k = tower_k(f^k(x))

Default sizes: those of the paper's synthetic study (8 experts of 16 units, towers of 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ... import checks
from ...data.schema import Schema
from ...nn.mlp import MLP, linear
from ..towers import MultiTask

if TYPE_CHECKING:
    from jaxtyping import Float


def mixture(experts: Float[Tensor, "B E h"], gate: Float[Tensor, "B E"]) -> Float[Tensor, "B h"]:
    """Experts weighted by the softmax of a gate's logits."""
    return torch.einsum("be,beh->bh", gate.softmax(1), experts)


class MMoE(MultiTask):
    """Experts that all labels share, a gate and a tower for each.

    experts: how many, >= 1. expert, widths: hidden units of each expert and of each tower.
    dim, options: see `MultiTask`. Raises ValueError for values out of range.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 8,
        *,
        experts: int = 8,
        expert: Sequence[int] = (16,),
        widths: Sequence[int] = (8,),
        **options,
    ):
        checks.whole(experts=experts)
        checks.widths(expert=expert, widths=widths)
        super().__init__(schema, dim, **options)
        self.experts = nn.ModuleList(MLP(self.d_in, expert) for _ in range(experts))
        self.gates = nn.ModuleList(linear(self.d_in, experts, bias=False) for _ in schema.labels)
        self.towers = nn.ModuleList(MLP(expert[-1], widths) for _ in schema.labels)
        self.out = nn.ModuleList(linear(widths[-1], 1) for _ in schema.labels)

    def heads(self, x: Float[Tensor, "B d_in"]) -> Float[Tensor, "B K"]:
        every = torch.stack([f(x) for f in self.experts], 1)
        tasks = zip(self.gates, self.towers, self.out, strict=True)
        return torch.cat([out(tower(mixture(every, gate(x)))) for gate, tower, out in tasks], 1)
