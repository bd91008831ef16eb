"""Watch times of short videos with three modes: skipped, watched in part, watched to the end.

A row has categorical fields x. The first sets the video's duration d(x), the utilities U, V, W of
all fields set the rest. In whole ticks of 0.1 s:

    mode      ~ softmax(1.5 (U - 0.6), 0, 1.5 (V - 0.4))
    skipped   y ~ Uniform{0..15}
    in part   y = round(0.35 d exp(0.5 W + 0.6 eps)),   eps ~ N(0, 1), at most 2 d
    full      y = d

The distribution of y given x is known, so that its median, which no other prediction beats in
absolute error, its mean, and the expected error of any prediction are known as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ... import checks
from ...data.schema import Schema
from ...data.store import Log, from_arrays
from .utilities import CategoricalFields

if TYPE_CHECKING:
    from jaxtyping import Float, Int

TICK = 0.1  # seconds
SKIP = 15  # the longest skip, in ticks
SHARE, SPREAD = 0.35, 0.6  # of partial watching: median share of the duration, sigma of its log


@dataclass(frozen=True)
class WatchTimes:
    """The distribution of y, in ticks, given each of n rows.

    modes: probabilities of skipped, in part, full. duration: in ticks. location: mean of the
    logarithm of a partial watch, in ticks.
    """

    modes: Float[np.ndarray, "n 3"]
    duration: Int[np.ndarray, " n"]
    location: Float[np.ndarray, " n"]

    def at_most(self, ticks: Int[np.ndarray, "n ..."]) -> Float[np.ndarray, "n ..."]:
        """P(y <= ticks) of each row; ticks: whole numbers >= 0, one or several a row."""
        from scipy.special import ndtr

        skipped, partial, full, d, mu = (
            column.reshape(-1, *(1,) * (ticks.ndim - 1))
            for column in (*self.modes.T, self.duration, self.location)
        )
        below = np.where(ticks >= 2 * d, 1.0, ndtr((np.log(ticks + 0.5) - mu) / SPREAD))
        return (
            skipped * np.minimum((ticks + 1) / (SKIP + 1), 1)
            + partial * below
            + full * (ticks >= d)
        )

    def rows(self, rows: slice | Int[np.ndarray, " m"]) -> WatchTimes:
        """The distribution given these rows alone."""
        return WatchTimes(self.modes[rows], self.duration[rows], self.location[rows])

    def median(self) -> Float[np.ndarray, " n"]:
        """The least y with P(y <= it) >= 1/2, in seconds."""
        low, high = np.zeros_like(self.duration), 2 * self.duration
        while (low < high).any():
            middle = (low + high) // 2
            enough = self.at_most(middle) >= 0.5
            low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
        return TICK * low

    def mean(self) -> Float[np.ndarray, " n"]:
        """Expected y, in seconds."""
        return TICK * (1 - self._table).sum(1)

    def error(self, predicted: Float[np.ndarray, " n"]) -> float:
        """Mean over rows of the expected absolute error E|y - predicted|, in seconds, exact.

        predicted: seconds, >= 0, finite.
        """
        # E|y - a| for whole a: E y - a + 2 sum_{k < a} P(y <= k); linear in between.
        below = self._table
        a = np.asarray(predicted, float) / TICK
        whole = np.minimum(np.floor(a).astype(int), below.shape[1] - 1)
        rows = np.arange(len(a))
        area = self._sums[rows, whole] + (a - whole - 1) * below[rows, whole]
        return float(TICK * ((1 - below).sum(1) - a + 2 * area).mean())

    @cached_property
    def _table(self) -> Float[np.ndarray, "n K"]:
        """P(y <= k) for k = 0..K - 1; the last column is 1."""
        ticks = np.arange(2 * self.duration.max() + 1)
        return self.at_most(np.broadcast_to(ticks, (len(self.duration), len(ticks))))

    @cached_property
    def _sums(self) -> Float[np.ndarray, "n K"]:
        """Sums of the table's columns up to each."""
        return self._table.cumsum(1)


@dataclass(frozen=True)
class WatchTimeTruth:
    """What the generator knows of the validation and test rows."""

    valid: WatchTimes
    test: WatchTimes


def watch_time(rows: int, *, test: int = 4_000, values: int = 10, seed: int = 0) -> Log:
    """A log whose label is the watch time in seconds, a whole number of tenths.

    rows: of the training part, >= 100; the validation part has a quarter as many, at least 1,000.
    test: rows of the test part, >= 100. values: of each of the 4 fields (Zipf exponent 0.5), >= 2.
    seed: draws durations, utilities and rows. ``truth`` is a `WatchTimeTruth`.
    Raises ValueError for values out of range.
    """
    checks.whole(100, rows=rows, test=test)
    checks.whole(0, seed=seed)
    rng = np.random.default_rng([seed, 303])
    fields = CategoricalFields(4, values, 0.5)
    durations = rng.permutation(np.geomspace(60, 900, values).round().astype(int))
    utilities = [fields.utility(rng) for _ in range(3)]
    valid = max(1_000, rows // 4)
    part = np.repeat([0, 1, 2], [rows, valid, test])
    ids = fields.draw(len(part), rng)
    known = _known(ids, durations, *(u(ids) for u in utilities))
    ticks = _draw(known, rng)
    return from_arrays(
        "watch_time",
        Schema(fields.schema_fields(), labels=("seconds",)),
        ids,
        (TICK * ticks)[:, None],
        part,
        truth=WatchTimeTruth(*(known.rows(part == k) for k in (1, 2))),
    )


def _known(ids, durations, u, v, w) -> WatchTimes:
    logits = np.stack([1.5 * (u - 0.6), np.zeros_like(u), 1.5 * (v - 0.4)], 1)
    modes = np.exp(logits - logits.max(1, keepdims=True))
    duration = durations[ids[:, 0] - 1]
    return WatchTimes(
        modes / modes.sum(1, keepdims=True), duration, np.log(SHARE * duration) + 0.5 * w
    )


def _draw(known: WatchTimes, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """One y a row, in ticks."""
    n = len(known.duration)
    mode = (rng.random(n)[:, None] > known.modes.cumsum(1)[:, :2]).sum(1)
    partial = np.exp(known.location + SPREAD * rng.standard_normal(n)).round().astype(int)
    choices = [rng.integers(SKIP + 1, size=n), np.minimum(partial, 2 * known.duration)]
    return np.choose(mode, [*choices, known.duration])
