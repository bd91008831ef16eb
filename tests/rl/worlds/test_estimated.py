"""EstimatedFunnel: limits, slow versions, and logs held against exact values."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.rl.worlds.estimated import EstimatedFunnel
from paperlab.rl.worlds.funnel import FunnelModel

PLATFORM = EstimatedFunnel(0.3)
KNOWN = FunnelModel()


def test_without_error_it_is_the_funnel():
    exact = EstimatedFunnel(0.0)
    best, values = KNOWN.optimal()
    assert exact.new_pair(exact.optimal()) == pytest.approx(values.new_pair, abs=1e-12)
    assert exact.new_pair(best) == pytest.approx(values.new_pair, abs=1e-12)
    assert exact.optimal().tolist() == best.tolist()


def test_an_estimate_that_says_nothing_leaves_one_rule_for_all():
    blind = EstimatedFunnel(0.75)
    np.testing.assert_allclose(blind.confusion, 0.25)
    worth = [
        KNOWN.exact_values(np.tile(rule, (4, 1))).new_pair
        for rule in itertools.product(range(3), repeat=4)
    ]
    assert blind.new_pair(blind.optimal()) == pytest.approx(max(worth), abs=1e-12)
    assert len({tuple(rule) for rule in blind.optimal().tolist()}) == 1


def test_values_that_the_notebook_prints():
    """Also: a rule that ignores the affinity is worth what it is worth in the funnel."""
    assert PLATFORM.new_pair(PLATFORM.optimal()) == pytest.approx(2.467821, abs=1e-5)
    assert PLATFORM.new_pair(KNOWN.optimal()[0]) == pytest.approx(2.462895, abs=1e-5)
    for policy in (0, 2, "uniform", KNOWN.myopic()):
        want = KNOWN.exact_values(policy).new_pair
        assert PLATFORM.new_pair(policy) == pytest.approx(want, abs=1e-12)
    assert PLATFORM.share(PLATFORM.optimal()) == 1


@settings(deadline=None, max_examples=15)
@given(st.floats(0, 0.75), st.integers(0, 99))
def test_a_value_is_the_mean_over_estimates_and_affinities(error, seed):
    """Each (estimate, affinity) by itself, in a double loop; no policy beats the best rules."""
    model = EstimatedFunnel(error)
    policy = np.random.default_rng(seed).integers(0, 3, (4, 4))
    total = 0.0
    for guess in range(4):
        values = KNOWN.exact_values(np.tile(policy[guess], (4, 1))).total
        for k in range(4):
            chance = 1 - error if k == guess else error / 3
            total += 0.25 * chance * values[k, 0]
    assert model.new_pair(policy) == pytest.approx(total, abs=1e-12)
    assert model.share(policy) <= 1 + 1e-12


def test_less_error_is_never_worth_less():
    worth = [m.new_pair(m.optimal()) for m in map(EstimatedFunnel, (0, 0.2, 0.4, 0.6, 0.75))]
    assert (np.diff(worth) < 0).all()


def test_the_log_is_of_what_the_platform_sees():
    rules = np.array([[0] * 4, [1] * 4, [2] * 4, [0, 1, 2, 0]])
    log = PLATFORM.log_dataset(rules, 200_001, 0, steps=10)
    guess, z = log["state"] // 4, log["state"] % 4
    assert len(guess) == 200_001 and (log["action"] == rules[guess, z]).all()
    for name in ("post_update", "next_request", "exact"):
        assert (log[name] // 4 == guess).all()  # the estimate stays
    share = np.histogram2d(guess, log["affinity"], bins=4)[0] / (200_001 / 4)
    # ~5,000 pairs an estimate: standard errors of at most .0066
    np.testing.assert_allclose(share, PLATFORM.confusion, atol=0.03)
    pairs, first = np.unique(log["pair"], return_index=True)
    assert (np.bincount(log["pair"]) <= 10).all() and len(pairs) >= 20_000
    assert (guess[log["pair"].argsort(kind="stable")] == np.sort(guess)).all()
    assert (log["time"][first] == 0).all()


def test_rates_are_those_of_the_true_affinity():
    log = PLATFORM.log_dataset("uniform", 400_000, 1)
    for k in range(4):
        new = (log["affinity"] == k) & (log["state"] % 4 == 0) & (log["action"] == 0)
        assert log["click"][new].mean() == pytest.approx(KNOWN.p_click[0, k, 0], abs=0.01)


def test_same_seed_same_log():
    one, two, other = (PLATFORM.log_dataset(0, 1000, seed) for seed in (3, 3, 4))
    assert all((one[name] == two[name]).all() for name in one)
    assert (one["time"] != other["time"]).any()


@pytest.mark.parametrize("error", [-0.1, 0.76, float("nan")])
def test_bad_errors(error):
    with pytest.raises(ValueError, match=r"error must be in \[0, 0.75\]"):
        EstimatedFunnel(error)


def test_bad_logs():
    with pytest.raises(ValueError, match="n must be at least 4"):
        PLATFORM.log_dataset(0, 3, 0)
    with pytest.raises(ValueError, match="affinities must hold 4 probabilities"):
        KNOWN.log_dataset(0, 10, 0, affinities=(0.5, 0.5, 0.5, 0))
