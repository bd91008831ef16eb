"""Clicks driven by planted products of one, two, three, ... fields, orders known apart.

    P(v_f = r) ~ (r + 1)^-zipf, r in {0..vocabulary-1},    y ~ Bernoulli(sigmoid(sum_k logit_k))
    logit_k = strength_k / sqrt(n_k) * sum_m prod_{f in S_m} t_{m,f}[v_f],     |S_m| = k

where every table t_{m,f} has mean 0 and variance 1 over the field's distribution. So a product says
nothing through fewer than all of its fields, orders do not correlate, and logit_k has the standard
deviation strength_k: what a model can learn of order k is apart from the other orders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import torch

from ... import metrics
from ...data.schema import Field, Schema
from ...data.store import Log, from_arrays


@dataclass(frozen=True)
class PlantedTruth:
    """What the generator knows.

    products: order -> fields of its products (n, order). by_order: order -> its part of the true
    logits of the test rows; logits: their sum. bayes_auc, bayes_logloss: of the true logits on the
    test labels, which no model beats but by luck.
    """

    products: dict[int, np.ndarray]
    by_order: dict[int, np.ndarray]
    logits: np.ndarray
    bayes_auc: float
    bayes_logloss: float


def planted_orders(
    rows: int,
    strength: Mapping[int, float],
    *,
    fields: int = 8,
    vocabulary: int = 10,
    products: int = 4,
    zipf: float = 0.0,
    binary: bool = False,
    seed: int = 0,
    data_seed: int = 0,
) -> Log:
    """A log of categorical fields with products of the orders in ``strength``, split 8:1:1.

    rows >= 10. strength: order (1..fields) -> standard deviation of its part of the logit, >= 0.
    products: of each order, >= 1, at most as many as there are sets of that many fields (then fewer
        are planted). vocabulary >= 2 values a field. zipf >= 0: exponent of their frequencies.
    binary: tables of +1 and -1 (of equal halves, so vocabulary must be even and zipf 0), else normal.
    ``seed`` plants, ``data_seed`` draws the rows. Raises ValueError outside these ranges.
    """
    for name, value, low in (
        ("rows", rows, 10),
        ("fields", fields, 1),
        ("vocabulary", vocabulary, 2),
        ("products", products, 1),
        ("zipf", zipf, 0),
    ):
        if not low <= value < float("inf"):
            raise ValueError(f"{name} must be at least {low} and finite, got {value}")
    for k, s in strength.items():
        if not (1 <= k <= fields and 0 <= s < float("inf")):
            raise ValueError(
                f"strength must map orders in 1..{fields} to numbers >= 0, got {k}: {s}"
            )
    if not strength:
        raise ValueError("strength must name at least one order")
    if binary and (vocabulary % 2 or zipf):
        raise ValueError(f"binary needs an even vocabulary and zipf 0, got {vocabulary}, {zipf}")
    plant = np.random.default_rng([seed, 3])
    share = (np.arange(vocabulary) + 1.0) ** -zipf
    share /= share.sum()

    draw = np.random.default_rng([seed, 4, data_seed])
    if zipf:
        edges = share.cumsum()[:-1]
        values = np.searchsorted(edges, draw.random((rows, fields))).astype(np.int32)
    else:
        values = draw.integers(vocabulary, size=(rows, fields), dtype=np.int32)
    sets, parts = {}, {}
    for k in sorted(strength):
        sets[k] = _some_sets(plant, fields, k, products)
        total = np.zeros(rows, np.float32)
        for chosen in sets[k]:
            product = np.ones(rows, np.float32)
            for f in chosen:
                product *= _table(plant, share, binary)[values[:, f]]
            total += product
        parts[k] = total * np.float32(strength[k] / len(sets[k]) ** 0.5)
    logits = np.sum(list(parts.values()), 0)
    labels = (draw.random(rows, dtype=np.float32) < 1 / (1 + np.exp(-logits))).astype(np.float32)

    part = np.zeros(rows, np.int8)
    part[-2 * (rows // 10) :] = 1
    part[-(rows // 10) :] = 2
    held = part == 2
    true, seen = torch.from_numpy(logits[held]), torch.from_numpy(labels[held])
    truth = PlantedTruth(
        products=sets,
        by_order={k: p[held] for k, p in parts.items()},
        logits=logits[held],
        bayes_auc=metrics.auc(true, seen),
        bayes_logloss=metrics.logloss(true, seen),
    )
    schema = Schema(tuple(Field(f"field_{f}", size=vocabulary + 1) for f in range(fields)))
    # 0 is out-of-vocabulary
    return from_arrays("planted_orders", schema, values + 1, labels[:, None], part, truth=truth)


def _some_sets(draw: np.random.Generator, fields: int, k: int, products: int) -> np.ndarray:
    """Distinct sets of k fields, in order."""
    every = comb(fields, k)
    if every <= 100_000:
        sets = np.array(list(combinations(range(fields), k)))
        return sets[np.sort(draw.permutation(every)[:products])]
    found: set[tuple[int, ...]] = set()
    while len(found) < products:
        found.add(tuple(sorted(draw.choice(fields, k, replace=False).tolist())))
    return np.array(sorted(found))


def _table(draw: np.random.Generator, share: np.ndarray, binary: bool) -> np.ndarray:
    """One number a value, mean 0 and variance 1 under the values' distribution."""
    if binary:
        signs = np.repeat(np.float32([1, -1]), len(share) // 2)
        return draw.permutation(signs)
    table = draw.standard_normal(len(share))
    table -= share @ table
    return (table / np.sqrt(share @ table**2)).astype(np.float32)
