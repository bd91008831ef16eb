"""UserAuthorSlate: the population, the competition, and the funnel inside."""

import numpy as np
import pytest
from paperlab.rl.worlds.slate import CANDIDATES, UserAuthorSlate, gini


def test_the_population_is_as_the_sheet_says():
    people = UserAuthorSlate(300, 80)
    assert np.bincount(people.k.ravel(), minlength=4).tolist() == [6000] * 4  # quartiles
    order = np.argsort(people.affinity, axis=None)
    assert (np.diff(people.k.ravel()[order]) >= 0).all()
    sizes = np.sort(people.popularity)[::-1]
    np.testing.assert_allclose(sizes / sizes[0], np.arange(1, 81) ** -1.1, rtol=1e-9)
    popular, rest = people.popularity.argmax(), people.popularity.argmin()
    lift = (people.affinity[:, popular] - people.affinity[:, rest]).mean()
    b = np.log(people.popularity)
    assert lift == pytest.approx(0.3 * (b.max() - b.min()) / b.std(), abs=0.3)


def run(env, steps, level=0, seed=0):
    rng = np.random.default_rng(1)
    seen, info = env.reset(seed=seed)
    rows = []
    for _ in range(steps):
        if level is None:
            action = rng.integers(0, 3, (env.num_envs, CANDIDATES))
        else:
            action = np.full((env.num_envs, CANDIDATES), level)
        before, slate = env.z.copy(), info["candidates"]
        seen, reward, _, truncated, info = env.step(action)
        rows.append((before, slate, action, seen, reward, truncated, info))
    return rows


def test_a_step_does_to_the_pair_what_the_funnel_does_and_pays_it():
    env = UserAuthorSlate(200, 60, horizon=1000)
    users = np.arange(200)
    rows = run(env, 30, None)
    last = rows[-1][-1]
    for before, slate, action, seen, reward, truncated, info in rows:
        author = info["author"]
        place = (slate == author[:, None]).argmax(1)
        assert (slate[users, place] == author).all()
        assert (np.diff(np.sort(slate, 1), axis=1) > 0).all()  # no repeats
        np.testing.assert_array_equal(info["boost"], action[users, place])
        paid = 0.1 * info["click"] + 0.5 * info["follow"] + info["gift"]
        np.testing.assert_allclose(reward, paid - env.model.boost_costs[info["boost"]], atol=1e-5)
        assert not truncated.any() and not info["follow"][before[users, author] >= 2].any()
        want = env.z[users[:, None], info["candidates"]] if info is last else seen
        np.testing.assert_array_equal(seen, want)
    assert env.observation_space.contains(seen)


def test_clicks_have_the_funnels_rate():
    env = UserAuthorSlate(3000, 40, horizon=1000)
    _, info = env.reset(seed=2)
    action = np.random.default_rng(0).integers(0, 3, (3000, 10))
    k = env.k
    _, _, _, _, info = env.step(action)
    rate = env.model.p_click[info["boost"], k[np.arange(3000), info["author"]], 0]
    error = np.sqrt((rate * (1 - rate)).sum())
    assert abs(info["click"].sum() - rate.sum()) < 4 * error


def test_a_boost_wins_the_place_more_often():
    env = UserAuthorSlate(4000, 40)
    env.reset(seed=0)
    action = np.zeros((4000, 10), int)
    action[:, 0] = 2
    pull = env.affinity[np.arange(4000)[:, None], env.slate] + np.log(np.where(action, 2.5, 1))
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


def test_forgetting_and_episodes():
    env = UserAuthorSlate(300, 20, horizon=3, forgetting=1.0)
    rows = run(env, 5)
    assert rows[2][5].all() and not rows[1][5].any()
    assert rows[3][6]["fresh"].all() and not rows[3][4].any()  # begins anew, pays nothing
    assert env.requests == 1
    assert (env.z <= 2).all()  # what a step gave, the same request took a level of


def test_same_seed_same_life():
    one, two, other = (run(UserAuthorSlate(50, 20), 5, seed=s)[-1][4] for s in (1, 1, 2))
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
        ({"n_authors": 9}, "n_authors must be at least 10, got 9"),
        ({"n_users": 0}, "n_users must be at least 1"),
        ({"horizon": np.nan}, "horizon must be a whole number, got nan"),
        ({"lost_after": 9}, "belongs to the pair-level funnel"),
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
    for amounts in ([0, 0], [-1, 2], [np.nan, 1], [1, np.inf], []):
        with pytest.raises(ValueError, match="amounts must be finite, at least 0"):
            gini(amounts)


@pytest.mark.parametrize("wrong", [3, -1, 0.5, np.nan])
def test_actions_outside_their_space_are_refused(wrong):
    env = UserAuthorSlate(20, 15)
    env.reset(seed=0)
    actions = np.zeros((20, CANDIDATES), type(wrong))
    actions[3, 4] = wrong
    for given in (actions, np.zeros((20, 3), int), np.zeros(20, int)):
        with pytest.raises(
            ValueError, match=r"actions must be integers in 0..2 of shape \(20, 10\)"
        ):
            env.step(given)
    assert env.requests == 0
