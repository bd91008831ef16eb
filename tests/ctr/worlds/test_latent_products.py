"""Planted inner products: what the truth says of itself, and what the parts may not share."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import metrics
from paperlab.ctr.worlds.latent_products import latent_products
from paperlab.data.store import SPLITS


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 6), st.floats(0.05, 0.6), st.integers(8, 40), st.integers(0, 10**6))
def test_pairs_occur_once_and_parts_have_their_sizes(rank, share, vocabulary, seed):
    log = latent_products(rank, share, vocabulary=vocabulary, seed=seed)
    rows = round(share * vocabulary**2)
    assert [len(getattr(log, p)) for p in SPLITS] == [rows, *[round(rows / 4)] * 2]
    ids = torch.cat([getattr(log, p).ids for p in SPLITS])
    assert len(ids.unique(dim=0)) == len(ids)
    assert ids.min() >= 1 and ids.max() <= vocabulary


def test_logits_are_the_products_and_labels_follow_them():
    log = latent_products(4, 0.5, vocabulary=200, strength=2.0)
    truth, i, j = log.truth, *(log.test.ids.T - 1)
    want = [2.0 / 2 * float(truth.left[a] @ truth.right[b]) for a, b in zip(i, j, strict=True)]
    np.testing.assert_allclose(truth.logits, want, rtol=1e-4, atol=1e-5)
    assert truth.logits.std() == pytest.approx(2.0, rel=0.1)
    chance = 1 / (1 + np.exp(-truth.logits))
    labels = log.test.labels[:, 0].numpy()
    sure = chance > 0.9
    assert labels[sure].mean() == pytest.approx(chance[sure].mean(), abs=0.02)
    assert labels.mean() == pytest.approx(0.5, abs=0.03)
    assert truth.bayes_auc == metrics.auc(torch.from_numpy(truth.logits), log.test.labels[:, 0])


def test_over_all_pairs_no_id_has_a_mean_of_its_own():
    truth = latent_products(3, 0.2, vocabulary=40).truth
    products = truth.left.astype(float) @ truth.right.T
    np.testing.assert_allclose(products.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(products.mean(1), 0, atol=1e-5)


def test_a_field_alone_says_nothing():
    log = latent_products(16, 0.6, vocabulary=300)
    ids, labels = log.train.ids[:, 0].long(), log.train.labels[:, 0].double()
    mean = torch.zeros(301).double().index_add(0, ids, labels) / ids.bincount(minlength=301)
    guess = metrics.auc(mean[log.test.ids[:, 0].long()], log.test.labels[:, 0])
    # an id's mean shows where its vector lies against the mean of the others: almost nowhere
    assert guess < 0.55 < 0.8 < log.truth.bayes_auc


def test_seeds():
    one, same = (latent_products(3, 0.2, vocabulary=50, seed=1) for _ in range(2))
    rows = latent_products(3, 0.2, vocabulary=50, seed=1, data_seed=5)
    assert torch.equal(one.train.ids, same.train.ids) and torch.equal(
        one.train.values, same.train.values
    )
    assert np.array_equal(one.truth.left, rows.truth.left)
    assert not torch.equal(one.train.ids, rows.train.ids)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"share": 0.7}, r"share must be in \(0, 2/3\]"),
        ({"share": 0.0}, r"share must be in \(0, 2/3\]"),
        ({"vocabulary": 3}, "vocabulary must be at least 4"),
        ({"strength": -1.0}, "strength must be at least 0"),
    ],
)
def test_faults(arguments, says):
    with pytest.raises(ValueError, match=says):
        latent_products(**{"rank": 2, "share": 0.2, "vocabulary": 20} | arguments)
