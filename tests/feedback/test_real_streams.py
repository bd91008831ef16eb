"""Streams of real events: equal periods, and negatives that a user had not met."""

import numpy as np
import pytest
import torch
from paperlab import metrics
from paperlab.feedback import real_streams
from paperlab.feedback.real_streams import negatives


def check(pairs, edges, drawn):
    for row, (user, _) in enumerate(pairs):
        end = min(e for e in edges if e > row)
        assert drawn[row] not in {i for u, i in pairs[: row + 1] if u == user}
        assert drawn[row] in {i for _, i in pairs[:end]}


@pytest.mark.parametrize("seed", range(5))
def test_negatives_are_outside_the_users_past_and_known_by_then(seed):
    draw = np.random.default_rng(seed)
    pairs = np.stack([draw.integers(1, 9, 60), draw.integers(1, 80, 60)], 1)
    edges = np.array([0, 20, 40, 60])
    check(pairs.tolist(), edges, negatives(pairs, edges, draw))


def test_a_user_who_met_everything_has_no_negative():
    with pytest.raises(ValueError, match="has met nearly every item"):
        negatives(np.array([[1, 1], [1, 1]]), np.array([0, 2]), np.random.default_rng(0))


@pytest.mark.parametrize("name", ["taobao", "movielens"])
def test_periods_of_equal_count_and_the_shuffled_control(name):
    load = getattr(real_streams, name)
    try:
        stream, control = load(seed=1), load(seed=1, shuffled=True)
    except FileNotFoundError:
        pytest.skip(f"{name} is not at hand")
    sizes = [len(p) for p in stream.periods]
    assert max(sizes) - min(sizes) <= 2 and len(sizes) == (27 if name == "taobao" else 20)
    assert sizes == [len(p) for p in control.periods]
    if name == "taobao":
        assert all(p.labels.mean() == 0.5 for p in stream.periods)
    first = [set(s.periods[0].users.tolist()) for s in (stream, control)]
    assert len(first[0]) != len(first[1])


def test_user_units_sum_to_the_auc():
    draw = torch.Generator().manual_seed(0)
    users = torch.arange(50).repeat_interleave(4)
    labels = torch.tensor([1.0, 0, 1, 0]).repeat(50)
    scores = (torch.randn(200, generator=draw) + labels).mul(2).round()  # with ties
    values, count = real_streams.user_units(scores, labels, users, 51)
    assert values.sum() / count.sum() == pytest.approx(metrics.auc(scores, labels))
    assert count.tolist() == [2] * 50 + [0]
