"""Clicks of users on items whose latent factors move from period to period.

    logit = -.3 + 1.5 <u_t, v_t> / sqrt(4) + .8 b_t

walk:  every coordinate of u, v and b is a stationary AR(1), theta' = sqrt(1 - .15^2) theta + .15 eps
trend: every coordinate is the cosine part of a rotation by .15 rad a period
none:  nothing moves
Every coordinate is N(0, 1) over users or items in every period.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch

from ... import checks
from ...data.schema import Field, Schema
from ...data.store import Split
from ..prequential import Stream

USERS, ITEMS, FACTORS = 200, 100, 4
STEP = 0.15  # of a walk, in standard deviations; of a rotation, in radians
DRIFTS = ("walk", "trend", "none")


def factor_stream(
    drift: Literal["walk", "trend", "none"] = "walk",
    *,
    periods: int = 22,
    rows: int = 2_048,
    seed: int = 0,
) -> Stream:
    """A stream with known click probabilities; fields: user, item.

    periods, rows (of a period): >= 1. seed: of factors and rows.
    Raises ValueError for values out of range.
    """
    checks.one_of(DRIFTS, drift=drift)
    checks.whole(periods=periods, rows=rows)
    checks.whole(0, seed=seed)
    plant, draw = (np.random.default_rng([seed, k]) for k in (1, 2))
    shape = (USERS + ITEMS, FACTORS + 1)  # the last column of an item is b
    here, there = plant.standard_normal((2, *shape))
    splits, truth = [], []
    for t in range(periods):
        if drift == "walk" and t:
            here = math.sqrt(1 - STEP**2) * here + STEP * plant.standard_normal(shape)
        turn = STEP * t if drift == "trend" else 0.0
        z = math.cos(turn) * here + math.sin(turn) * there
        u, i = draw.integers(0, USERS, rows), draw.integers(0, ITEMS, rows)
        v = z[USERS + i]
        dot = (z[u, :FACTORS] * v[:, :FACTORS]).sum(1) / math.sqrt(FACTORS)
        p = 1 / (1 + np.exp(0.3 - 1.5 * dot - 0.8 * v[:, FACTORS]))
        label = (draw.random(rows) < p)[:, None]
        ids = torch.from_numpy(np.stack([u + 1, i + 1], 1).astype(np.int32))
        splits.append(Split(ids, torch.from_numpy(label.astype(np.float32)), 0))
        truth.append(torch.from_numpy(p))
    schema = Schema((Field("user", size=USERS + 1), Field("item", size=ITEMS + 1)))
    return Stream(f"factors ({drift})", schema, tuple(splits), tuple(truth))
