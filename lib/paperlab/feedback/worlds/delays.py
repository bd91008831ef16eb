"""Clicks whose conversions arrive days later: the world of delayed feedback.

    click       p = sigmoid(-.8 + U)
    conversion  v = sigmoid(-1 + .5 U + sqrt(.75) V), of clicks
    delay       f = (1 - g) f_0 + g f_1 over days 0..7, of conversions
    elapsed     e ~ U{0..latest}: days since the click at the time of training
    observed    z = 1 where the click has converted and its delay is at most e

with unit utilities U, V, W of categorical fields, and g = 0 in world A (all delays alike), sigmoid(3W -
1) in B, and the same with .8 V + .6 W for W in C (what converts, converts late). Neither f_0 nor
f_1 is exponential: both have a second peak on day 3. In world D f falls geometrically, at a rate of
exp(-.7 + .5 W) a day.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from ... import checks
from ...data.schema import Schema
from ...data.store import Log, from_arrays
from ..esdf import LABELS
from .utilities import CategoricalFields

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

DAYS = 7  # the last day on which a conversion counts
EARLY = np.array([0.55, 0.05, 0.03, 0.22, 0.06, 0.04, 0.03, 0.02])
LATE = np.array([0.10, 0.08, 0.07, 0.30, 0.15, 0.12, 0.10, 0.08])
FIELDS = CategoricalFields(5, 8, 0.5)


@dataclass(frozen=True)
class DelaysTruth:
    """Known probabilities of the test rows, and counts of the training rows.

    click: p. conversion: v, of a click. delay: f over days 0..7.
    clicks, conversions, seen: how many in the training part; seen: observed by the time of training.
    """

    click: Float[Tensor, " n"]
    conversion: Float[Tensor, " n"]
    delay: Float[Tensor, "n 8"]
    clicks: int
    conversions: int
    seen: int


def delays(
    world: Literal["A", "B", "C", "D"],
    rows: int,
    *,
    held: int = 6_000,
    latest: int = DAYS,
    complete: bool = False,
    seed: int = 0,
) -> Log:
    """Impressions with the labels click, observed, delay (0 where nothing was observed), elapsed.

    rows: of the training part, >= 1; held: of the validation part, and of the test part, >= 1.
    latest: the most days since a click, 0..7; delays beyond it are never seen.
    complete: whether training and validation are read when all conversions have arrived (e = 7): the
        same rows with an oracle's labels. The test part always is.
    seed: of utilities and rows.
    Raises ValueError for an unknown world and sizes out of range.
    """
    checks.one_of(("A", "B", "C", "D"), world=world)
    checks.whole(rows=rows, held=held)
    checks.one_of(range(DAYS + 1), latest=latest)
    plant, draw = (np.random.default_rng([seed, k]) for k in (1, 2))
    u, v, w = (FIELDS.utility(plant) for _ in range(3))
    n = rows + 2 * held
    ids = FIELDS.draw(n, draw)
    part = np.repeat(np.arange(3), [rows, held, held])
    p = _sigmoid(-0.8 + u(ids))
    q = _sigmoid(-1 + 0.5 * u(ids) + 0.75**0.5 * v(ids))
    mixed = w(ids) if world == "B" else 0.8 * v(ids) + 0.6 * w(ids)
    g = np.zeros(n) if world == "A" else _sigmoid(3 * mixed - 1)
    f = (1 - g)[:, None] * EARLY + g[:, None] * LATE
    if world == "D":
        f = np.exp(-np.exp(-0.7 + 0.5 * w(ids))[:, None] * np.arange(DAYS + 1))
        f /= f.sum(1, keepdims=True)
    click, converts = draw.random(n) < p, draw.random(n) < q
    delay = (draw.random(n)[:, None] > f.cumsum(1)[:, :-1]).sum(1)
    elapsed = draw.integers(0, latest + 1, n)
    elapsed = np.where(complete | (part == 2), DAYS, elapsed)
    observed = click & converts & (delay <= elapsed)
    values = np.stack([click, observed, delay * observed, elapsed], 1)
    train, test = part == 0, part == 2
    truth = DelaysTruth(
        *(torch.from_numpy(a[test]) for a in (p, q, f)),
        clicks=int(click[train].sum()),
        conversions=int((click & converts)[train].sum()),
        seen=int(observed[train].sum()),
    )
    schema = Schema(FIELDS.schema_fields(), labels=LABELS)
    return from_arrays(f"delays_{world}", schema, ids, values, part, truth=truth)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
