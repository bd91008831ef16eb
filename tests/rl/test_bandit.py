"""Bandit evaluation: logs whose policies' values are known, identities, and faults."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.data.kinds import BanditLog
from paperlab.rl import bandit

CHANCE = np.array([[0.8, 0.2, 0.4], [0.1, 0.7, 0.4]])  # of a reward, by kind of user and action
MU = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])


def log_of(n=8000, seed=0, chance=CHANCE, mu=MU, scale=1.0):
    draw = np.random.default_rng(seed)
    kind = draw.integers(0, 2, n)
    action = (draw.random((n, 1)) > mu[kind].cumsum(1)).sum(1)
    reward = scale * (draw.random(n) < chance[kind, action])
    context = np.column_stack([kind, draw.normal(size=n)])
    position, features = np.zeros(n, int), np.arange(chance.shape[1])[:, None]
    return BanditLog(
        "known", context, action, reward, mu[kind, action], chance.shape[1], position, features
    )


def by_key(rows):
    return {(r["policy"], r["estimator"]): r for r in rows}


def test_estimates_meet_the_known_values():
    found = by_key(bandit.evaluate(log_of(), draws=200))
    truth = {
        "logging": (MU * CHANCE).sum(1).mean(),
        "uniform": CHANCE.mean(),
        "greedy": CHANCE.max(1).mean(),
    }
    for policy, exact in truth.items():
        for kind in bandit.ESTIMATORS:
            row = found[policy, kind]
            assert row["value"] == pytest.approx(exact, abs=0.05)
            assert row["low"] < row["value"] < row["high"] < row["low"] + 0.12
            gain = exact - truth["logging"]
            assert row["gain"] == pytest.approx(gain, abs=0.05), (policy, kind)
    assert found["greedy", "DR"]["gain low"] > 0 > found["uniform", "DR"]["gain high"]
    # 0.8 / 0.6 and 0.7 / 0.2: the weights of greedy are 1 / mu where the log agreed, else 0
    share = np.array([0.6, 0.2])
    size = 4000 * (share / share).mean() ** 2 / (1 / share).mean()
    assert found["greedy", "IPS"]["effective"] == pytest.approx(size, rel=0.1)


def test_the_intervals_of_the_unbiased_estimators_cover():
    exact, inside = CHANCE.mean(), np.zeros(3)
    for seed in range(25):
        found = by_key(bandit.evaluate(log_of(800, seed), draws=100, seed=seed))
        for k, kind in enumerate(("IPS", "SNIPS", "DR")):
            row = found["uniform", kind]
            inside[k] += row["low"] <= exact <= row["high"]
    assert (inside >= 20).all()  # of 25; fewer at 95 % are rarer than 1 in 200


def test_the_direct_method_flatters_a_greedy_policy_where_there_is_nothing_to_learn():
    found = by_key(bandit.evaluate(log_of(600, chance=np.full((2, 3), 0.3)), draws=100))
    assert found["greedy", "DM"]["low"] > 0.32
    assert found["greedy", "DR"]["low"] < 0.3 < found["greedy", "DR"]["high"]


@given(st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_what_holds_for_any_log(seed):
    mu = np.full((2, 3), 1 / 3)
    log = log_of(300, seed, mu=mu)
    found = by_key(bandit.evaluate(log, draws=100, seed=seed))
    mean = found["logging", "IPS"]["value"]
    for policy in ("logging", "uniform"):  # the same policy: all weights are 1
        for kind in ("IPS", "SNIPS"):
            assert found[policy, kind]["value"] == pytest.approx(mean)
            assert found[policy, kind]["gain"] == pytest.approx(0)
    assert found["logging", "DR"]["value"] == pytest.approx(mean)
    assert found["uniform", "IPS"]["effective"] == pytest.approx(150)
    ten = by_key(bandit.evaluate(log_of(300, seed, mu=mu, scale=10.0), draws=100, seed=seed))
    for key, row in found.items():  # all policies are the same if rewards change their unit
        assert ten[key]["value"] == pytest.approx(10 * row["value"], rel=1e-6, abs=1e-9)


def test_same_seed_same_rows_and_another_seed_another_split():
    log = log_of(300)
    one, two, other = (bandit.evaluate(log, draws=100, seed=s) for s in (4, 4, 5))
    assert one == two != other and len(one) == 20
    assert {r["rounds"] for r in bandit.evaluate(log, share=0.8, draws=100)} == {60}


def test_a_policy_that_the_log_never_followed_has_no_value():
    log = log_of(400, mu=np.array([[1.0, 0, 0], [0, 0, 1.0]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = by_key(bandit.evaluate(log, draws=100))
    row = found["uniform", "IPS"]  # a third of what it does is known, and two thirds count as 0
    assert row["value"] < CHANCE.mean() - 0.05
    assert np.isfinite(row["effective"])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: bandit.evaluate({"action": [0]}), "log must be a BanditLog, got dict"),
        (lambda: bandit.evaluate(log_of(99)), "known: log must have at least 100 rounds, got 99"),
        (lambda: bandit.evaluate(log_of(), share=1.0), r"share must be in \(0, 1\), got 1.0"),
        (lambda: bandit.evaluate(log_of(), draws=10), "draws must be at least 100, got 10"),
        (lambda: bandit.evaluate(log_of(scale=0.0)), "reward must vary within the 4000 rounds"),
        (
            lambda: bandit.evaluate(log_of(chance=CHANCE[:, :1], mu=np.ones((2, 1)))),
            "known: log must have at least 2 actions, got 1",
        ),
    ],
)
def test_bad_values_say_what_is_right(make, says):
    with pytest.raises(ValueError, match=says) as error:
        make()
    assert "\n" not in str(error.value)
