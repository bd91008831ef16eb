"""Off-policy estimators: worked numbers, identities, and the exact value where the log is large."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import mdp, ope
from paperlab.rl.worlds.live import LiveModel

REWARD = np.array([1.0, 0.0, 2.0, 3.0, 1.0])
RATIO = np.array([0.5, 2.0, 1.0, 4.0, 0.25])
WHO, STEP = np.array([7, 7, 7, 3, 3]), np.array([0, 1, 2, 0, 1])
LAST = np.array([False, False, True, False, True])


def test_worked_numbers():
    whole = ope.ncis(REWARD, RATIO)
    assert whole.value == pytest.approx(14.75 / 7.75)
    assert whole.effective == pytest.approx([7.75**2 / (RATIO**2).sum()])
    assert ope.ncis(REWARD, RATIO, cap=1.0).value == pytest.approx(5.75 / 3.75)
    by_user = ope.ncis(REWARD, RATIO, trajectory=WHO)
    assert by_user.value == pytest.approx((2.5 / 3.5 + 12.25 / 4.25) / 2)
    assert by_user.effective == pytest.approx([4.25**2 / 16.0625, 3.5**2 / 5.25])
    # step 0: weights .5 and 4; step 1: 1 and 1; step 2: 1, and the ended one keeps 1
    found = ope.per_decision_wis(REWARD, RATIO, WHO, STEP, LAST, 0.5)
    assert found.value == pytest.approx(12.5 / 4.5 + 0.5 * (0 + 1) / 2 + 0.25 * 2 / 2)
    assert found.effective == pytest.approx([4.5**2 / 16.25, 2, 2])


def test_the_logging_policy_is_valued_at_what_the_log_earned():
    ones = np.ones(5)
    assert ope.ncis(REWARD, ones).value == pytest.approx(REWARD.mean())
    returns = [1 + 0 + 0.25 * 2, 3 + 0.5 * 1]
    found = ope.per_decision_wis(REWARD, ones, WHO, STEP, LAST, 0.5)
    assert found.value == pytest.approx(np.mean(returns)) and found.effective.tolist() == [2, 2, 2]


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_what_holds_for_any_log(seed):
    draw = np.random.default_rng(seed)
    n = draw.integers(1, 40)
    reward, ratio = draw.normal(size=n), draw.exponential(size=n) + 1e-3
    who = draw.integers(0, 5, n)
    value = ope.ncis(reward, ratio).value
    assert reward.min() - 1e-9 <= value <= reward.max() + 1e-9  # a weighted mean
    assert ope.ncis(reward, 3 * ratio).value == pytest.approx(value)  # in which scale cancels
    assert ope.ncis(reward, ratio, cap=1e-3).value == pytest.approx(reward.mean())
    order = draw.permutation(n)
    shuffled = ope.ncis(reward[order], ratio[order], 1.0, who[order])
    assert shuffled.value == pytest.approx(ope.ncis(reward, ratio, 1.0, who).value)
    # a uniform log of two actions: pi / mu = 2 pi, so that the released score is NCIS ...
    pi = draw.uniform(0.05, 1, n)
    same = ope.ncis(reward, pi / 0.5, trajectory=who).value
    assert ope.released_score(reward, pi, who).value == pytest.approx(same)


def test_the_released_score_is_another_number_for_any_other_log():
    pi, mu = np.array([0.9, 0.1, 0.5, 0.5]), np.array([0.9, 0.1, 0.5, 0.5])
    reward, who = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0, 0, 1, 1])
    assert ope.ncis(reward, pi / mu, trajectory=who).value == pytest.approx(0.5)
    assert ope.released_score(reward, pi, who).value == pytest.approx((0.9 + 0.5) / 2)


def slow_pdwis(reward, ratio, who, step, gamma):
    value = 0.0
    for t in range(step.max() + 1):
        above = below = 0.0
        for u in set(who):
            mine = (who == u) & (step <= t)
            w = np.prod(ratio[mine])
            now = (who == u) & (step == t)
            above += w * reward[now].sum()
            below += w
        value += gamma**t * above / below
    return value


def slow_dr(reward, ratio, q, v, who, step, gamma):
    total, users = 0.0, sorted(set(who))
    for t in range(step.max() + 1):
        weights, before = [], []
        for u in users:
            weights.append(np.prod(ratio[(who == u) & (step <= t)]))
            before.append(np.prod(ratio[(who == u) & (step < t)]))
        for k, u in enumerate(users):
            now = (who == u) & (step == t)
            missed = (reward[now] - q[now]).sum() * weights[k] / sum(weights)
            total += gamma**t * (missed + v[now].sum() * before[k] / sum(before))
    return total


def test_doubly_robust_by_hand_and_by_a_loop():
    # one step a trajectory: the mean of v, and what the model missed by the self-normalised weights
    q, v = np.array([0.5, 0.5, 1.0]), np.array([0.2, 0.4, 0.9])
    args = np.arange(3), np.zeros(3, int), np.ones(3, bool), 0.9
    found = ope.doubly_robust(REWARD[:3], np.array([1.0, 2.0, 5.0]), q, v, *args)
    assert found.value == pytest.approx(1.5 / 3 + (1 * 0.5 + 2 * -0.5 + 5 * 1.0) / 8)
    P, R, pi, mu = chain(4)
    log, draw = walk(P, R, mu, 30), np.random.default_rng(0)
    ratio = ope.ratios(pi, log["state"], log["action"], mu[log["state"], log["action"]])
    guess = draw.normal(size=(2, len(ratio)))
    order = log["trajectory"], log["step"]
    found = ope.doubly_robust(log["reward"], ratio, *guess, *order, log["done"], 0.8)
    assert found.value == pytest.approx(slow_dr(log["reward"], ratio, *guess, *order, 0.8))


def test_doubly_robust_without_a_model_is_weighted_importance_sampling():
    zero = np.zeros(5)
    plain = ope.per_decision_wis(REWARD, RATIO, WHO, STEP, LAST, 0.5)
    found = ope.doubly_robust(REWARD, RATIO, zero, zero, WHO, STEP, LAST, 0.5)
    assert found.value == pytest.approx(plain.value) and found.error == pytest.approx(plain.error)


def test_an_exact_model_takes_the_spread_away_and_a_wrong_one_does_no_harm():
    P, R, pi, mu = chain()
    log = walk(P, R, mu, 20_000)
    s, a = log["state"], log["action"]
    V = value(P, R, pi, 0.9)
    Q, v0 = R + 0.9 * P @ V, (pi * R.T).sum(1)[s]
    ratio = ope.ratios(pi, s, a, mu[s, a])
    order = log["trajectory"], log["step"], log["done"], 0.9
    plain = ope.per_decision_wis(log["reward"], ratio, *order)
    exact = ope.doubly_robust(log["reward"], ratio, Q[a, s], V[s], *order)
    wrong = ope.doubly_robust(log["reward"], ratio, 0.5 * Q[a, s], 0.5 * V[s], *order)
    once = log["step"] == 0  # where nothing follows, only the rewards' own noise is left
    first = log["trajectory"][once], np.zeros(once.sum(), int), np.ones(once.sum(), bool), 0.0
    bare = ope.per_decision_wis(log["reward"][once], ratio[once], *first)
    guided = ope.doubly_robust(log["reward"][once], ratio[once], R[a, s][once], v0[once], *first)
    assert guided.error == pytest.approx(0.1 / guided.effective[0] ** 0.5, rel=0.05)
    assert guided.error < 0.9 * bare.error and exact.error < plain.error
    for found in (plain, exact, wrong):
        assert abs(found.value - V[0]) < 4 * found.error < 0.2


def test_standard_errors_are_those_of_a_bootstrap_of_trajectories():
    P, R, pi, mu = chain(5)
    log, draw = walk(P, R, mu, 300), np.random.default_rng(1)
    ratio = ope.ratios(pi, log["state"], log["action"], mu[log["state"], log["action"]])
    rows = [np.flatnonzero(log["trajectory"] == u) for u in range(300)]

    def estimates(picked):
        at = np.concatenate([rows[u] for u in picked])
        who = np.repeat(np.arange(len(picked)), [len(rows[u]) for u in picked])
        args = log["reward"][at], ratio[at], who, log["step"][at], log["done"][at], 0.9
        return (
            ope.per_decision_wis(*args),
            ope.doubly_robust(*args[:2], args[0] * 0.3, args[0] * 0.2, *args[2:]),
            ope.ncis(*args[:2], trajectory=who),
        )

    drawn = [[e.value for e in estimates(draw.integers(0, 300, 300))] for _ in range(300)]
    for found, spread in zip(estimates(range(300)), np.std(drawn, 0), strict=True):
        assert found.error == pytest.approx(spread, rel=0.25)
        assert found.influence.sum() == pytest.approx(0, abs=1e-9)
    whole = ope.ncis(REWARD, RATIO)
    assert whole.influence.sum() == pytest.approx(0, abs=1e-12)
    assert np.isnan(ope.ncis([1.0], [1.0]).error)


def chain(seed=0, S=3, A=2):
    draw = np.random.default_rng(seed)
    P = draw.dirichlet(np.ones(S), (A, S)) * draw.uniform(0.6, 0.9, (A, S, 1))
    return (
        P,
        draw.uniform(0, 1, (A, S)),
        draw.dirichlet(np.ones(A), S),
        draw.dirichlet(2 * np.ones(A), S),
    )


def walk(P, R, mu, n, seed=1):
    """n trajectories from state 0 to their end."""
    S = P.shape[1]
    draw = np.random.default_rng(seed)
    full = np.concatenate([P, 1 - P.sum(-1, keepdims=True)], -1).cumsum(-1)
    s, who, t, parts = np.zeros(n, int), np.arange(n), 0, []
    while len(s):
        a = (draw.random(len(s)) > mu[s, 0]).astype(int)
        after = (draw.random((len(s), 1)) > full[a, s]).sum(-1)
        parts.append(
            (s, a, R[a, s] + draw.normal(0, 0.1, len(s)), after % S, after == S, who, s * 0 + t)
        )
        s, who, t = after[after < S], who[after < S], t + 1
    names = ("state", "action", "reward", "next_state", "done", "trajectory", "step")
    return dict(zip(names, map(np.concatenate, zip(*parts, strict=True)), strict=True))


def value(P, R, policy, gamma):
    step = np.einsum("sa,ast->st", policy, P)
    return np.linalg.solve(np.eye(len(step)) - gamma * step, (policy * R.T).sum(1))


def test_estimates_meet_the_exact_value_on_a_large_log():
    P, R, pi, mu = chain()
    log = walk(P, R, mu, 60_000)
    ratio = ope.ratios(pi, log["state"], log["action"], mu[log["state"], log["action"]])
    exact = value(P, R, pi, 0.9)[0]
    order = log["trajectory"], log["step"], log["done"]
    found = ope.per_decision_wis(log["reward"], ratio, *order, 0.9)
    assert found.value == pytest.approx(exact, rel=0.02)
    counts = mdp.count(*(log[k] for k in ("state", "action", "reward", "next_state", "done")), 3, 2)
    assert ope.fqe(counts, pi, 0.9)[0] == pytest.approx(exact, rel=0.01)
    plain = value(P, R, mu, 0.9)[0]
    assert abs(plain - exact) / exact > 0.03  # so that the log's own return would not pass


def test_a_live_log_values_its_own_policy_exactly_if_broken_sessions_stay_out():
    """A log breaks off each user's last session; the short ones, which end in time, are not alike."""
    model = LiveModel()
    mu = np.stack([1 - (p := 0.1 + 0.8 * model.p_engage), p], 1)
    log = model.log_dataset(mu, 60_000, seed=3)
    exact = model.exact_values(mu)["paper"][model.starts()].mean()
    users, ended = 1200, log["done"] | log["truncated"]

    def estimate(rows):
        picked = [log[k][rows] for k in ("paper", "session", "step")]
        ratio = ope.ratios(mu, log["state"][rows], log["action"][rows], log["mu"][rows])
        return ope.per_decision_wis(picked[0], ratio, *picked[1:], ended[rows], 0.9).value

    first = log["session"] < users
    earned = np.bincount(log["session"], log["paper"] * 0.9 ** log["step"])
    spread = 4 * earned[:users].std() / users**0.5
    assert estimate(first) == pytest.approx(exact, abs=spread)
    in_time = np.isin(log["session"], log["session"][ended])
    assert exact - estimate(in_time) > 0.03  # choosing by how a session went is no way out
    with pytest.raises(ValueError, match="ended must be True"):
        estimate(np.full(len(first), True))


