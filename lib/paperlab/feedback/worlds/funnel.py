"""Impressions, clicks and orders: the funnel whose probabilities are known.

    click   p_1 = sigmoid(a + 1.2 U)
    order   p_2 = p_1 sigmoid(b + 1.2 (rho U + sqrt(1 - rho^2) V)), of all impressions

with unit utilities U and V of eight categorical fields. rho is how much of what makes a user click also
makes a clicking user order; b sets how rare orders are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ... import checks
from ...data.schema import Schema
from ...data.store import Log, from_arrays
from .utilities import CategoricalFields

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

LABELS = ("click", "order")
FIELDS = CategoricalFields(8, 40, 0.7)
SLOPE = 1.2  # of both utilities


@dataclass(frozen=True)
class FunnelTruth:
    """Known probabilities of the test rows, and the orders of the training rows.

    click: p_1. order: p_2, of the joint event. orders: how many in the training part.
    """

    click: Float[Tensor, " n"]
    order: Float[Tensor, " n"]
    orders: int


def funnel(
    rows: int,
    *,
    rho: float = 0.8,
    b: float = -5.0,
    a: float = -2.2,
    held: int = 10_000,
    seed: int = 0,
) -> Log:
    """Impressions with the labels click and order; an order needs a click.

    rows: of the training part, >= 1; held: of the validation part, and of the test part, >= 1.
    rho: in [-1, 1]. a, b: logits of a click, and of an order after a click, at utility 0.
    seed: of utilities and rows.
    Raises ValueError for values out of range.
    """
    checks.whole(rows=rows, held=held)
    checks.inside("[-1, 1]", rho=rho)
    checks.inside("(-inf, inf)", a=a, b=b)
    plant, draw = (np.random.default_rng([seed, k]) for k in (1, 2))
    u, v = (FIELDS.utility(plant) for _ in LABELS)
    n = rows + 2 * held
    ids = FIELDS.draw(n, draw)
    part = np.repeat(np.arange(3), [rows, held, held])
    p_click = _sigmoid(a + SLOPE * u(ids))
    p_order = p_click * _sigmoid(b + SLOPE * (rho * u(ids) + np.sqrt(1 - rho**2) * v(ids)))
    luck = draw.random(n)  # one number a row: luck < p_order < p_click
    values = np.stack([luck < p_click, luck < p_order], 1)
    test = part == 2
    truth = FunnelTruth(
        *(torch.from_numpy(p[test]) for p in (p_click, p_order)),
        orders=int(values[part == 0, 1].sum()),
    )
    schema = Schema(FIELDS.schema_fields(), labels=LABELS)
    return from_arrays("funnel", schema, ids, values, part, truth=truth)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
