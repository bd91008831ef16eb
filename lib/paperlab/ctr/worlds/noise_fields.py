"""Clicks driven by planted pairs of a few signal fields among many that are pure noise.

    v_f ~ Uniform{0..vocabulary-1},   y ~ Bernoulli(sigmoid(sum_m a u_m[v_{i_m}] w_m[v_{j_m}]))

with pairs (i_m, j_m) of signal fields and a = strength / sqrt(pairs). The tables u_m, w_m are drawn
from N(0, 1), then standardised over the vocabulary: mean 0, variance 1. So the logit's standard
deviation is ``strength`` whatever the number of pairs, and given any one field its mean is 0: an
additive model has nothing to learn. A model has to find the pairs, and to ignore the noise fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from ... import metrics
from ...data.schema import Field, Schema
from ...data.store import Log, from_arrays


@dataclass(frozen=True)
class NoiseFieldsTruth:
    """What the generator knows.

    pairs: (m, 2) indices of the interacting signal fields. tables: (2, m, vocabulary), u_m and w_m.
    signal: (F,) True where a field carries signal. logits: true logits of the test rows. bayes_auc:
    their AUC on the test labels, which no model beats but by luck.
    """

    pairs: np.ndarray
    tables: np.ndarray
    signal: np.ndarray
    logits: np.ndarray
    bayes_auc: float


def noise_fields(
    rows: int,
    noise: int,
    *,
    signal: int = 10,
    vocabulary: int = 50,
    pairs: int = 8,
    strength: float = 2.0,
    seed: int = 0,
    data_seed: int = 0,
) -> Log:
    """A log of ``signal + noise`` categorical fields, split 8:1:1.

    rows >= 10; noise >= 0; signal >= 2; 1 <= pairs <= signal (signal - 1) / 2; strength >= 0 (standard
    deviation of the true logit). ``seed`` draws the planted tables, ``data_seed`` the rows; signal
    columns do not depend on the number of noise fields. Raises ValueError outside these ranges.
    """
    most = signal * (signal - 1) // 2
    for name, value, low, high in (
        ("rows", rows, 10, None),
        ("noise", noise, 0, None),
        ("signal", signal, 2, None),
        ("vocabulary", vocabulary, 2, None),
        ("pairs", pairs, 1, most),
        ("strength", strength, 0, None),
    ):
        if value < low or (high is not None and value > high):
            raise ValueError(f"{name} must be in {low}..{high or ''}, got {value}")
    plant = np.random.default_rng([seed, 1])
    every = np.array(list(combinations(range(signal), 2)))
    chosen = every[np.sort(plant.permutation(most)[:pairs])]
    tables = plant.standard_normal((2, pairs, vocabulary), dtype=np.float32)
    tables -= tables.mean(-1, keepdims=True)  # else u_m[v] times the mean of w_m is an effect of v
    tables /= tables.std(-1, keepdims=True)

    draw = np.random.default_rng([seed, 2, data_seed])
    values = draw.integers(vocabulary, size=(rows, signal), dtype=np.int32)
    logits = np.zeros(rows, np.float32)
    for m, (i, j) in enumerate(chosen):
        logits += tables[0, m, values[:, i]] * tables[1, m, values[:, j]]
    logits *= strength / pairs**0.5
    labels = (draw.random(rows, dtype=np.float32) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    extra = draw.integers(vocabulary, size=(rows, noise), dtype=np.int32)

    part = np.zeros(rows, np.int8)
    part[-2 * (rows // 10) :] = 1
    part[-(rows // 10) :] = 2
    names = [f"signal_{k}" for k in range(signal)] + [f"noise_{k}" for k in range(noise)]
    schema = Schema(tuple(Field(n, size=vocabulary + 1) for n in names))
    held = part == 2
    truth = NoiseFieldsTruth(
        pairs=chosen,
        tables=tables,
        signal=np.arange(signal + noise) < signal,
        logits=logits[held],
        bayes_auc=metrics.auc(torch.from_numpy(logits[held]), torch.from_numpy(labels[held])),
    )
    ids = np.concatenate([values, extra], 1) + 1  # 0 is out-of-vocabulary
    return from_arrays(f"noise_fields_{noise}", schema, ids, labels[:, None], part, truth=truth)
