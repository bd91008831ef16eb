"""Planted products: orders apart, ceilings, faults."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import metrics
from paperlab.ctr.worlds.planted_orders import planted_orders


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 100), st.sampled_from([0.0, 1.0]), st.booleans())
def test_orders_have_their_strength_and_do_not_correlate(seed, zipf, binary):
    strength = {1: 0.5, 2: 1.0, 3: 2.0}
    log = planted_orders(40_000, strength, zipf=0 if binary else zipf, binary=binary, seed=seed)
    parts = np.stack(list(log.truth.by_order.values()))
    assert log.truth.logits == pytest.approx(parts.sum(0), abs=1e-5)
    assert parts.std(1) == pytest.approx([0.5, 1.0, 2.0], rel=0.35)
    # heavy products of skewed tables leave some correlation in 4,000 rows
    assert np.abs(np.corrcoef(parts) - np.eye(3)).max() < 0.25


def test_a_product_says_nothing_through_fewer_fields():
    """Binary tables, every cell of two of the three fields: the mean of the logit is nearly 0."""
    log = planted_orders(300_000, {3: 1.0}, fields=3, vocabulary=4, products=1, binary=True)
    ids = log.test.ids.numpy()
    for pair in ((0, 1), (0, 2), (1, 2)):
        cell = ids[:, pair[0]] * 5 + ids[:, pair[1]]
        for c in np.unique(cell):
            chosen = log.truth.logits[cell == c]
            assert abs(chosen.mean()) < 5 / len(chosen) ** 0.5
    assert np.abs(log.truth.logits) == pytest.approx(1.0)


def test_the_ceiling_is_the_true_logits():
    log = planted_orders(20_000, {1: 1.0, 2: 1.0}, zipf=1.1, fields=12, vocabulary=50)
    true, labels = torch.from_numpy(log.truth.logits), log.test.labels[:, 0]
    assert log.truth.bayes_auc == metrics.auc(true, labels)
    assert log.truth.bayes_logloss == metrics.logloss(true, labels)
    assert log.truth.bayes_logloss < metrics.logloss(0.9 * true + 0.3, labels)
    counts = np.bincount(log.train.ids[:, 0].numpy(), minlength=51)
    assert counts[0] == 0 and counts[1] / counts[2] == pytest.approx(2**1.1, rel=0.1)
    assert (len(log.train), len(log.valid), len(log.test)) == (16_000, 2_000, 2_000)


def test_seeds_plant_and_data_seeds_draw():
    a, b, c = (planted_orders(1000, {2: 1.0}, **k) for k in ({}, {"data_seed": 1}, {"seed": 1}))
    assert (a.truth.products[2] == b.truth.products[2]).all()
    assert not torch.equal(a.train.ids, b.train.ids)
    assert not np.array_equal(a.truth.products[2], c.truth.products[2])
    many = planted_orders(100, {3: 1.0}, fields=200, products=5)
    assert many.truth.products[3].shape == (5, 3)
    assert planted_orders(100, {3: 1.0}, fields=3).truth.products[3].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 9}, "rows must be at least 10"),
        ({"strength": {}}, "at least one order"),
        ({"strength": {9: 1.0}}, "orders in 1..8"),
        ({"strength": {1: -1.0}}, "numbers >= 0"),
        ({"zipf": float("inf")}, "zipf must be at least 0 and finite"),
        ({"vocabulary": 5, "binary": True}, "even vocabulary"),
        ({"products": 0}, "products must be at least 1"),
    ],
)
def test_bad_input_is_one_line(change, message):
    with pytest.raises(ValueError, match=message):
        planted_orders(**({"rows": 100, "strength": {1: 1.0}} | change))
