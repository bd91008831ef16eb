"""LR: logistic regression on one-hot fields, as BARS defines it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...data.schema import Schema
from ...data.store import Batch
from ...nn.click import ClickModel

if TYPE_CHECKING:
    from jaxtyping import Float


class LR(ClickModel):
    """b + sum_f w_f: one weight an id, a table of width 1. options: see `ClickModel`."""

    def __init__(self, schema: Schema, **options):
        super().__init__(schema, 1, **options)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        return self.bias + self.embed(batch).sum((1, 2))
