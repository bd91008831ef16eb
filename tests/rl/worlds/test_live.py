"""LiveAlloc: the sheet's exact numbers, a slow version, and draws held against them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.rl.worlds import live
from paperlab.rl.worlds.live import LiveModel

MODEL = LiveModel()


def sheet_grid(mu):
    """The grid behind the sheet's numbers: 2001 equal steps with equal weights at the ends."""
    xi = np.linspace(-3.5, 3.5, 2001)
    weight = np.exp(-(xi**2) / 2)
    return np.minimum(1200, np.exp(mu[:, None] + 1.2 * xi)), np.tile(weight / weight.sum(), (6, 1))


@pytest.fixture
def sheet(monkeypatch):
    monkeypatch.setattr(live, "watch_grid", sheet_grid)
    return LiveModel()


APP = [43.1718, 45.2833, 31.7332, 30.5137, 56.2281, 61.8509]


def test_values_of_the_sheet_on_its_own_grid(sheet):
    actions, Q = sheet.optimal()
    np.testing.assert_allclose(sheet.session(actions).app, APP, atol=6e-5)
    np.testing.assert_allclose(Q[:, 5], [3.630078, 3.991747], atol=1e-6)
    np.testing.assert_allclose(Q[:, 80], [1.500982, 1.378023], atol=1e-6)


def test_values_of_the_sheet_on_a_converged_grid():
    """The sheet's grid was coarse: its minutes are up to 2e-4 off, its Q up to 4e-6."""
    actions, Q = MODEL.optimal()
    np.testing.assert_allclose(MODEL.session(actions).app, APP, atol=2.5e-4)
    np.testing.assert_allclose(Q[:, 5], [3.630078, 3.991747], atol=1e-5)
    np.testing.assert_allclose(Q[:, 80], [1.500982, 1.378023], atol=1e-5)


@pytest.mark.parametrize(
    ("policy", "app", "live_minutes", "requests", "rates"),
    [
        (0, 42.17, 0, 21.09, [0] * 6),
        (1, 15.53, 5.22, 6.76, [1] * 6),
        ("uniform", 25.51, 5.59, 11.57, [0.5] * 6),
        (("paper", 0.0), 29.60, 5.19, 11.41, [1, 1, 1, 1, 0.14, 0]),
        (("paper", 0.9), 44.80, 9.82, 17.68, [0.64, 0.61, 0.54, 0.51, 0, 0]),
        (("live", 0.9), 34.78, 9.37, 14.45, [0.71, 0.61, 0.54, 0.51, 0.47, 0.61]),
        (("app", 0.9), 47.79, 8.99, 19.25, [0.64, 0.61, 0.17, 0, 0, 0]),
    ],
)
def test_sessions_of_the_sheet(policy, app, live_minutes, requests, rates):
    if isinstance(policy, tuple):
        policy, _ = MODEL.optimal(*policy)
    found = MODEL.session(policy)
    assert found.app.mean() == pytest.approx(app, abs=0.006)
    assert found.live.mean() == pytest.approx(live_minutes, abs=0.006)
    assert found.requests.mean() == pytest.approx(requests, abs=0.006)
    np.testing.assert_allclose(found.insertion, rates, atol=0.006)


def test_rewards_of_the_sheet():
    start = MODEL.starts()
    np.testing.assert_allclose(MODEL.R[0, 0], 0.214165, atol=5e-7)
    want = [0.7996, 0.7515, 0.4595, 0.3556, 0.1869, 0.1381]
    np.testing.assert_allclose(MODEL.R[0, 1, start], want, atol=6e-5)
    want = [0.7685, 0.6900, 0.4013, 0.2891, 0.1192, 0.0691]
    np.testing.assert_allclose(MODEL.p_engage[start], want, atol=6e-5)


