"""Planted relevance by user: what the truth says of itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import metrics
from paperlab.ctr.worlds.gated_relevance import gated_relevance


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 12), st.integers(0, 10**6))
def test_every_type_has_its_own_fields_and_half_are_noise(types, per_type, more, seed):
    users = types + more
    log = gated_relevance(50, users=users, types=types, per_type=per_type, seed=seed)
    relevant, signal = log.truth.relevant, log.truth.signal
    assert relevant.shape == (users + 1, len(log.schema.fields)) and not relevant[0].any()
    assert (relevant[1:].sum(1) == per_type).all()
    names = [f.name for f in log.schema.fields]
    assert [n for n, s in zip(names, signal, strict=True) if s] == [
        n for n in names if "signal" in n
    ]
    assert signal.sum() == sum("noise" in n for n in names) == types * per_type
    patterns = np.unique(relevant[1:], axis=0)
    assert len(patterns) == types and (patterns.sum(0) <= 1).all()
    sizes = [(relevant[1:] == p).all(1).sum() for p in patterns]
    assert max(sizes) - min(sizes) <= 1


def test_only_what_is_relevant_to_the_user_moves_the_labels():
    log = gated_relevance(40_000, users=10, vocabulary=4, strength=3.0)
    assert [len(getattr(log, p)) for p in ("train", "valid", "test")] == [32_000, 4_000, 4_000]
    ids, labels, relevant = log.train.ids, log.train.labels[:, 0], log.truth.relevant
    for user in (1, 2):
        mine = ids[:, 0] == user
        for f in range(2, ids.shape[1]):
            rates = [labels[mine & (ids[:, f] == v)].mean().item() for v in range(1, 5)]
            spread = max(rates) - min(rates)
            assert (spread > 0.25) == bool(relevant[user, f]), (user, f, spread)
    assert log.truth.logits.std() == pytest.approx(3.0, rel=0.05)
    scores = torch.from_numpy(log.truth.logits)
    assert log.truth.bayes_auc == metrics.auc(scores, log.test.labels[:, 0]) > 0.85


def test_seeds():
    one, same = gated_relevance(100, seed=1), gated_relevance(100, seed=1)
    rows = gated_relevance(100, seed=1, data_seed=2)
    assert torch.equal(one.train.ids, same.train.ids) and torch.equal(
        one.train.values, same.train.values
    )
    assert np.array_equal(one.truth.relevant, rows.truth.relevant)
    assert not torch.equal(one.train.ids, rows.train.ids)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rows": 9}, "rows must be at least 10, got 9"),
        ({"users": 1}, "users must be at least 2, got 1"),
        ({"types": 0}, "types must be at least 1"),
        ({"per_type": 0}, "per_type must be at least 1"),
        ({"vocabulary": 1}, "vocabulary must be at least 2"),
        ({"strength": -0.1}, "strength must be at least 0"),
    ],
)
def test_faults(arguments, says):
    with pytest.raises(ValueError, match=says):
        gated_relevance(**{"rows": 100} | arguments)