def test_per_decision_weights_equal_a_loop_over_trajectories():
    P, R, pi, mu = chain(3)
    log = walk(P, R, mu, 40)
    ratio = ope.ratios(pi, log["state"], log["action"], mu[log["state"], log["action"]])
    args = log["reward"], ratio, log["trajectory"], log["step"]
    assert ope.per_decision_wis(*args, log["done"], 0.8).value == pytest.approx(
        slow_pdwis(*args, 0.8)
    )


def test_fqe_is_where_repeated_regression_comes_to_rest():
    P, R, pi, _ = chain(2)
    counts, q = mdp.Counts(P, R, np.ones((2, 3), int)), np.zeros_like(R)
    for _ in range(400):
        q = R + 0.9 * P @ (pi * q.T).sum(1)
    np.testing.assert_allclose(ope.fqe(counts, pi, 0.9), (pi * q.T).sum(1), atol=1e-9)
    np.testing.assert_allclose(ope.fqe(counts, pi, 0.0), (pi * R.T).sum(1))


def test_fqe_leaves_out_what_the_log_never_did():
    P, R, pi, _ = chain(2)
    visits = np.array([[1, 0, 4], [1, 3, 2]])  # action 0 is unknown in state 1
    kept = pi.copy()
    kept[1] = 0, 1
    found = ope.fqe(mdp.Counts(P, R, visits), pi, 0.9)
    np.testing.assert_allclose(found, value(P, R, kept, 0.9))


