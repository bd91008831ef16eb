"""UserAuthorFunnel: the sheet's exact numbers, slow versions, and draws held against them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.mdp import Choices, action_values, policy_table
from paperlab.rl.worlds.funnel import FunnelModel

TEACHING, FORGETTING = FunnelModel(), FunnelModel(forgetting=0.01)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Transitions -------------------------------------------------------------------------------------


def test_transitions_are_the_products_of_the_sheet():
    P = TEACHING.P
    assert P.shape == (3, 4, 4, 4) and (P >= 0).all()
    np.testing.assert_allclose(P.sum(-1), 1, atol=1e-12)
    for a, boost in enumerate((0, 0.35, 0.7)):
        for k, x in enumerate((-1, -0.3, 0.4, 1.2)):
            c, f, g = sigmoid(-2.2 + 0.9 * x + boost), sigmoid(-3.5 + x), sigmoid(-9 + 0.8 * x)
            want = [1 - c, c * (1 - f), c * f * (1 - g), c * f * g]
            np.testing.assert_allclose(P[a, k, 0], want, atol=1e-12)
            c, f, g = sigmoid(-1.2 + 0.9 * x + boost), sigmoid(-2.5 + x), sigmoid(-7.5 + 0.8 * x)
            falls = 0.10 + (0, 0.04, 0.12)[a]
            want = [
                (1 - c) * falls,
                (1 - c) * (1 - falls) + c * (1 - f),
                c * f * (1 - g),
                c * f * g,
            ]
            np.testing.assert_allclose(P[a, k, 1], want, atol=1e-12)


def test_gaps_forget_as_the_sheet_says():
    np.testing.assert_allclose(TEACHING.gap_operator(), 0.95 * np.eye(4), atol=1e-15)
    D = FORGETTING.gap_operator() / 0.95
    np.testing.assert_allclose(D[1], [0.16807, 0.83193, 0, 0], atol=5e-6)
    np.testing.assert_allclose(D[3], [0.00003, 0.00110, 0.03770, 0.96117], atol=5e-6)
    np.testing.assert_allclose(D.sum(1), 1, atol=1e-12)


def test_a_gap_is_the_sum_over_its_lengths():
    """The closed form against the series, with everything at once: forgetting and time."""
    model = FunnelModel(forgetting=0.03, time_discount=0.99)
    slow, once = np.zeros((4, 4)), 0.97 * np.eye(4) + 0.03 * np.eye(4, k=-1)
    once[0, 0] = 1
    for z, g in enumerate(model.gap_means):
        for n in range(1, 1001):
            chance = (1 / g) * (1 - 1 / g) ** (n - 1)
            slow[z] += chance * 0.99**n * np.linalg.matrix_power(once, n)[z]
    np.testing.assert_allclose(model.gap_operator(), slow, atol=1e-12)


def test_the_mean_discount_of_a_geometric_gap():
    found = FunnelModel(time_discount=0.999).gap_operator().diagonal()
    np.testing.assert_allclose(found, [0.952336, 0.980373, 0.992056, 0.996012], atol=5e-7)


# Values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "policy", "value"),
    [
        (TEACHING, "optimal", 2.605788),
        (TEACHING, "post_update", 2.605788),
        (TEACHING, "myopic", 2.280584),
        (TEACHING, "stale", 2.280584),
        (TEACHING, 0, 2.267465),
        (TEACHING, "uniform", 2.194996),
        (TEACHING, 2, 1.933902),
        (FORGETTING, "optimal", 1.377422),
        (FORGETTING, "post_update", 1.350952),
        (FORGETTING, "myopic", 1.195391),
        (FORGETTING, "stale", 1.195391),
        (FORGETTING, "uniform", 1.008845),
    ],
)
def test_values_of_the_sheet(model, policy, value):
    if policy in ("post_update", "stale"):
        policy, _ = model.optimal(policy)
    elif policy == "optimal":
        policy, believed = model.optimal()
        assert believed.new_pair == model.exact_values(policy).new_pair
    elif policy == "myopic":
        policy = model.myopic()
    assert model.exact_values(policy).new_pair == pytest.approx(value, abs=1e-5)


def test_shares_of_the_optimum():
    assert TEACHING.share(TEACHING.optimal()[0]) == 1
    assert TEACHING.share(TEACHING.myopic()) == pytest.approx(2.280584 / 2.605788, abs=1e-6)
    assert FORGETTING.share("uniform") == pytest.approx(1.008845 / 1.377422, abs=1e-6)


def test_what_the_approximations_believe():
    assert FORGETTING.optimal("post_update")[1].new_pair == pytest.approx(2.605788, abs=1e-5)
    assert FORGETTING.optimal("stale")[1].new_pair == pytest.approx(0.3295, abs=5e-5)
    assert FORGETTING.exact_values("uniform", "post_update").new_pair == pytest.approx(
        2.194996, abs=1e-5
    )


def test_actions_of_the_sheet():
    assert TEACHING.optimal()[0].tolist() == [
        [0, 0, 0, 1],
        [0, 0, 0, 1],
        [1, 1, 0, 1],
        [2, 2, 1, 1],
    ]
    assert TEACHING.myopic().tolist() == [[0, 0, 0, 2]] * 4


def test_task_values_of_the_sheet():
    found = TEACHING.exact_values("uniform").tasks[:, 3]
    want = [
        [12.8561, 13.7686, 15.4309, 17.1430],
        [0.7480, 0.8333, 0.1955, 0.0422],
        [6.8636, 7.6501, 11.4043, 38.5348],
    ]
    np.testing.assert_allclose(found, want, atol=6e-5)


def test_without_costs_long_sight_is_worth_almost_nothing():
    free = FunnelModel(boost_costs=(0, 0, 0))
    assert free.exact_values(free.myopic()).new_pair == pytest.approx(3.13390, abs=1e-5)
    assert free.optimal()[1].new_pair == pytest.approx(3.13466, abs=1e-5)


def test_the_simulated_world_is_not_the_real_one():
    """Rates of the first 60 exposures under uniform boosts, as the sheet reports them."""
    log = TEACHING.log_dataset("uniform", 600_000, 0, steps=60)
    clicks = log["click"].sum()
    assert log["click"].mean() == pytest.approx(0.357, abs=0.003)
    assert log["follow"].sum() / clicks == pytest.approx(0.037, abs=0.001)
    assert (log["gift"] > 0).sum() / clicks == pytest.approx(0.051, abs=0.0015)


@pytest.mark.parametrize("model", [TEACHING, FORGETTING, FunnelModel(time_discount=0.99)])
def test_two_solvers_agree(model):
    """Policy iteration against repeated Bellman backups."""
    actions, values = model.optimal()
    P, R = model.transitions(), model.rewards()
    V = np.zeros(16)
    for _ in range(2000):
        V = action_values(P, R, V).max(0)
    np.testing.assert_allclose(V, values.total.ravel(), atol=1e-7)
    np.testing.assert_array_equal(action_values(P, R, V).argmax(0), actions.ravel())


def test_values_satisfy_bellmans_equation_state_by_state():
    rng = np.random.default_rng(4)
    policy = rng.dirichlet(np.ones(3), (4, 4))
    found = FORGETTING.exact_values(policy)
    D, V = FORGETTING.gap_operator(), found.total
    for k in range(4):
        for z in range(4):
            value = 0.0
            for a in range(3):
                reward = FORGETTING.weights @ FORGETTING.R[:, a, k, z] - FORGETTING.boost_costs[a]
                q = reward + FORGETTING.P[a, k, z] @ D @ V[k]
                value += policy[k, z, a] * q
            assert value == pytest.approx(V[k, z], abs=1e-10)


small = st.floats(0, 0.3)


@settings(deadline=None, max_examples=25)
@given(st.tuples(small, small, small), st.floats(0, 0.97), st.floats(0, 0.2), st.integers(0, 99))
def test_identities_hold_for_any_parameters(costs, discount, forgetting, seed):
    model = FunnelModel(boost_costs=costs, discount=discount, forgetting=forgetting)
    policy = np.random.default_rng(seed).dirichlet(np.ones(3), (4, 4))
    values = model.exact_values(policy)
    # tasks and cost add up to the total
    total = np.tensordot(model.weights, values.tasks, 1) - values.cost
    np.testing.assert_allclose(total, values.total, atol=1e-10)
    # no policy beats the optimum, in any state
    best, optimum = model.optimal()
    assert (optimum.total >= values.total - 1e-9).all()
    assert (optimum.total >= model.exact_values(model.myopic()).total - 1e-9).all()
    # clicks and gifts grow with affinity under one policy for all; so do no follows
    clicks, _, gifts = model.exact_values("uniform").tasks
    assert (np.diff(clicks, axis=0) > 0).all() and (np.diff(gifts, axis=0) > 0).all()
    assert (clicks <= 1 / (1 - discount) + 1e-9).all()
    assert best.shape == (4, 4)


def test_limits():
    still = FunnelModel(discount=0.0)
    assert still.optimal()[0].tolist() == still.myopic().tolist()
    np.testing.assert_allclose(still.exact_values(1).total.ravel(), still.rewards()[1])
    # without forgetting, a pair's state after the outcome is its next state
    for kind in ("next_request", "post_update"):
        np.testing.assert_allclose(TEACHING.transitions(kind), TEACHING.transitions(), atol=1e-15)
    doubled = FunnelModel(gift_means=(4, 4, 8, 20))
    np.testing.assert_allclose(
        doubled.exact_values("uniform").tasks[2], 2 * TEACHING.exact_values("uniform").tasks[2]
    )
    # forgetting at every request: the pair starts as a stranger or nearly
    lost = FunnelModel(forgetting=1.0, gap_means=(50.0, 50, 50, 50)).gap_operator() / 0.95
    np.testing.assert_allclose(lost[3], [0.98**2, 0.02 * 0.98, 0.02, 0], atol=1e-12)


# Draws -------------------------------------------------------------------------------------------


def test_monte_carlo_of_the_uniform_policy_lands_on_its_value():
    n, steps = 40_000, 200
    log = TEACHING.log_dataset("uniform", n * steps, 3, steps=steps)
    discount = 0.95 ** np.arange(steps)
    returns, row = np.zeros(n), 0
    for first in range(0, n, 8192):
        size = min(8192, n - first)
        block = log["reward"][row : row + size * steps].reshape(steps, size)
        np.testing.assert_array_equal(log["pair"][row : row + size], np.arange(first, first + size))
        returns[first : first + size] = discount @ block
        row += size * steps
    error = returns.std(ddof=1) / np.sqrt(n)
    assert abs(returns.mean() - 2.194996) < 3 * error
    assert returns.mean() / error > 50  # a constant zero is nowhere near


@pytest.mark.parametrize("model", [TEACHING, FunnelModel(forgetting=0.05)])
def test_a_log_has_the_models_frequencies(model):
    policy = np.random.default_rng(1).dirichlet(np.ones(3), (4, 4))
    log = model.log_dataset(policy, 400_000, 5, start=(0.25, 0.25, 0.25, 0.25))
    state, action = log["state"].astype(int), log["action"].astype(int)
    visits = np.bincount(state, minlength=16)
    near = model.transitions("next_request") / model.gap_operator("post_update").max()
    exact = model.transitions() / model.discount
    for name, P in (("post_update", model.P), ("next_request", near), ("exact", exact)):
        for s in range(16):
            at = state == s
            spread = np.sqrt(0.25 / visits[s])
            share = np.bincount(action[at], minlength=3) / visits[s]
            assert np.abs(share - policy[s // 4, s % 4]).max() < 5 * spread
            for a in range(3):
                there = at & (action == a)
                count = there.sum()
                if count < 200:
                    continue
                found = np.bincount(log[name][there], minlength=16) / count
                want = (
                    P[a, s // 4, s % 4] if P.ndim == 4 else P[a, s, 4 * (s // 4) : 4 * (s // 4) + 4]
                )
                np.testing.assert_allclose(
                    found[4 * (s // 4) : 4 * (s // 4) + 4], want, atol=5 * np.sqrt(0.25 / count)
                )
    paid = 0.1 * log["click"] + 0.5 * log["follow"] + log["gift"] - model.boost_costs[action]
    np.testing.assert_allclose(log["reward"], paid, rtol=1e-5, atol=1e-6)
    assert log["gap"].min() >= 1
    for z in range(4):
        gaps = log["gap"][log["post_update"] % 4 == z]
        assert gaps.mean() == pytest.approx(model.gap_means[z], rel=0.03)
    followers = state % 4 >= 2
    assert not log["follow"][followers].any() and not log["gift"][~log["click"]].any()


def test_rows_of_a_pair_follow_each_other_in_time():
    model = FunnelModel(forgetting=0.05)
    log = model.log_dataset("uniform", 50_000, 2, steps=20)
    order = np.lexsort((np.arange(50_000), log["pair"]))
    pair = log["pair"][order]
    same = pair[1:] == pair[:-1]
    before, after = order[:-1][same], order[1:][same]
    np.testing.assert_array_equal(log["exact"][before], log["state"][after])
    np.testing.assert_allclose(
        log["time"][after] - log["time"][before], 0.2 * log["gap"][before], atol=1e-2
    )
    starts = order[np.concatenate([[True], ~same])]
    assert (log["state"][starts] % 4 == 0).all() and not log["time"][starts].any()


def test_the_same_seed_gives_the_same_log_and_another_does_not():
    one, two, other = (FORGETTING.log_dataset("uniform", 5000, s) for s in (7, 7, 8))
    assert all(np.array_equal(one[k], two[k]) for k in one)
    assert not np.array_equal(one["click"], other["click"])
    assert {len(v) for v in one.values()} == {5000}


def test_gifts_have_their_means():
    gifts = TEACHING.log_dataset(2, 400_000, 0, start=(0, 0, 0, 1))
    at = (gifts["gift"] > 0) & (gifts["state"] % 4 == 3)
    assert gifts["gift"][at].mean() == pytest.approx(10, rel=0.05)


def test_choices_draw_what_the_table_says():
    table = np.array([[0.5, 0.3, 0.2, 0, 0], [0, 0, 0, 0, 1], [1e-3, 0.2, 0.2, 0.2, 0.399]])
    drawn = Choices(table)
    # exact, from the columns themselves
    mass = np.zeros(15)
    for cell, accept in enumerate(drawn.accept):
        mass[drawn.sides[2 * cell]] += accept / drawn.columns
        mass[drawn.sides[2 * cell + 1]] += (1 - accept) / drawn.columns
    np.testing.assert_allclose(mass.reshape(3, 5), table, atol=1e-12)
    rng = np.random.default_rng(0)
    found = drawn.draw(rng, np.repeat([0, 1, 2], 20_000))
    share = np.bincount(found, minlength=15).reshape(3, 5) / 20_000
    np.testing.assert_allclose(share, table, atol=0.02)


# Faults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"forgetting": 1.5}, r"forgetting must be in \[0, 1\], got 1.5"),
        ({"discount": 1.0}, r"discount must be in \[0, 1\), got 1.0"),
        ({"discount": -0.1}, r"discount must be in \[0, 1\)"),
        ({"time_discount": 1.0}, r"time_discount must be in \(0, 1\)"),
        ({"time_discount": np.nan}, r"time_discount must be in \(0, 1\), got nan"),
        ({"forgetting": np.nan}, r"forgetting must be in \[0, 1\], got nan"),
        ({"gift_sigma": np.inf}, r"gift_sigma must be in \[0, 5\], got inf"),
        ({"irritation": (0, 0, np.nan)}, r"irritation must be in \[0, 0.9\]"),
        ({"boost_effects": (0, np.inf, 0)}, r"boost_effects must be in \(-inf, inf\)"),
        ({"follow": (np.nan, 0)}, r"follow must be in \(-inf, inf\)"),
        ({"boost_costs": (0, -0.1, 0)}, r"boost_costs must be in \[0, inf\)"),
        ({"boost_costs": (0, 0.1)}, "boost_costs must hold 3 numbers"),
        ({"gap_means": (0.5, 1, 1, 1)}, r"gap_means must be in \[1, inf\)"),
        ({"boost_costs": (0, np.inf, 0)}, r"boost_costs must be in \[0, inf\), got"),
        ({"click": (np.inf,) * 4}, r"click must be in \(-inf, inf\)"),
        ({"gift": (-np.inf,) * 4}, r"gift must be in \(-inf, inf\)"),
        ({"gift_means": (0, 1, 1, 1)}, r"gift_means must be in \(0, inf\)"),
        ({"gap_means": (np.inf,) * 4}, r"gap_means must be in \[1, inf\)"),
    ],
)
def test_bad_parameters_say_what_is_right(options, says):
    with pytest.raises(ValueError, match=says) as error:
        FunnelModel(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (np.zeros((4, 3), int), r"policy must have shape \(16, 3\)"),
        (np.full((4, 4, 2), 0.5), r"policy must have shape \(16, 3\)"),
        (3, r"policy must hold actions in 0..2"),
        (np.full((4, 4, 3), 0.5), "probabilities in .* sum to 1"),
        ("best", "policy must be 'uniform'"),
    ],
)
def test_bad_policies_say_what_is_right(policy, says):
    for call in (TEACHING.exact_values, lambda p: TEACHING.log_dataset(p, 10, 0)):
        with pytest.raises(ValueError, match=says) as error:
            call(policy)
        assert "\n" not in str(error.value)


def test_other_bad_calls():
    with pytest.raises(ValueError, match="next_state must be one of exact"):
        TEACHING.optimal("tomorrow")
    for n, steps in ((0, 50), (2.5, 50), (10, 0), (10, np.nan)):
        with pytest.raises(ValueError, match="must be (at least 1|a whole number), got"):
            TEACHING.log_dataset(0, n, 0, steps=steps)
    for start, says in (
        ((1.0, 0.0), "start must hold 4 numbers"),
        ((0.5, 0, 0, 0), "start must hold 4 probabilities that sum to 1"),
        ((np.nan, 0, 0, 1), r"start must be in \[0, 1\], got nan"),
    ):
        with pytest.raises(ValueError, match=says):
            TEACHING.log_dataset(0, 10, 0, start=start)
    assert policy_table([0, 1], 2, 2).tolist() == [[1, 0], [0, 1]]
