"""Clicks in which the user decides what fields count, and half of the other fields never do.

    type(u) ~ Uniform{0..types-1},   y ~ Bernoulli(sigmoid(strength / sqrt(n) * sum_f t_f[v_f]))

where f runs over the n signal fields of type(u) alone: each type has its own. The tables t_f have
mean 0 and variance 1 over the values. As many noise fields as signal fields, and a ``decoy`` with as
many values as there are users, say nothing: a gate that reads the user can let through what counts
for that user; one that reads the decoy, or nothing, can at best close the noise fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ... import metrics
from ...data.schema import Field, Schema
from ...data.store import Log, from_arrays


@dataclass(frozen=True)
class GatedRelevanceTruth:
    """What the generator knows.

    relevant: (users + 1, F) True where a field counts for a user id (id 0: nothing counts).
    signal: (F,) True for fields that count for somebody. logits: true logits of the test rows.
    bayes_auc: their AUC on the test labels, which no model beats but by luck.
    """

    relevant: np.ndarray
    signal: np.ndarray
    logits: np.ndarray
    bayes_auc: float


def gated_relevance(
    rows: int,
    *,
    users: int = 100,
    types: int = 2,
    per_type: int = 3,
    vocabulary: int = 20,
    strength: float = 2.0,
    seed: int = 0,
    data_seed: int = 0,
) -> Log:
    """A log with fields user, decoy, signal_0.., noise_0.. (types * per_type of each), split 8:1:1.

    rows >= 10; users >= types; types >= 1; per_type >= 1; vocabulary >= 2; strength >= 0: standard
    deviation of the true logit. ``seed`` plants types and tables, ``data_seed`` draws the rows.
    Raises ValueError outside these ranges.
    """
    for name, value, low in (
        ("rows", rows, 10),
        ("types", types, 1),
        ("users", users, types),
        ("per_type", per_type, 1),
        ("vocabulary", vocabulary, 2),
        ("strength", strength, 0),
    ):
        if value < low:
            raise ValueError(f"{name} must be at least {low}, got {value}")
    plant = np.random.default_rng([seed, 1])
    signal = types * per_type
    kind = plant.permutation(np.arange(users) % types)  # equally many users of each type
    tables = plant.standard_normal((signal, vocabulary))
    tables = (tables - tables.mean(1, keepdims=True)) / tables.std(1, keepdims=True)
    counts = np.repeat(np.arange(types), per_type) == kind[:, None]  # (users, signal)

    draw = np.random.default_rng([seed, 2, data_seed])
    who = draw.integers(users, size=(rows, 2), dtype=np.int32)  # user and decoy
    values = draw.integers(vocabulary, size=(rows, 2 * signal), dtype=np.int32)
    parts = tables[np.arange(signal), values[:, :signal]] * counts[who[:, 0]]
    logits = (strength / per_type**0.5 * parts.sum(1)).astype(np.float32)
    labels = (draw.random(rows, dtype=np.float32) < 1 / (1 + np.exp(-logits))).astype(np.float32)

    part = np.zeros(rows, np.int8)
    part[-2 * (rows // 10) :] = 1
    part[-(rows // 10) :] = 2
    names = [f"{kind}_{k}" for kind in ("signal", "noise") for k in range(signal)]
    schema = Schema(
        tuple(Field(n, size=users + 1) for n in ("user", "decoy"))
        + tuple(Field(n, size=vocabulary + 1) for n in names)
    )
    relevant = np.zeros((users + 1, 2 + 2 * signal), bool)
    relevant[1:, 2 : 2 + signal] = counts
    held = part == 2
    truth = GatedRelevanceTruth(
        relevant=relevant,
        signal=relevant.any(0),
        logits=logits[held],
        bayes_auc=metrics.auc(torch.from_numpy(logits[held]), torch.from_numpy(labels[held])),
    )
    ids = np.concatenate([who, values], 1) + 1  # 0 is out-of-vocabulary
    return from_arrays("gated_relevance", schema, ids, labels[:, None], part, truth=truth)
