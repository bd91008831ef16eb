"""Histories of categories; the label of a target is how often its category occurred.

A history's length is uniform in 5..40. Its categories have weights (u^3 + .02), u uniform, drawn
for each history, so that a few of them fill most of it, and the length says little about a count.
Events are tokens 1..10, targets 11..20; the history is padded on the left with 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ... import checks

if TYPE_CHECKING:
    from jaxtyping import Float, Int

CATEGORIES, SHORTEST, LONGEST = 10, 5, 40


@dataclass(frozen=True)
class Counts:
    """history: tokens. target: the token of its category. count: how often it occurred."""

    history: Int[Tensor, "R 40"]
    target: Int[Tensor, "R 1"]
    count: Float[Tensor, "R 1"]

    def __len__(self) -> int:
        return len(self.history)

    def take(self, rows: Tensor | slice) -> Counts:
        """The histories ``rows``."""
        return Counts(self.history[rows], self.target[rows], self.count[rows])

    @property
    def frequency(self) -> Float[Tensor, "R 1"]:
        """The count over the history's length."""
        return self.count / (self.history > 0).sum(1, keepdim=True)


@dataclass(frozen=True)
class CountWorld:
    """Three parts, drawn alike."""

    name: str
    train: Counts
    valid: Counts
    test: Counts
    vocabulary: int = 1 + 2 * CATEGORIES


def counts(rows: int, *, held: int = 2000, seed: int = 0) -> CountWorld:
    """``rows`` histories to train on, and ``held`` each to validate and to test."""
    checks.whole(rows=rows, held=held)
    draw = np.random.default_rng([seed, 31])
    return CountWorld("counts", *(_draw(n, draw) for n in (rows, held, held)))


def frequency_ceiling(part: Counts) -> float:
    """R^2 of the best cubic of the frequency: what a model that sees frequencies alone can reach."""
    x, y = (c.squeeze(1).double().numpy() for c in (part.frequency, part.count))
    rest = y - np.polyval(np.polyfit(x, y, 3), x)
    return float(1 - rest.var() / y.var())


def _draw(rows: int, draw: np.random.Generator) -> Counts:
    length = draw.integers(SHORTEST, LONGEST + 1, (rows, 1))
    weight = draw.random((rows, CATEGORIES)) ** 3 + 0.02
    bounds = (weight / weight.sum(1, keepdims=True)).cumsum(1)
    drawn = (draw.random((rows, LONGEST, 1)) > bounds[:, None, :-1]).sum(2)
    history = np.where(np.arange(LONGEST, 0, -1) <= length, drawn + 1, 0)
    target = draw.integers(CATEGORIES, size=(rows, 1)) + 1
    count = (history == target).sum(1, keepdims=True)
    return Counts(
        torch.from_numpy(history),
        torch.from_numpy(target + CATEGORIES),
        torch.from_numpy(count).float(),
    )
