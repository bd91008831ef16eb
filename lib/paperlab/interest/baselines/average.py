"""Average pooling of a history, as in BARS's models without attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...data.schema import Schema
from ...nn.attention import masked_mean, pool
from ..base import InterestModel


class AveragePooling(InterestModel):
    """[mean of the events; v_t].

    tr: multiply the mean by v_t (TIN's representation without time and attention).
    widths, dropout: the head, see `InterestModel`; ``options`` go there too.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        tr: bool = False,
        widths: Sequence[int] = (200, 80),
        dropout: float = 0.0,
        **options,
    ):
        super().__init__(schema, dim, **options)
        self.product = tr
        self.head = self.head_on(2 * self.d_event, widths, dropout)

    def interest(self, events, target, mask, elapsed):
        u = pool(masked_mean(mask), events)
        return torch.cat([u * target if self.product else u, target], 1)
