"""DIEN: Zhou et al., "Deep Interest Evolution Network for Click-Through Rate Prediction", AAAI 2019
(arXiv 1809.03672), without the auxiliary loss, which BARS's best runs leave out too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...data.schema import Schema
from ...nn.attention import masked_softmax
from ...nn.mlp import linear
from ..base import InterestModel

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


class AUGRU(nn.Module):
    """A GRU whose update gate is scaled by attention; returns the last state.

    z = a_i sigmoid(W_z x_i + U_z h), r = sigmoid(W_r x_i + U_r h), h~ = tanh(W_n x_i + r * U_n h),
    h <- h + z (h~ - h). An event of weight 0 leaves the state alone.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.inputs = linear(dim, 3 * dim)  # z, r, n
        self.states = linear(dim, 3 * dim)

    def forward(
        self, x: Float[Tensor, "B T D"], weights: Float[Tensor, "B T"]
    ) -> Float[Tensor, "B D"]:
        h = x.new_zeros(len(x), x.shape[2])
        for gates, a in zip(self.inputs(x).unbind(1), weights.unbind(1), strict=True):
            xz, xr, xn = gates.chunk(3, 1)
            hz, hr, hn = self.states(h).chunk(3, 1)
            z = a[:, None] * torch.sigmoid(xz + hz)
            h = h + z * (torch.tanh(xn + torch.sigmoid(xr + hr) * hn) - h)
        return h


class DIEN(InterestModel):
    """[last state of the AUGRU; v_t]: a GRU over the events, attention h_i^T W v_t, an AUGRU.

    W starts as the identity. widths, dropout, options: see `InterestModel`.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        widths: Sequence[int] = (200, 80),
        dropout: float = 0.0,
        **options,
    ):
        super().__init__(schema, dim, **options)
        d = self.d_event
        self.extract = nn.GRU(d, d, batch_first=True)
        self.attend = nn.Parameter(torch.eye(d))
        self.evolve = AUGRU(d)
        self.head = self.head_on(2 * d, widths, dropout)

    def interest(self, events, target, mask, elapsed):
        events, mask = padding_last(events, mask)  # a GRU would run through padding in front
        h, _ = self.extract(events)
        scores = (h @ (target @ self.attend.t())[:, :, None]).squeeze(2)
        return torch.cat([self.evolve(h, masked_softmax(scores, mask)), target], 1)


def padding_last(
    events: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]
) -> tuple[Float[Tensor, "B T D"], Bool[Tensor, "B T"]]:
    """The same events in the same order, padding moved behind them."""
    order = (~mask).int().argsort(dim=1, stable=True)
    return events.gather(1, order[:, :, None].expand_as(events)), mask.gather(1, order)