def test_counting_by_hand():
    found = mdp.count(
        np.array([0, 0, 1]), np.array([1, 1, 0]), np.array([1.0, 3, 5]), np.array([1, 0, 0]),
        np.array([False, True, False]), 2, 2,
    )  # fmt: skip
    assert found.transition[1, 0].tolist() == [0, 0.5] and found.transition[0, 1].tolist() == [1, 0]
    assert found.reward.tolist() == [[0, 5], [2, 0]] and found.visits.tolist() == [[0, 1], [2, 0]]


@pytest.mark.parametrize("ratio", [1e-300, 0.1, 0.5, 1.0, 4.0, 10.0, 1e300])
@pytest.mark.parametrize("steps", [1, 400, 2000])
def test_products_of_ratios_neither_overflow_nor_vanish(ratio, steps):
    """All weights of a step are equal, so that the value is the number of steps."""
    n = 3
    order = np.repeat(np.arange(n), steps), np.tile(np.arange(steps), n)
    last = order[1] == steps - 1
    found = ope.per_decision_wis(np.ones(n * steps), np.full(n * steps, ratio), *order, last, 1.0)
    assert found.value == pytest.approx(steps) and found.effective == pytest.approx(n)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_scaling_one_steps_ratios_changes_nothing(seed):
    draw = np.random.default_rng(seed)
    n, steps = 5, 30
    order = np.repeat(np.arange(n), steps), np.tile(np.arange(steps), n)
    ratio, reward = draw.exponential(size=n * steps) + 1e-3, draw.normal(size=n * steps)
    scale = 10 ** draw.uniform(-200, 200, steps)
    args = *order, order[1] == steps - 1, 0.9
    plain, scaled = (
        ope.per_decision_wis(reward, w, *args) for w in (ratio, ratio * scale[order[1]])
    )
    assert scaled.value == pytest.approx(plain.value, rel=1e-9)
    assert scaled.effective == pytest.approx(plain.effective, rel=1e-9)
    assert np.all((plain.effective >= 1 - 1e-9) & (plain.effective <= n + 1e-9))


