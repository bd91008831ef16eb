"""Histories whose pull on the response is planted: meaning times time, as TIN claims.

The laws are those of TIN's sheet (Zhou et al., WWW 2024, arXiv 2308.08487): with c_i the category
of a behaviour, c_t that of the target, and p_i its rank counted back from the target (1 is the most
recent) or D_i the hours between them,

    y ~ Bernoulli(sigmoid(b + sum_i w(c_i, c_t) g_i)),
    w = 4 for the same category, 1 for its two neighbours on a ring, 0 for all others,
    g_i = rate^(p_i - 1)  or  g_i = rate^(D_i / 12 h),

and b such that half of the responses are positive. Categories are uniform and independent, items
uniform inside a category and without meaning of their own. Gaps between events are log-normal
(median 6 h, mean 18 h), so that rank and elapsed time say different things: with one seed the
events are the same whichever of them decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from ... import metrics
from ...data.schema import Field, Schema
from ...data.store import Log, from_arrays

if TYPE_CHECKING:
    from jaxtyping import Float

SAME, RELATED = 4.0, 1.0
UNIT = 12.0  # hours in which the pull of an event falls by ``rate``
GAP_MEDIAN, GAP_SPREAD = 6.0, 1.5  # hours; standard deviation of its logarithm


@dataclass(frozen=True)
class InterestTruth:
    """The ground truth of a generated log.

    weight: (C + 1, C + 1), w(behaviour's category, target's category); row and column 0 are padding.
    decay, rate: the law of g. bias: b. logits: true logits of the test rows. bayes_auc: their AUC on
    the test labels, which no model beats but by luck.
    """

    weight: np.ndarray
    decay: Literal["rank", "time"]
    rate: float
    bias: float
    logits: np.ndarray
    bayes_auc: float

    def g(self, x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Pull of an event: x is its rank >= 1 (decay "rank") or hours >= 0 (decay "time")."""
        return _pull(self.decay, self.rate, x)


def _pull(decay: str, rate: float, x: np.ndarray) -> np.ndarray:
    return rate ** (x - 1.0) if decay == "rank" else rate ** (x / UNIT)


def interest_sequences(
    rows: int,
    *,
    decay: Literal["rank", "time"] = "rank",
    rate: float = 0.6,
    lengths: tuple[int, int] = (20, 20),
    categories: int = 20,
    items: int = 50,
    seed: int = 0,
) -> Log:
    """A log of targets with their histories, split 8:1:1; each row is a user of her own.

    rows >= 10; 0 < rate <= 1 (1: no decay); lengths: least and most events of a history, drawn
    uniformly, 0 <= least <= most, most >= 1; categories >= 4; items >= 1 in each category.
    Fields: item, category, and their histories. Raises ValueError outside these ranges.
    """
    least, most = lengths
    for name, value, good, allowed in (
        ("rows", rows, rows >= 10, "at least 10"),
        ("decay", decay, decay in ("rank", "time"), "rank or time"),
        ("rate", rate, 0 < rate <= 1, "in (0, 1]"),
        ("lengths", lengths, 0 <= least <= most >= 1, "0 <= least <= most, most >= 1"),
        ("categories", categories, categories >= 4, "at least 4"),
        ("items", items, items >= 1, "at least 1"),
    ):
        if not good:
            raise ValueError(f"{name} must be {allowed}, got {value}")
    draw = np.random.default_rng([seed, 20])
    count = draw.integers(least, most + 1, rows)
    stop = count.cumsum()
    total = int(stop[-1])
    spans = np.stack([stop - count, stop], 1)
    row = np.repeat(np.arange(rows), count)  # of every event
    rank = np.repeat(stop, count) - np.arange(total)  # most recent 1

    def things(n: int) -> np.ndarray:
        """(n, 2) item and category."""
        category = draw.integers(1, categories + 1, n)
        return np.stack([(category - 1) * items + draw.integers(1, items + 1, n), category], 1)

    events, targets = things(total), things(rows)
    gaps = GAP_MEDIAN * np.exp(GAP_SPREAD * draw.standard_normal(total))
    since = gaps[::-1].cumsum()[::-1]  # hours to the end of the table; less those after the row
    elapsed = since - np.append(since, 0.0)[np.repeat(stop, count)]
    now = 1_600_000_000 + draw.integers(30 * 86_400, size=rows)
    when = now[row] - np.round(3600 * elapsed).astype(np.int64)

    weight = _weights(categories)
    hours = (now[row] - when) / 3600
    pull = _pull(decay, rate, rank if decay == "rank" else hours)
    logits = np.bincount(row, weight[events[:, 1], targets[row, 1]] * pull, rows)
    bias = _balance(logits)
    logits += bias
    labels = (draw.random(rows) < 1 / (1 + np.exp(-logits))).astype(np.float32)

    part = np.zeros(rows, np.int8)
    part[-2 * (rows // 10) :] = 1
    part[-(rows // 10) :] = 2
    held = part == 2
    names = {"item": categories * items + 1, "category": categories + 1}
    fields = [Field(n, size=size) for n, size in names.items()]
    fields += [Field(f"{n}_history", "sequence", length=most, shares=n) for n in names]
    ceiling = metrics.auc(torch.from_numpy(logits[held]), torch.from_numpy(labels[held]))
    return from_arrays(
        f"interest_sequences_{decay}",
        Schema(tuple(fields)),
        targets,
        labels[:, None],
        part,
        spans=spans,
        times=now,
        events=(events, when),
        truth=InterestTruth(weight, decay, rate, bias, logits[held], ceiling),
    )


def _weights(categories: int) -> np.ndarray:
    """w on a ring of categories 1..C."""
    apart = np.abs(np.subtract.outer(np.arange(categories), np.arange(categories)))
    apart = np.minimum(apart, categories - apart)
    weight = np.zeros((categories + 1, categories + 1))
    weight[1:, 1:] = np.where(apart == 0, SAME, np.where(apart == 1, RELATED, 0.0))
    return weight


def _balance(logits: np.ndarray) -> float:
    """The bias at which the mean probability is one half, by bisection."""
    low, high = -logits.max() - 1, 1 - logits.min()
    for _ in range(60):
        middle = (low + high) / 2
        if (1 / (1 + np.exp(-logits - middle))).mean() < 0.5:
            low = middle
        else:
            high = middle
    return middle
