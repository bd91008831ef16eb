"""Metrics against slow references, scikit-learn and identities."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import metrics
from sklearn.metrics import roc_auc_score

rows = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(0, 1), st.integers(0, 4)), min_size=2, max_size=40
)


def slow_auc(scores, labels):
    wins = [
        (p > n) + 0.5 * (p == n)
        for p, y in zip(scores, labels, strict=True)
        if y
        for n, z in zip(scores, labels, strict=True)
        if not z
    ]
    return sum(wins) / len(wins) if wins else math.nan


@settings(deadline=None, max_examples=60)
@given(rows)
def test_auc_and_gauc_equal_the_pairwise_count(drawn):
    scores, labels, users = (torch.tensor(c) for c in zip(*drawn, strict=True))
    expected = slow_auc(scores.tolist(), labels.tolist())
    assert metrics.auc(scores.float(), labels) == pytest.approx(expected, nan_ok=True)
    parts = [
        (
            slow_auc(scores[users == u].tolist(), labels[users == u].tolist()),
            int((users == u).sum()),
        )
        for u in users.unique()
    ]
    parts = [(a, n) for a, n in parts if not math.isnan(a)]
    expected = sum(a * n for a, n in parts) / sum(n for _, n in parts) if parts else math.nan
    assert metrics.gauc(scores.float(), labels, users) == pytest.approx(expected, nan_ok=True)


def test_auc_equals_scikit_learn_with_ties_at_size():
    draw = np.random.default_rng(0)
    scores, labels = draw.integers(0, 50, 20_000), draw.integers(0, 2, 20_000)
    ours = metrics.auc(torch.tensor(scores).float(), torch.tensor(labels))
    assert ours == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auc_is_invariant_to_monotone_maps_and_gauc_of_one_user_is_auc():
    scores, labels = torch.randn(500), (torch.rand(500) < 0.3).long()
    auc = metrics.auc(scores, labels)
    assert metrics.auc(scores.exp() * 3, labels) == auc
    assert metrics.gauc(scores, labels, torch.full((500,), 7)) == pytest.approx(auc)


def test_users_with_one_class_do_not_count():
    scores = torch.tensor([0.1, 0.9, 0.5, 0.6])
    labels, users = torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1])
    assert metrics.gauc(scores, labels, users) == 1.0


def test_logloss_of_the_base_rate_is_its_entropy():
    labels = torch.tensor([1.0, 0, 0, 0])
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    logits = torch.full((4,), math.log(0.25 / 0.75), dtype=torch.float64)
    assert metrics.logloss(logits, labels) == pytest.approx(entropy)


def test_bad_input_is_refused_in_one_line():
    with pytest.raises(ValueError, match="vectors of one length"):
        metrics.auc(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match="NaN"):
        metrics.auc(torch.tensor([math.nan, 1.0]), torch.tensor([0, 1]))