def test_huge_and_tiny_weights_of_one_step():
    assert ope.ncis([1.0, 0.0], [1e308, 1e308]).value == pytest.approx(0.5)
    assert ope.ncis([1.0, 0.0], [1e-308, 3e-308]).value == pytest.approx(0.25)
    who = np.array([0, 0, 1, 1])  # each trajectory at a scale of its own
    found = ope.ncis([1.0, 0.0, 1.0, 0.0], [1e-300, 1e-300, 3e300, 1e300], trajectory=who)
    assert found.value == pytest.approx((0.5 + 0.75) / 2)
    assert found.effective == pytest.approx([2, 16 / 10])


def test_weights_of_zero_say_nothing_and_are_warned_of():
    with pytest.warns(UserWarning, match="all weights are 0 in 1 of 1"):
        assert np.isnan(ope.ncis([1.0, 1.0], [0.0, 0.0]).value)
    who = np.array([0, 0, 1])
    with pytest.warns(UserWarning, match="all weights are 0 in 1 of 2 trajectories"):
        found = ope.ncis([1.0, 0.0, 1.0], [1.0, 3.0, 0.0], trajectory=who)
    assert found.value == pytest.approx(0.25) and len(found.effective) == 1
    with pytest.warns(UserWarning, match="all weights are 0 in 2 of 2 trajectories"):
        assert np.isnan(ope.released_score([1.0, 1.0, 1.0], [0.0, 0.0, 0.0], who).value)
    last, step = np.array([False, True, True]), np.array([0, 1, 0])
    with pytest.warns(UserWarning, match="all weights are 0 in 2 of 2 steps"):
        found = ope.per_decision_wis([1.0, 1.0, 1.0], [0.0, 1.0, 0.0], who, step, last, 0.9)
    assert np.isnan(found.value) and found.effective.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ope.ratios(np.ones((1, 1)), [0, 0], [0, 0], [0.5, 0.0]), r"mu must hold a propensity in \(0, 1\]"),
        (lambda: ope.ratios(np.ones((1, 1)), [0, 0], [0, 0], [0.5, np.nan]), "mu must hold"),
        (lambda: ope.ratios(np.ones((1, 1)), [0, 0], [0, 0], [0.5]), "mu must hold"),
        (lambda: ope.ratios(np.ones((1, 1)), [0, 0], [0, 0], None), "mu must hold a propensity"),
        (lambda: ope.ratios(np.ones((1, 1)), [0, 0], [0, 0], 0.5), "mu must hold a propensity"),
        (lambda: ope.ratios(np.full((1, 2), 0.5), [0, 1], [0, 0], [0.5, 0.5]), r"state must hold integers in 0..0"),
        (lambda: ope.ratios(np.full((1, 2), 0.5), [0, 0], [0, -1], [0.5, 0.5]), r"action must hold integers in 0..1"),
        (lambda: ope.ratios(np.full((1, 2), 0.5), [0, 0], [0, 1.0], [0.5, 0.5]), "action must hold integers"),
        (lambda: ope.ratios(np.ones((1, 2)), [0, 0], [0, 1], [0.5, 0.5]), "policy must hold probabilities"),
        (lambda: ope.ratios(np.array([[np.nan, 1]]), [0, 0], [0, 1], [0.5, 0.5]), "policy must hold probabilities"),
        (lambda: ope.ncis(REWARD[:0], RATIO[:0]), "the log must hold at least one row"),
        (lambda: ope.per_decision_wis(*(x[:0] for x in (REWARD, RATIO, WHO, STEP, LAST)), 0.5), "at least one row"),
        (lambda: ope.per_decision_wis(REWARD, RATIO, WHO, STEP - 1, LAST, 0.5), "step must hold integers in 0.."),
        (lambda: ope.per_decision_wis(REWARD, RATIO, WHO, STEP, LAST, np.nan), r"gamma must be in \[0, 1\], got nan"),
        (lambda: mdp.count([0, 2], [0, 0], [1.0, 1.0], [0, 0], [False, True], 2, 1), r"state must hold integers in 0..1"),
        (lambda: mdp.count([0, 1], [0, -1], [1.0, 1.0], [0, 0], [False, True], 2, 1), r"action must hold integers in 0..0"),
        (lambda: mdp.count([0, 1], [0, 0], [1.0, np.nan], [0, 0], [False, True], 2, 1), "reward must hold a finite"),
        (lambda: mdp.count([0, 1], [0, 0], [1.0], [0, 0], [False, True], 2, 1), "must have one length"),
        (lambda: mdp.Choices(np.array([[0.0, 0.0]])), "table must hold finite numbers >= 0, in every row one above 0"),
        (lambda: mdp.Choices(np.array([[1.0, np.nan]])), "table must hold finite numbers >= 0"),
        (lambda: ope.fqe(mdp.Counts(np.zeros((1, 1, 1)), np.zeros((1, 1)), np.ones((1, 1))),
                         np.array([[np.nan]]), 0.9), "policy must hold probabilities"),
        (lambda: ope.ncis(REWARD, RATIO, cap=0.0), "cap must be above 0, got 0.0"),
        (lambda: ope.ncis(REWARD, RATIO[:3]), "ratio must hold a finite number >= 0"),
        (lambda: ope.ncis(REWARD, RATIO, cap=np.nan), "cap must be above 0, got nan"),
        (lambda: ope.ncis(REWARD + np.inf, RATIO), "reward must hold a finite number"),
        (lambda: ope.ncis(REWARD, RATIO * np.inf), "ratio must hold a finite number >= 0"),
        (lambda: ope.ncis(REWARD, -RATIO), "ratio must hold a finite number >= 0"),
        (lambda: ope.per_decision_wis(REWARD, RATIO, WHO, STEP, LAST, 1.5), r"gamma must be in \[0, 1\], got 1.5"),
        (lambda: ope.per_decision_wis(REWARD, RATIO, WHO, STEP + 1, LAST, 0.5), "step must count"),
        (lambda: ope.per_decision_wis(REWARD, RATIO, WHO * 0, STEP, LAST, 0.5), "step must count"),
        (lambda: ope.per_decision_wis(REWARD, RATIO, WHO, STEP, LAST & (WHO == 7), 0.5), "ended must be True on the last"),
        (lambda: ope.per_decision_wis(REWARD, RATIO, WHO, STEP, LAST | (STEP == 0), 0.5), "ended must be True on the last"),
        (lambda: ope.doubly_robust(REWARD, RATIO, REWARD[:2], RATIO, WHO, STEP, LAST, 0.5), "q must hold a finite number"),
        (lambda: ope.doubly_robust(REWARD, RATIO, REWARD, RATIO * np.nan, WHO, STEP, LAST, 0.5), "v must hold a finite"),
        (lambda: ope.fqe(mdp.Counts(np.zeros((2, 1, 1)), np.zeros((2, 1)), np.array([[5], [0]])),
                         np.array([[0.0, 1.0]]), 0.9), "policy must act where the log did in every state"),
        (lambda: ope.fqe(mdp.Counts(np.zeros((1, 1, 1)), np.zeros((1, 1)), np.ones((1, 1))),
                         np.ones((1, 1)), 1.0), r"gamma must be in \[0, 1\), got 1.0"),
    ],
)  # fmt: skip
def test_bad_values_say_what_is_right(make, says):
    with pytest.raises(ValueError, match=says) as error:
        make()
    assert "\n" not in str(error.value)
