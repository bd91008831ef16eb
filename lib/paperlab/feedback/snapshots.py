"""Sequences of one model's weights: averages, extrapolation, and evaluation without a copy.

A snapshot is {parameter name: tensor}; a sequence holds the oldest first. All functions return new
weights that `predict` evaluates through `torch.func.functional_call`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .. import checks
from ..data.store import Batch, Split

if TYPE_CHECKING:
    from jaxtyping import Float

Weights = dict[str, Tensor]


def take(model: nn.Module) -> Weights:
    """A copy of the weights, without gradients."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def predict(model: nn.Module, weights: Weights, batch: Batch) -> Float[Tensor, " B"]:
    """The model's output with other weights; gradients flow into ``weights`` alone."""
    return functional_call(model, weights, (batch,))


def combine(sequence: Sequence[Weights], shares: Sequence[float]) -> Weights:
    """sum_i shares_i theta_i. Raises ValueError for shares that are not one a snapshot."""
    if not sequence or len(sequence) != len(shares):
        raise ValueError(f"{len(sequence)} snapshots need as many shares, got {len(shares)}")
    return {n: sum(s * w[n] for s, w in zip(shares, sequence, strict=True)) for n in sequence[0]}


def exponential(sequence: Sequence[Weights], decay: float) -> Weights:
    """m_1 = theta_1, m_i = decay m_{i-1} + (1 - decay) theta_i; decay in [0, 1), 0: the latest."""
    checks.inside("[0, 1)", decay=decay)
    age = range(len(sequence) - 1, -1, -1)
    shares = [(1 - decay) * decay**a for a in age]
    shares[0] = decay ** (len(sequence) - 1)
    return combine(sequence, shares)


def window(sequence: Sequence[Weights], size: int) -> Weights:
    """Mean of the last ``size`` snapshots, of fewer where there are no more."""
    checks.whole(size=size)
    last = sequence[-size:]
    return combine(last, [1 / len(last)] * len(last))


def extrapolate(sequence: Sequence[Weights], step: float) -> Weights:
    """theta_t + step (theta_t - theta_{t-1}); step -1 is the snapshot before, 0 the last one."""
    if len(sequence) < 2:
        return dict(sequence[-1])
    return combine(sequence[-2:], [-step, 1 + step])


def softmax_sum(sequence: Sequence[Weights], logits: Weights) -> Weights:
    """sum_i softmax_i(logits) theta_i by coordinate; logits[name]: (k, ...) that broadcasts."""
    stacked = {n: torch.stack([w[n] for w in sequence]) for n in sequence[0]}
    return {n: (logits[n].softmax(0) * s).sum(0) for n, s in stacked.items()}


class Served:
    """A method of `prequential` that serves a function of the snapshots so far.

    model: gives the structure. snapshots: by period, the weights after training on it (None before
    the first test). make: from the snapshots up to the last learned period to the served weights.
    """

    def __init__(
        self,
        model: nn.Module,
        snapshots: Sequence[Weights | None],
        make: Callable[[list[Weights]], Weights],
    ):
        self.model, self.snapshots, self.make, self.seen = model, snapshots, make, 0

    def update(self, periods: Sequence[Split]) -> Self:
        """Take note of the last period; the snapshots are frozen."""
        self.seen = len(periods)
        return self

    def so_far(self) -> list[Weights]:
        """Snapshots of models that were trained on learned periods only."""
        return [w for w in self.snapshots[: self.seen] if w is not None]

    @torch.no_grad()
    def predict(self, period: Split) -> Float[Tensor, " n"]:
        """Logits with the served weights."""
        return predict(self.model, self.make(self.so_far()), period.take(slice(None)))
