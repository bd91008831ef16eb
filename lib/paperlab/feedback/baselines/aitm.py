"""AITM: Xi, Chen, Yan, Zhang, Zhu, Zhuang, Chen, "Modeling the Sequential Dependence among Audience
Multi-step Conversions with Multi-task Learning in Targeted Advertising", KDD 2021.

    q_k = tower_k(x),   z_1 = q_1,   p_k = relu(G_k z_k)                        what k passes on
    z_k = sum_(u in {p_(k-1), q_k}) alpha_u h_1(u),   alpha = softmax(<h_2(u), h_3(u)> / sqrt(d))
    L = cross-entropies + c sum_k mean max(y_k - y_(k-1), 0)                    calibrator

Default sizes and c = .6: those of the released code. Its dropout is left out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ... import checks
from ...data.schema import Schema
from ...data.store import Batch
from ...nn.mlp import MLP, linear
from ..towers import MultiTask, funnel_loss

if TYPE_CHECKING:
    from jaxtyping import Float


def transfer(
    u: Float[Tensor, "B 2 d"], value: nn.Module, key: nn.Module, query: nn.Module
) -> Float[Tensor, "B d"]:
    """z_k from the two vectors p_(k-1) and q_k: each is weighted by its own key and query."""
    score = (key(u) * query(u)).sum(2) / u.shape[2] ** 0.5
    return torch.einsum("bu,bud->bd", score.softmax(1), value(u))


class AITM(MultiTask):
    """Towers in a chain, joined by attention over what the one before passes on.

    widths: hidden units of each tower. constraint: c, >= 0. dim, options: see `MultiTask`.
    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 8,
        *,
        widths: Sequence[int] = (128, 64, 32),
        constraint: float = 0.6,
        **options,
    ):
        checks.widths(widths=widths)
        checks.at_least(0, constraint=constraint)
        super().__init__(schema, dim, **options)
        tasks, d = len(schema.labels), widths[-1]
        self.constraint = constraint
        self.towers = nn.ModuleList(MLP(self.d_in, widths) for _ in range(tasks))
        self.passes = nn.ModuleList(
            nn.Sequential(linear(d, d), nn.ReLU()) for _ in range(tasks - 1)
        )
        self.attention = nn.ModuleList(
            nn.ModuleList(linear(d, d) for _ in range(3)) for _ in range(tasks - 1)
        )
        self.out = nn.ModuleList(linear(d, 1) for _ in range(tasks))

    def heads(self, x: Float[Tensor, "B d_in"]) -> Float[Tensor, "B K"]:
        z = self.towers[0](x)
        found = [self.out[0](z)]
        rest = zip(self.towers[1:], self.passes, self.attention, self.out[1:], strict=True)
        for tower, passes, attention, out in rest:
            z = transfer(torch.stack([passes(z), tower(x)], 1), *attention)
            found.append(out(z))
        return torch.cat(found, 1)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        logits = self.logits(batch).float()
        chances = logits[:, self.order].sigmoid()
        rises = (chances[:, 1:] - chances[:, :-1]).clamp(min=0).mean(0).sum()
        return funnel_loss(logits, batch.labels, self.q, self.w) + self.constraint * rises
