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


def run(env, steps, level=0):
    rng, rows = np.random.default_rng(1), []
    for _ in range(steps):
        boosts = np.full((len(env.slate), CANDIDATES), level or 0)
        if level is None:
            boosts = rng.integers(0, 3, boosts.shape)
        before, slate = env.z.copy(), env.slate
        rows.append((before, slate, boosts, env.states(), env.serve(boosts)))
    return rows


def test_a_request_does_to_the_pair_what_the_funnel_does_and_pays_it():
    env = UserAuthorSlate(200, 60)
    users = np.arange(200)
    # the rows of states() are those before the request: evaluation goes from left to right
    for before, slate, boosts, states, seen in run(env, 30, None):
        author = seen["author"]
        place = (slate == author[:, None]).argmax(1)
        assert (slate[users, place] == author).all()
        assert (np.diff(np.sort(slate, 1), axis=1) > 0).all()  # no repeats
        np.testing.assert_array_equal(seen["boost"], boosts[users, place])
        at = users[:, None], slate
        np.testing.assert_array_equal(states, 4 * env.k[at] + before[at])
        paid = 0.1 * seen["click"] + 0.5 * seen["follow"] + seen["gift"]
        cost = env.model.boost_costs[seen["boost"]]
        np.testing.assert_allclose(seen["reward"], paid - cost, atol=1e-5)
        assert not seen["follow"][before[users, author] >= 2].any()


def test_clicks_have_the_funnels_rate():
    env = UserAuthorSlate(3000, 40, seed=2)
    k = env.k
    seen = env.serve(np.random.default_rng(0).integers(0, 3, (3000, 10)))
    rate = env.model.p_click[seen["boost"], k[np.arange(3000), seen["author"]], 0]
    error = np.sqrt((rate * (1 - rate)).sum())
    assert abs(seen["click"].sum() - rate.sum()) < 4 * error


def test_a_boost_wins_the_place_more_often():
    env = UserAuthorSlate(4000, 40)
    boosts = np.zeros((4000, 10), int)
    boosts[:, 0] = 2
    pull = env.affinity[np.arange(4000)[:, None], env.slate] + np.log(np.where(boosts, 2.5, 1))
    chance = np.exp(pull[:, 0]) / np.exp(pull).sum(1)
    first = env.slate[:, 0].copy()
    won = (env.serve(boosts)["author"] == first).mean()
    assert abs(won - chance.mean()) < 4 * np.sqrt(chance.mean() / 4000)
    assert won > 0.14


def test_followed_authors_come_back_as_often_as_their_gaps_say():
    env = UserAuthorSlate(3000, 40)
    for z, gap in ((2, 8), (3, 4)):
        env.z[:] = 0
        env.z[:, 5] = z
        env.meet()
        share = (env.slate == 5).any(1).mean()
        assert abs(share - 1 / gap) < 4 * np.sqrt(0.25 / 3000)


def test_what_a_request_gave_the_same_request_forgets():
    env = UserAuthorSlate(300, 20, forgetting=1.0)
    run(env, 3, 2)
    assert (env.z <= 2).all()
    run(kept := UserAuthorSlate(300, 20), 3, 2)
    assert kept.z.sum() > env.z.sum()


def test_same_seed_same_life():
    one, two, other = (run(UserAuthorSlate(50, 20, seed=s), 5)[-1][-1]["reward"] for s in (1, 1, 2))
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
        ({"n_users": np.nan}, "n_users must be a whole number, got nan"),
        ({"forgetting": 2}, r"forgetting must be in \[0, 1\]"),
    ],
)
def test_bad_arguments(options, says):
    with pytest.raises(ValueError, match=says):
        UserAuthorSlate(**options)
    for amounts in ([0, 0], [-1, 2], [np.nan, 1], [1, np.inf], []):
        with pytest.raises(ValueError, match="amounts must be finite, at least 0"):
            gini(amounts)


@pytest.mark.parametrize("wrong", [3, -1, 0.5, np.nan])
def test_boosts_outside_their_range_are_refused(wrong):
    env = UserAuthorSlate(20, 15)
    boosts = np.zeros((20, CANDIDATES), type(wrong))
    boosts[3, 4] = wrong
    before = env.slate.copy()
    for given in (boosts, np.zeros((20, 3), int), np.zeros(20, int)):
        with pytest.raises(
            ValueError, match=r"actions must be integers in 0..2 of shape \(20, 10\)"
        ):
            env.serve(given)
    np.testing.assert_array_equal(env.slate, before)
