"""Shared bottom: Caruana, "Multitask Learning", Machine Learning 28, 1997.

One MLP for all labels, then a tower each.
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


class SharedBottom(MultiTask):
    """h = bottom(x), r_k = tower_k(h).

    bottom, widths: hidden units of the shared part and of each tower. dim, options: see `MultiTask`.
    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 8,
        *,
        bottom: Sequence[int] = (128,),
        widths: Sequence[int] = (64,),
        **options,
    ):
        checks.widths(bottom=bottom, widths=widths)
        super().__init__(schema, dim, **options)
        self.bottom = MLP(self.d_in, bottom)
        self.towers = nn.ModuleList(MLP(bottom[-1], widths) for _ in schema.labels)
        self.out = nn.ModuleList(linear(widths[-1], 1) for _ in schema.labels)

    def heads(self, x: Float[Tensor, "B d_in"]) -> Float[Tensor, "B K"]:
        h = self.bottom(x)
        return torch.cat([w(t(h)) for w, t in zip(self.out, self.towers, strict=True)], 1)
