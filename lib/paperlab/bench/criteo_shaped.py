"""A log with Criteo's shape, for measuring speed where Criteo itself cannot be had.

39 categorical fields with Criteo's vocabulary sizes, scaled to a wanted total; values follow Zipf's
law; the click's logit is planted: a weight for every id plus products of a few pairs of fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .. import metrics
from ..data.schema import Field, Schema
from ..data.store import Log, from_arrays

# Distinct values of i1..i13 after bucketing and of c1..c26 at ten occurrences or more, rounded.
INTEGERS = (44, 98, 121, 41, 218, 108, 78, 31, 93, 9, 26, 32, 43)
HASHES = (
    *(1450, 550, 181_000, 112_000, 300, 20, 11_900, 625, 4, 47_600, 5200, 159_000, 3200, 27),
    *(11_200, 138_000, 11, 4500, 2100, 5, 152_000, 18, 16, 55_000, 86, 41_000),
)
SIZES = INTEGERS + HASHES


@dataclass(frozen=True)
class CriteoShapedTruth:
    """True click probabilities of the test rows, and their AUC on the test labels."""

    probability: np.ndarray
    bayes_auc: float


def criteo_shaped(rows: int = 400_000, ids: int = 1_090_000, seed: int = 0) -> Log:
    """A log of 39 fields and about ``ids`` table rows, split 8:1:1; about a quarter are clicks.

    rows >= 100; ids >= 10,000. Raises ValueError below.
    """
    if rows < 100 or ids < 10_000:
        raise ValueError(f"criteo_shaped: rows >= 100 and ids >= 10,000, got {rows} and {ids}")
    draw = np.random.default_rng([seed, 39])
    scale = (ids - sum(s for s in SIZES if s < 1000)) / sum(s for s in SIZES if s >= 1000)
    sizes = [max(3, round(s * scale)) if s >= 1000 else s for s in SIZES]
    values = np.empty((rows, len(sizes)), np.int32)
    logit = np.full(rows, -1.3, np.float32)
    factors = []
    for f, size in enumerate(sizes):
        # Inverse of a continuous Zipf law with exponent 1: rank = size^u.
        values[:, f] = np.minimum(size ** draw.random(rows) - 1, size - 2).astype(np.int32)
        table = draw.standard_normal((2, size), dtype=np.float32)
        logit += 0.12 * table[0][values[:, f]]
        factors.append(table[1][values[:, f]])
    for a, b in draw.permutation(len(sizes))[:20].reshape(10, 2):
        logit += 0.25 * factors[a] * factors[b]
    probability = 1 / (1 + np.exp(-logit))
    labels = (draw.random(rows) < probability).astype(np.float32)
    part = np.zeros(rows, np.int8)
    part[-2 * (rows // 10) :] = 1
    part[-(rows // 10) :] = 2
    held = part == 2
    names = [f"i{k}" for k in range(1, 14)] + [f"c{k}" for k in range(1, 27)]
    schema = Schema(tuple(Field(n, size=s) for n, s in zip(names, sizes, strict=True)))
    truth = CriteoShapedTruth(
        probability[held],
        metrics.auc(torch.from_numpy(logit[held]), torch.from_numpy(labels[held])),
    )
    return from_arrays("criteo_shaped", schema, values + 1, labels[:, None], part, truth=truth)
