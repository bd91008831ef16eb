"""Clicks driven by inner products of the latent vectors of two fields.

    p_i, q_j ~ N(0, I_r),   y_ij ~ Bernoulli(sigmoid(strength / sqrt(r) * <p_i, q_j>))

for pairs (i, j) of a ``left`` and a ``right`` id. Each pair occurs once at most, so that what is
held out are pairs that were never seen, of ids that were: a model has to find the vectors and to
multiply them. The vectors are centred over ids, so that neither field says anything alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ... import metrics
from ...data.schema import Field, Schema
from ...data.store import Log, from_arrays

HELD = 0.25  # pairs of the validation part, and of the test part, per training pair


@dataclass(frozen=True)
class LatentProductsTruth:
    """What the generator knows.

    left, right: latent vectors (vocabulary, rank). logits: true logits of the test rows. bayes_auc:
    their AUC on the test labels, which no model beats but by luck.
    """

    left: np.ndarray
    right: np.ndarray
    logits: np.ndarray
    bayes_auc: float


def latent_products(
    rank: int,
    share: float,
    *,
    vocabulary: int = 1000,
    strength: float = 3.0,
    seed: int = 0,
    data_seed: int = 0,
) -> Log:
    """A log of two fields in which ``share`` of all pairs are training rows.

    rank >= 1; share in (0, 2/3]: a quarter as many other pairs are held out for validation, and as
    many for the test; vocabulary >= 4 ids a field; strength >= 0: standard deviation of the true
    logit over pairs. ``seed`` draws the vectors, ``data_seed`` the pairs and labels.
    Raises ValueError outside these ranges.
    """
    for name, value, low in (
        ("rank", rank, 1),
        ("vocabulary", vocabulary, 4),
        ("strength", strength, 0),
    ):
        if value < low:
            raise ValueError(f"{name} must be at least {low}, got {value}")
    rows = round(share * vocabulary**2)
    held = round(HELD * rows)
    if held < 1 or rows + 2 * held > vocabulary**2:
        raise ValueError(f"share must be in (0, 2/3], with a row to hold out, got {share}")
    plant = np.random.default_rng([seed, 1])
    left, right = plant.standard_normal((2, vocabulary, rank), dtype=np.float32)
    left, right = left - left.mean(0), right - right.mean(0)

    draw = np.random.default_rng([seed, 2, data_seed])
    pair = draw.permutation(vocabulary**2)[: rows + 2 * held]
    i, j = pair // vocabulary, pair % vocabulary
    logits = strength / rank**0.5 * (left[i] * right[j]).sum(1)
    labels = (draw.random(len(pair), dtype=np.float32) < 1 / (1 + np.exp(-logits))).astype("f4")
    part = np.repeat(np.arange(3), [rows, held, held])
    truth = LatentProductsTruth(
        left=left,
        right=right,
        logits=logits[-held:],
        bayes_auc=metrics.auc(torch.from_numpy(logits[-held:]), torch.from_numpy(labels[-held:])),
    )
    schema = Schema(tuple(Field(n, size=vocabulary + 1) for n in ("left", "right")))
    ids = np.stack([i, j], 1) + 1  # 0 is out-of-vocabulary
    return from_arrays(f"latent_products_{rank}", schema, ids, labels[:, None], part, truth=truth)