def test_features_tell_all_states_apart():
    assert MODEL.features.shape == (90, 8) and len(np.unique(MODEL.features, axis=0)) == 90
    for state, seen in ((0, [-1, -1]), (14, [1, 1]), (75 + 5, [0, -1])):
        assert MODEL.features[state].tolist() == [*np.eye(6)[state // 15], *seen]


def test_moves_are_those_of_a_slow_version():
    P = MODEL.moves
    np.testing.assert_allclose(P.sum(-1), 1, atol=1e-12)
    for g in (0, 5):
        for i in range(3):
            for s in range(5):
                e = 1 / (1 + np.exp(-(MODEL.engage[g] + 0.8 * (i - 1) - 0.7 * s)))
                for a in (0, 1):
                    want = np.zeros((6, 3, 5))
                    p = 0.5 if a == 0 else 0.2 * e + 0.7 * (1 - e)
                    moved = max(s - 1, 0) if a == 0 else min(s + 1, 4)
                    for to_i, q in ((i, 0.8), (max(i - 1, 0), 0.1), (min(i + 1, 2), 0.1)):
                        want[g, to_i, s] += q * (1 - p)
                        want[g, to_i, moved] += q * p
                    np.testing.assert_allclose(P[a, 15 * g + 5 * i + s], want.ravel(), atol=1e-12)


def test_the_watch_grid_integrates():
    mu = np.array([4.6, 2.7])
    seconds, weight = live.watch_grid(mu)
    np.testing.assert_allclose(weight.sum(1), 1, atol=1e-12)
    xi = np.linspace(-3.5, 3.5, 400_001)
    fine = np.exp(-(xi**2) / 2)
    for m, t, w in zip(mu, seconds, weight, strict=True):
        want = np.average(np.minimum(1200, np.exp(m + 1.2 * xi)), weights=fine)
        assert (w * t).sum() == pytest.approx(want, rel=1e-5)


def test_whole_sessions_land_on_their_values():
    model = LiveModel()
    policy, _ = model.optimal()
    log = model.log_dataset(policy, 1_200_000, 1, horizon=1200)
    first = log["session"] < 1000  # of 1000 users, each first session: no length bias
    group = np.zeros(1000, int)
    group[log["session"][first]] = log["group"][first]
    want = model.session(policy)
    weights = 0.9 ** log["step"][first].astype(float)
    for amount, truth in (
        (log["app_seconds"][first] / 60, want.app),
        (log["live_seconds"][first] / 60, want.live),
        (np.ones(first.sum()), want.requests),
        (log["action"][first] * 1.0, want.insertion * want.requests),
        (log["paper"][first] * weights, want.value),
    ):
        total = np.bincount(log["session"][first], amount, 1000)
        error = np.sqrt(sum(total[group == g].var() / (group == g).sum() for g in range(6))) / 6
        found = np.mean([total[group == g].mean() for g in range(6)])
        assert abs(found - truth.mean()) < 3.5 * error
        assert error < 0.1 * truth.mean()


def test_a_log_has_the_models_frequencies():
    policy = np.random.default_rng(1).dirichlet(np.ones(2), 90)
    log = MODEL.log_dataset(policy, 300_000, 5)
    state, action = log["state"].astype(int), log["action"].astype(int)
    cell = 2 * state + action
    counts = np.bincount(cell, minlength=180)
    for c in np.flatnonzero(counts > 1500):
        at = cell == c
        found = np.bincount(log["next_state"][at], minlength=90) / counts[c]
        spread = 5 * np.sqrt(0.25 / counts[c])
        np.testing.assert_allclose(found, MODEL.moves[c % 2, c // 2], atol=spread)
        assert log["done"][at].mean() == pytest.approx(MODEL.p_leave[c // 2], abs=spread)
        assert log["paper"][at].mean() == pytest.approx(MODEL.R[0, c % 2, c // 2], abs=spread)
    np.testing.assert_array_equal(log["mu"], policy[state, action].astype(np.float32))
    assert not (log["done"] & log["truncated"]).any()


def seen_policy(seen):
    """Inserts more often where the noisy satiation looks low."""
    insert = 0.1 + 0.8 / (1 + np.exp(6 * (seen[:, 7] - 0.4)))
    return np.stack([1 - insert, insert], 1)


def test_a_log_of_an_observing_policy_holds_what_it_saw():
    log = MODEL.log_dataset(seen_policy, 40_000, 3, horizon=20)
    chance = seen_policy(log["obs"])[np.arange(40_000), log["action"]]
    np.testing.assert_allclose(log["mu"], chance, rtol=1e-6)
    order = np.lexsort((log["step"], log["session"]))
    goes_on = np.diff(log["session"][order]) == 0
    before, after = order[:-1][goes_on], order[1:][goes_on]
    assert len(before) > 20_000 and np.array_equal(log["next_obs"][before], log["obs"][after])
    noise = log["obs"][:, 6] - log["state"] % 15 // 5 / 2, log["obs"][:, 7] - log["state"] % 5 / 4
    for each in noise:
        assert abs(each.mean()) < 0.003 and each.std() == pytest.approx(0.1, abs=0.003)
    assert np.abs(np.corrcoef(noise)[0, 1]) < 0.03
    assert log["obs"][:, 8:].std() == pytest.approx(1, abs=0.01)
    ended = ~goes_on  # where a session is over, the next one starts at an observation of its own
    assert not np.array_equal(log["next_obs"][order[:-1][ended]], log["obs"][order[1:][ended]])


def test_an_observing_policy_is_worth_its_mean_over_the_noise():
    """Noise is drawn anew at every request, so that a table of means has the same value."""
    draw, each = np.random.default_rng(0), 2000
    seen = MODEL.observe(draw, np.arange(90).repeat(each)).astype(float)
    table = seen_policy(seen).reshape(90, each, 2).mean(1)
    log = MODEL.log_dataset(seen_policy, 400_000, 4, horizon=400)
    users = 1000
    first = log["session"] < users
    total = np.bincount(log["session"][first], (log["paper"] * 0.9 ** log["step"])[first], users)
    exact = MODEL.exact_values(table)["paper"][MODEL.starts()].mean()
    assert abs(total.mean() - exact) < 3.5 * total.std() / users**0.5 < 0.2
    cell = np.bincount(log["state"], log["action"], 90) / np.bincount(log["state"], minlength=90)
    often = np.bincount(log["state"], minlength=90) > 3000
    np.testing.assert_allclose(cell[often], table[often, 1], atol=0.05)


def test_the_next_request_of_a_session_starts_where_the_last_one_ended():
    log = MODEL.log_dataset("uniform", 30_000, 2, horizon=20)
    order = np.lexsort((log["step"], log["session"]))
    same = log["session"][order][1:] == log["session"][order][:-1]
    before, after = order[:-1][same], order[1:][same]
    np.testing.assert_array_equal(log["next_state"][before], log["state"][after])
    assert (log["step"][after] - log["step"][before] == 1).all() and log["step"].max() == 19
    assert not (log["done"] | log["truncated"])[before].any()


def test_same_seed_same_log():
    one, two, other = (MODEL.log_dataset("uniform", 5000, s) for s in (7, 7, 8))
    assert all(np.array_equal(one[k], two[k]) for k in one)
    assert not np.array_equal(one["live_seconds"], other["live_seconds"])


@settings(deadline=None, max_examples=15)
@given(st.floats(0, 0.95), st.sampled_from(["paper", "live", "app"]), st.integers(0, 99))
def test_no_policy_beats_the_optimum(discount, reward, seed):
    model = LiveModel(discount=discount)
    actions, Q = model.optimal(reward)
    policy = np.random.default_rng(seed).dirichlet(np.ones(2), 90)
    assert (Q.max(0) >= model.exact_values(policy)[reward] - 1e-9).all()
    np.testing.assert_array_equal(Q.argmax(0), actions)
    assert model.exact_values(actions)[reward] == pytest.approx(Q.max(0), abs=1e-9)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"discount": np.nan}, r"discount must be in \[0, 1\), got nan"),
        ({"recover": np.inf}, r"recover must be in \[0, 1\], got inf"),
        ({"watch": (np.inf,) * 6}, r"watch must be in \(-inf, inf\), got inf"),
        ({"video_seconds": (0.0,) * 6}, r"video_seconds must be in \(0, inf\)"),
        ({"discount": 1.2}, r"discount must be in \[0, 1\)"),
        ({"satiate": (0.2, 1.7)}, r"satiate must be in \[0, 1\]"),
        ({"engage": (1, 2)}, "engage must hold 6 numbers"),
    ],
)
def test_bad_parameters_say_what_is_right(options, says):
    with pytest.raises(ValueError, match=says) as error:
        LiveModel(**options)
    assert "\n" not in str(error.value)


def test_bad_calls():
    for policy in (np.zeros(5, int), np.full((90, 3), 1 / 3), 2, "best"):
        with pytest.raises(ValueError, match="policy must"):
            MODEL.exact_values(policy)
    with pytest.raises(ValueError, match="reward must be one of"):
        MODEL.optimal("time")
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        MODEL.log_dataset(0, 10, 0, horizon=0)
