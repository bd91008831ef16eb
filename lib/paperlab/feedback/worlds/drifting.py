"""Clicks decided by stable latent vectors, seen through statistics that drift from day to day.

    logit = -1.4 + .9 z_u' W z_i + w_u' z_u + w_i' z_i,   z in R^4,  W ~ N(0, 1/4)
    statistic j of an entity on day t = a_j' z + .5 eps_jt + drift * s_j * t

Six statistics a side with |a_j| = 1; four of them move, up or down (s_j = +-1), two do not. A model
sees their buckets alone, no ids. What decides a click never changes, so that a model that reads z
off the statistics could rank the last day as well as the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from ... import checks
from ...data.schema import Field, Schema
from ...data.store import Log, from_arrays

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

USERS, ITEMS, LATENT = 1_000, 500, 4
STATISTICS, MOVING, BUCKETS = 6, 4, 20
DAYS = 8  # of training, the last of them for validation; as many follow for the test
NAMES = {side: [f"{side} {j + 1}" for j in range(STATISTICS)] for side in ("user", "item")}


@dataclass(frozen=True)
class DriftingTruth:
    """What the generator knows of the test rows.

    probability: of a click. day: 1..8 after training. user, item: latent vectors.
    shift: mean absolute shift of the moving statistics since the middle of training.
    """

    probability: Float[Tensor, " n"]
    day: Int[Tensor, " n"]
    user: Float[Tensor, "n 4"]
    item: Float[Tensor, "n 4"]
    shift: Float[Tensor, " n"]


def drifting(
    drift: float = 0.25,
    *,
    rows: int = 2_000,
    buckets: Literal["width", "rank"] = "width",
    seed: int = 0,
) -> Log:
    """A log of sixteen days: seven to train, one to validate, eight to test.

    drift: step of a moving statistic a day, >= 0, in standard deviations of a' z.
    rows: a day, >= 1.
    buckets: ``width``: 20 of equal width over the 0.5 to 99.5 % range of the training days, the usual
        way; ``rank``: 20 of equal count within the day, which no common shift can move.
    seed: of latent vectors, weights and rows; the rows are the same for both kinds of buckets.
    Raises ValueError for values out of range.
    """
    checks.at_least(0, drift=drift)
    checks.whole(rows=rows)
    checks.one_of(("width", "rank"), buckets=buckets)
    plant, draw = (np.random.default_rng([seed, k]) for k in (1, 2))
    z = {
        "user": plant.standard_normal((USERS, LATENT)),
        "item": plant.standard_normal((ITEMS, LATENT)),
    }
    W = plant.normal(0, 0.5, (LATENT, LATENT))
    own = {"user": plant.normal(0, 0.4, LATENT), "item": plant.normal(0, 0.6, LATENT)}
    day = np.repeat(np.arange(2 * DAYS), rows)
    who = {side: draw.integers(0, len(z[side]), len(day)) for side in z}
    ids = np.concatenate([_buckets(z[s], drift, buckets, plant)[day, who[s]] for s in z], 1)
    u, i = z["user"][who["user"]], z["item"][who["item"]]
    logit = -1.4 + 0.9 * ((u @ W) * i).sum(1) + u @ own["user"] + i @ own["item"]
    p = 1 / (1 + np.exp(-logit))
    label = draw.random(len(p)) < p
    test = day >= DAYS
    truth = DriftingTruth(
        torch.from_numpy(p[test]),
        torch.from_numpy(day[test] - DAYS + 1),
        torch.from_numpy(u[test]),
        torch.from_numpy(i[test]),
        torch.from_numpy(drift * np.abs(day[test] - (DAYS - 2) / 2)),
    )
    schema = Schema(tuple(Field(n, size=BUCKETS + 1) for names in NAMES.values() for n in names))
    part = np.where(day < DAYS - 1, 0, np.where(day < DAYS, 1, 2))
    keys = {"users": who["user"], "times": day * 86_400}
    return from_arrays("drifting", schema, ids, label[:, None], part, **keys, truth=truth)


def _buckets(
    z: Float[np.ndarray, "n 4"], drift: float, kind: str, rng: np.random.Generator
) -> Int[np.ndarray, "days n statistics"]:
    """Bucket 1..20 of every statistic of every entity on every day."""
    a = rng.standard_normal((STATISTICS, LATENT))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    sign = np.where(np.arange(STATISTICS) < MOVING, rng.choice([-1, 1], STATISTICS), 0)
    noise = rng.standard_normal((2 * DAYS, len(z), STATISTICS))
    t = np.arange(2 * DAYS)[:, None, None]
    value = z @ a.T + 0.5 * noise + drift * sign * t
    if kind == "rank":
        return 1 + value.argsort(1).argsort(1) * BUCKETS // len(z)
    low, high = np.percentile(value[: DAYS - 1], [0.5, 99.5], axis=(0, 1))
    return 1 + np.clip((value - low) / (high - low) * BUCKETS, 0, BUCKETS - 1).astype(int)
