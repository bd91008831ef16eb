"""Pairs among noise fields: standardised tables, and nothing to learn for an additive model."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import metrics
from paperlab.ctr.worlds.noise_fields import noise_fields


def slow_logits(log, strength: float) -> np.ndarray:
    """The formula, row by row and pair by pair."""
    truth, rows = log.truth, (log.test.ids - 1).tolist()
    left, right = truth.tables
    terms = [
        [left[m, row[i]] * right[m, row[j]] for m, (i, j) in enumerate(truth.pairs)] for row in rows
    ]
    return strength / len(truth.pairs) ** 0.5 * np.sum(terms, 1)


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 30), st.integers(1, 10), st.integers(0, 10**6))
def test_tables_are_standardised_and_logits_are_their_products(vocabulary, pairs, seed):
    log = noise_fields(60, 2, signal=5, vocabulary=vocabulary, pairs=pairs, seed=seed)
    tables = log.truth.tables
    assert tables.shape == (2, pairs, vocabulary)
    np.testing.assert_allclose(tables.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(tables.std(-1), 1, rtol=1e-4)
    np.testing.assert_allclose(log.truth.logits, slow_logits(log, 2.0), rtol=1e-4, atol=1e-5)


def test_the_logit_has_the_strength_as_its_deviation_and_mean_0_given_a_field():
    log = noise_fields(400_000, 0, signal=4, vocabulary=5, pairs=3, strength=1.5)
    logits, ids = log.truth.logits, log.test.ids.numpy()
    assert logits.std() == pytest.approx(1.5, rel=0.03)
    for field in range(4):
        for value in range(1, 6):
            assert logits[ids[:, field] == value].mean() == pytest.approx(0, abs=0.08)


def test_a_sum_over_single_fields_ranks_almost_like_a_coin():
    for seed in range(3):
        log = noise_fields(60_000, 0, vocabulary=10, seed=seed)
        score = torch.zeros(len(log.test), dtype=torch.float64)
        for field in range(10):  # the mean label of each value
            ids, labels = log.train.ids[:, field].long(), log.train.labels[:, 0].double()
            total = torch.zeros(11, dtype=torch.float64).index_add(0, ids, labels)
            score += (total / ids.bincount(minlength=11).clamp(min=1))[
                log.test.ids[:, field].long()
            ]
        guess = metrics.auc(score, log.test.labels[:, 0])
        assert guess < 0.54 < 0.8 < log.truth.bayes_auc
