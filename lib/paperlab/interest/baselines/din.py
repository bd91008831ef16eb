"""DIN: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018
(arXiv 1706.06978), as BARS defines it; with TIN's TR or an encoding of time as options."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ... import checks
from ...data.schema import Schema
from ...nn.attention import masked_softmax, pool
from ...nn.encodings import TemporalEncoding
from ...nn.mlp import linear
from ..base import InterestModel

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


class Dice(nn.Module):
    """p x + (1 - p) beta x with p = sigmoid(BatchNorm(x)), beta learned from 0; no affine in BN."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(dim, affine=False, eps=1e-9, momentum=0.01)
        self.beta = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        n = self.norm
        several = self.training and len(x) > 1  # a single event has no variance
        p = F.batch_norm(x, n.running_mean, n.running_var, None, None, several, n.momentum, n.eps)
        p = p.sigmoid()
        return x * (self.beta + (1 - self.beta) * p)


class ActivationUnit(nn.Module):
    """A score for each event: MLP [t; s_i; t - s_i; t * s_i] -> 1 with Dice.

    The first layer W = [W1 W2 W3 W4] is linear in the four parts, so that

        W [t; s; t - s; t * s] + b  =  ((W1 + W3) t + b)  +  (W2 - W3 + W4 diag(t)) s:

    one vector and one matrix a row, and one batched product over its events. The rest of the MLP
    runs on events that are there, so that Dice's statistics do not see padding (our choice).
    """

    def __init__(self, dim: int, widths: Sequence[int]):
        super().__init__()
        self.first = linear(4 * dim, widths[0])
        layers: list[nn.Module] = [Dice(widths[0])]
        for d_in, d_out in pairwise(widths):
            layers += [linear(d_in, d_out), Dice(d_out)]
        self.rest = nn.Sequential(*layers, linear(widths[-1], 1))

    def forward(
        self,
        events: Float[Tensor, "B T D"],
        target: Float[Tensor, "B D"],
        mask: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B T"]:
        w1, w2, w3, w4 = self.first.weight.chunk(4, 1)
        kernel = (w2 - w3).t() + target[:, :, None] * w4.t()
        bias = F.linear(target, w1 + w3, self.first.bias)
        x = torch.baddbmm(bias[:, None], events, kernel).flatten(0, 1)
        if mask.all():
            return self.rest(x).view(mask.shape)
        there = mask.flatten().nonzero().squeeze(1)
        if not len(there):
            return x.new_zeros(mask.shape)
        scores = self.rest(x.index_select(0, there)).squeeze(1)
        return scores.new_zeros(mask.numel()).index_copy(0, there, scores).view(mask.shape)


class DIN(InterestModel):
    """[sum_i a_i s_i; v_t] with a_i from `ActivationUnit`.

    attention: widths of its hidden layers, one at least. softmax: normalise over the events (BARS
        on Amazon), else weight by the raw scores (BARS on Taobao).
    tr: give the head u * v_t beside u ("DIN+" in TIN's repository).
    encoding: add a table of positions to the events and the target first, see `positions`.
    widths, dropout, options: see `InterestModel`.
    Raises ValueError when ``attention`` is empty.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        attention: Sequence[int] = (64,),
        softmax: bool = True,
        tr: bool = False,
        encoding: str | None = None,
        widths: Sequence[int] = (200, 80),
        dropout: float = 0.0,
        **options,
    ):
        checks.widths(attention=attention)
        super().__init__(schema, dim, **options)
        self.softmax, self.product, d = softmax, tr, self.d_event
        length = schema.length
        self.encoding = (
            TemporalEncoding.for_length(encoding, length, d, self.std) if encoding else None
        )
        self.unit = ActivationUnit(d, attention)
        self.head = self.head_on((3 if tr else 2) * d, widths, dropout)

    def encode(self, events, target, mask, elapsed):
        return self.encoding(events, target, mask, elapsed) if self.encoding else (events, target)

    def interest(self, events, target, mask, elapsed):
        events, target = self.encode(events, target, mask, elapsed)
        scores = self.unit(events, target, mask)
        u = pool(masked_softmax(scores, mask) if self.softmax else scores * mask, events)
        return torch.cat([u, target, u * target] if self.product else [u, target], 1)
