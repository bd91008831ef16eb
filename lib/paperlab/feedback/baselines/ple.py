"""PLE: Tang, Liu, Zhao, Gong, "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL)
Model for Personalized Recommendations", RecSys 2020.

A level has experts of its own for each label, and shared ones. The gate of a label, softmax(W x_k),
mixes its own experts and the shared ones; that of the shared part, which all levels but the last have,
mixes all. Each level reads what the one before mixed.

Default sizes: those of DeepCTR (two levels, one expert each of 256 units, towers of 64).
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
from .mmoe import mixture

if TYPE_CHECKING:
    from jaxtyping import Float


class Extraction(nn.Module):
    """One level: K + 1 inputs (the last is the shared part's) to K or, unless ``last``, K + 1 outputs."""

    def __init__(
        self, d_in: int, tasks: int, own: int, shared: int, widths: Sequence[int], last: bool
    ):
        super().__init__()
        self.own = nn.ModuleList(
            nn.ModuleList(MLP(d_in, widths) for _ in range(own)) for _ in range(tasks)
        )
        self.shared = nn.ModuleList(MLP(d_in, widths) for _ in range(shared))
        self.gates = nn.ModuleList(linear(d_in, own + shared, bias=False) for _ in range(tasks))
        if not last:
            self.gates.append(linear(d_in, tasks * own + shared, bias=False))

    def forward(self, inputs: list[Float[Tensor, "B d"]]) -> list[Float[Tensor, "B h"]]:
        shared = [f(inputs[-1]) for f in self.shared]
        own = [[f(x) for f in group] for group, x in zip(self.own, inputs, strict=False)]
        every = [f for group in own for f in group]
        groups = [[*group, *shared] for group in own] + [[*every, *shared]]
        mixed = zip(groups, self.gates, inputs, strict=False)  # without a shared gate: K outputs
        return [mixture(torch.stack(group, 1), gate(x)) for group, gate, x in mixed]


class PLE(MultiTask):
    """Levels of shared and own experts, a tower for each label.

    levels, own, shared: levels, own experts of a label and shared ones in each, all >= 1.
    expert, widths: hidden units of each expert and of each tower. dim, options: see `MultiTask`.
    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 8,
        *,
        levels: int = 2,
        own: int = 1,
        shared: int = 1,
        expert: Sequence[int] = (256,),
        widths: Sequence[int] = (64,),
        **options,
    ):
        checks.whole(levels=levels, own=own, shared=shared)
        checks.widths(expert=expert, widths=widths)
        super().__init__(schema, dim, **options)
        tasks = len(schema.labels)
        self.levels = nn.ModuleList(
            Extraction(expert[-1] if k else self.d_in, tasks, own, shared, expert, k == levels - 1)
            for k in range(levels)
        )
        self.towers = nn.ModuleList(MLP(expert[-1], widths) for _ in range(tasks))
        self.out = nn.ModuleList(linear(widths[-1], 1) for _ in range(tasks))

    def heads(self, x: Float[Tensor, "B d_in"]) -> Float[Tensor, "B K"]:
        parts = [x] * (len(self.out) + 1)
        for level in self.levels:
            parts = level(parts)
        tasks = zip(parts, self.towers, self.out, strict=True)
        return torch.cat([out(tower(part)) for part, tower, out in tasks], 1)
