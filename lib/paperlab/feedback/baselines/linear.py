"""Logistic regression of several labels on the same fields: the rival without hidden layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...data.schema import Schema
from ...nn.mlp import linear
from ..towers import MultiTask

if TYPE_CHECKING:
    from jaxtyping import Float


class LogisticRegression(MultiTask):
    """r_k = w_k . x + c_k: each value of a field adds a number of its own to each label's logit.

    It is exact logistic regression where a field's embedding has no fewer dimensions than there are
    labels. dim, options: see `MultiTask`.
    """

    def __init__(self, schema: Schema, dim: int = 8, **options):
        super().__init__(schema, dim, **options)
        self.out = nn.ModuleList(linear(self.d_in, 1) for _ in schema.labels)

    def heads(self, x: Float[Tensor, "B d_in"]) -> Float[Tensor, "B K"]:
        return torch.cat([w(x) for w in self.out], 1)
