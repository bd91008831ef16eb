"""UserAuthorSlate: the population, the competition, and the funnel inside."""

import numpy as np
import pytest
from paperlab.rl.worlds.slate import Population, UserAuthorSlate, gini


def test_the_population_is_as_the_sheet_says():
    people = Population(300, 80, 0)
    assert np.bincount(people.k.ravel(), minlength=4).tolist() == [6000] * 4  # quartiles
    order = np.argsort(people.score, axis=None)
    assert (np.diff(people.k.ravel()[order]) >= 0).all()
    sizes = np.sort(people.popularity)[::-1]
    np.testing.assert_allclose(sizes / sizes[0], np.arange(1, 81) ** -1.1, rtol=1e-9)
    assert people.b.mean() == pytest.approx(0, abs=1e-9) and people.b.std() == pytest.approx(1)
    exact = Population(300, 80, 0, noise=0.0)
    score = exact.users @ exact.authors.T / np.sqrt(8) + 0.3 * exact.b
    np.testing.assert_allclose(score, exact.score, atol=1e-5)
    assert np.abs(people.users - exact.users).std() == pytest.approx(0.3 * 0.6, abs=0.02)


def run(env, steps, level=0, seed=0):
    rng = np.random.default_rng(1)
    seen, info = env.reset(seed=seed)
    rows = []
    for _ in range(steps):
        if level is None:
            action = rng.integers(0, 3, (env.num_envs, env.candidates))
        else:
            action = np.full((env.num_envs, env.candidates), level)
        before, slate = env.z.copy(), info["candidates"]
        seen, reward, _, truncated, info = env.step(action)
        rows.append((before, slate, action, seen, reward, truncated, info))
    return rows


def test_a_step_does_to_the_pair_what_the_funnel_does_and_pays_it():
    env = UserAuthorSlate(200, 60, horizon=1000)
    users = np.arange(200)
    counts = np.zeros((4, 200, 60))
    for before, slate, action, seen, reward, truncated, info in run(env, 30, None):
        author = info["author"]
        place = (slate == author[:, None]).argmax(1)
        assert (slate[users, place] == author).all()
        assert (np.diff(np.sort(slate, 1), axis=1) > 0).all()  # no repeats
        np.testing.assert_array_equal(info["boost"], action[users, place])
        paid = 0.1 * info["click"] + 0.5 * info["follow"] + info["gift"]
        np.testing.assert_allclose(reward, paid - env.model.boost_costs[info["boost"]], atol=1e-5)
        assert not truncated.any() and not info["follow"][before[users, author] >= 2].any()
        counts[:, users, author] += [np.ones(200), info["click"], info["follow"], info["gift"] > 0]
        np.testing.assert_array_equal(
            seen[..., 17:21], np.moveaxis(counts[:, users[:, None], info["candidates"]], 0, -1)
        )
    assert env.observation_space.contains(seen) and seen.dtype == np.float32


def test_clicks_have_the_funnels_rate():
    env = UserAuthorSlate(3000, 40, horizon=1000)
    _, info = env.reset(seed=2)
    action = np.random.default_rng(0).integers(0, 3, (3000, 10))
    k = env.people.k
    _, _, _, _, info = env.step(action)
    rate = env.model.p_click[info["boost"], k[np.arange(3000), info["author"]], 0]
    error = np.sqrt((rate * (1 - rate)).sum())
    assert abs(info["click"].sum() - rate.sum()) < 4 * error


def test_a_boost_wins_the_place_more_often():
    env = UserAuthorSlate(4000, 40)
    env.reset(seed=0)
    action = np.zeros((4000, 10), int)
    action[:, 0] = 2
    pull = env.people.score[np.arange(4000)[:, None], env.slate] + np.log(np.where(action, 2.5, 1))
    chance = np.exp(pull[:, 0]) / np.exp(pull).sum(1)
    first = env.slate[:, 0].copy()
    _, _, _, _, info = env.step(action)
    won = (info["author"] == first).mean()
    assert abs(won - chance.mean()) < 4 * np.sqrt(chance.mean() / 4000)
    assert won > 0.14


def test_followed_authors_come_back_as_often_as_their_gaps_say():
    env = UserAuthorSlate(3000, 40)
    env.reset(seed=0)
    for z, gap in ((2, 8), (3, 4)):
        env.z[:] = 0
        env.z[:, 5] = z
        env._meet()
        share = (env.slate == 5).any(1).mean()
        assert abs(share - 1 / gap) < 4 * np.sqrt(0.25 / 3000)


def test_the_relation_can_be_hidden_and_recencies_count_requests():
    seen, hidden = (UserAuthorSlate(200, 20, observe_z=o) for o in (True, False))
    a, b = run(seen, 15), run(hidden, 15)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x[3][..., :24], y[3][..., :24])
    assert a[-1][3][..., 24:].any() and not b[-1][3][..., 24:].any()
    z = seen.z[np.arange(200)[:, None], seen.slate]
    np.testing.assert_array_equal(a[-1][3][..., 24:], z[..., None] == [1, 2, 3])
    last = a[-1][3][..., 22]
    never = a[-1][3][..., 17] == 0
    assert (last[never] == -1).all() and (last[~never] >= 0).all()
    shown = a[-1][6]["candidates"] == a[-1][6]["author"][:, None]
    assert shown.any() and (last[shown] == 0).all()


def test_forgetting_and_episodes():
    env = UserAuthorSlate(300, 20, horizon=3, forgetting=1.0)
    rows = run(env, 5)
    assert rows[2][5].all() and not rows[1][5].any()
    assert rows[3][6]["fresh"].all() and not rows[3][4].any()  # begins anew, pays nothing
    assert env.requests == 1
    assert (env.z <= 2).all()  # what a step gave, the same request took a level of


def test_same_seed_same_life():
    one, two, other = (run(UserAuthorSlate(50, 20), 5, seed=s)[-1][3] for s in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_gini_by_hand():
    assert gini([1, 1, 1, 1]) == pytest.approx(0)
    assert gini([0, 0, 0, 1]) == pytest.approx(0.75)
    assert gini([1, 3]) == pytest.approx(0.25)
    values = np.random.default_rng(0).exponential(size=200)
    pairs = np.abs(values[:, None] - values).mean() / (2 * values.mean())
    assert gini(values) == pytest.approx(pairs)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"candidates": 200}, "candidates must be in 1..n_authors"),
        ({"n_users": 0}, "n_users and n_authors must be at least 1"),
        ({"zipf": -1}, r"zipf must be in \[0, inf\)"),
        ({"heavy_tail": True}, "belong to the pair-level funnel"),
        ({"forgetting": 2}, r"forgetting must be in \[0, 1\]"),
        (
            {"boost_effects": (0, 1, 2, 3), "boost_costs": (0, 0, 0, 0), "irritation": (0,) * 4},
            "at most 3",
        ),
    ],
)
def test_bad_arguments(options, says):
    with pytest.raises(ValueError, match=says):
        UserAuthorSlate(**options)
    with pytest.raises(ValueError, match="amounts must be at least 0"):
        gini([0, 0])
