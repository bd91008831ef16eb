"""Both environments behind Gymnasium's interfaces."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from paperlab.bench import environments as bench
from paperlab.rl.worlds.environments import WorldEnv, WorldVectorEnv
from paperlab.rl.worlds.funnel import FunnelModel
from paperlab.rl.worlds.live import LiveModel

WORLDS = [FunnelModel(), LiveModel()]
IDS = ("UserAuthorFunnel-v0", "LiveAlloc-v0")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", IDS)
def test_gymnasiums_checker_has_nothing_to_say(name):
    check_env(gymnasium.make(name).unwrapped)


@pytest.mark.parametrize("name", IDS)
def test_ids_make_one_and_many(name):
    env = gymnasium.make(name, horizon=4)
    seen, _ = env.reset(seed=3)
    assert seen.dtype == np.float32 and env.observation_space.contains(seen)
    many = gymnasium.make_vec(name, num_envs=7, horizon=4)
    assert many.unwrapped.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    seen, _ = many.reset(seed=3)
    assert seen.shape == (7, *env.observation_space.shape) and many.observation_space.contains(seen)
    seen, reward, ended, truncated, _ = many.step(many.action_space.sample())
    assert reward.shape == ended.shape == truncated.shape == (7,)
    assert many.observation_space.contains(seen)


@pytest.mark.parametrize("world", WORLDS)
def test_an_episode_ends_with_its_own_observation_and_the_next_step_begins_anew(world):
    env = WorldVectorEnv(world, 200, 3)
    first, _ = env.reset(seed=0)
    again, _ = WorldVectorEnv(world, 200, 3).reset(seed=0)
    np.testing.assert_array_equal(first, again)
    over = np.zeros(200, bool)
    lengths = np.zeros(200, int)
    for _ in range(12):
        _, reward, ended, truncated, info = env.step(np.ones(200, int))
        np.testing.assert_array_equal(info["fresh"], over)
        assert not reward[over].any() and not (ended | truncated)[over].any()
        lengths = np.where(over, 0, lengths + 1)
        np.testing.assert_array_equal(truncated, lengths == 3)
        over = ended | truncated


def test_the_vector_sees_what_the_model_pays():
    env = WorldVectorEnv(FunnelModel(), 50_000, 50)
    seen, _ = env.reset(seed=1)
    assert (seen[:, 4:] == [1, 0, 0, 0]).all() and np.allclose(seen[:, :4].sum(1), 1)
    actions = np.arange(50_000) % 3
    _, reward, _, _, info = env.step(actions)
    model = env.world
    paid = 0.1 * info["click"] + 0.5 * info["follow"] + info["gift"] - model.boost_costs[actions]
    np.testing.assert_allclose(reward, paid, rtol=1e-5, atol=1e-6)
    want = model.rewards().reshape(3, 4, 4)[:, :, 0].mean(1)
    for a in range(3):
        at = reward[actions == a]
        assert abs(at.mean() - want[a]) < 4 * at.std() / np.sqrt(len(at))


def test_live_observations_hide_the_state_behind_noise():
    seen, _ = WorldVectorEnv(LiveModel(), 5000, 50).reset(seed=2)
    assert (seen[:, :6].sum(1) == 1).all()
    for column, mean, spread in ((6, 0.5, 0.1), (7, 0, 0.1), (9, 0, 1)):
        assert seen[:, column].mean() == pytest.approx(mean, abs=0.06 * spread)
        assert seen[:, column].std() == pytest.approx(spread, rel=0.05)


def test_a_single_environment_is_a_vector_of_one():
    one, many = WorldEnv(LiveModel(), 5), WorldVectorEnv(LiveModel(), 1, 5)
    np.testing.assert_array_equal(one.reset(seed=4)[0], many.reset(seed=4)[0][0])
    for t in range(5):
        single, batch = one.step(t % 2), many.step([t % 2])
        np.testing.assert_array_equal(single[0], batch[0][0])
        assert single[1:4] == tuple(x[0] for x in batch[1:4])
        if single[2] or single[3]:
            break


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("wrong", [3, -1, 0.5, np.nan, None, "1"])
def test_actions_outside_their_space_are_refused(name, wrong):
    one, many = (gymnasium.make(name).unwrapped, gymnasium.make_vec(name, num_envs=4).unwrapped)
    ragged = (many, [0, [0], 0, 0])
    for env, given in ((one, wrong), (many, [0, 0, wrong, 0]), (many, [0, 0]), (one, [0]), ragged):
        with pytest.raises(gymnasium.error.ResetNeeded, match="reset must be called before step"):
            type(env)(env.world, *([4] if env is many else []), 5).step(given)
        env.reset(seed=0)
        with pytest.raises(ValueError, match="actions must be integers in 0..") as error:
            env.step(given)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize(
    "wrong", [[0, 9], [0, -1], [0.0, 1.0], [0, np.nan], [0], [[0, 1]], [True, False]]
)
def test_worlds_refuse_actions_without_an_environment_as_well(name, wrong):
    """And draw nothing: the next step is as if the wrong one had never been asked for."""
    world = gymnasium.make(name).unwrapped.world
    draws = [np.random.default_rng(3) for _ in range(2)]
    state = world.begin(np.random.default_rng(0), 2)
    with pytest.raises(ValueError, match="actions must be integers in 0.."):
        world.advance(draws[0], state, wrong)
    for kind in (np.int8, np.uint8, np.int64):
        after = [world.advance(draw, state, np.array([0, 1], kind))[0] for draw in draws]
        np.testing.assert_array_equal(*after)


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("wrong", [0, -1, 2.5, np.nan, np.inf, None])
def test_bad_sizes_are_refused(name, wrong):
    for call in (
        lambda: gymnasium.make(name, horizon=wrong),
        lambda: gymnasium.make_vec(name, num_envs=3, horizon=wrong),
        lambda: WorldVectorEnv(FunnelModel(), wrong, 5),
    ):
        with pytest.raises(ValueError, match="must be (at least 1|a whole number), got"):
            call()
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\), got nan"):
        gymnasium.make(name, discount=np.nan)
    with pytest.raises(TypeError, match="colour"):
        gymnasium.make(name, colour=1)


def test_the_plain_environment_of_the_bench_is_the_same_one():
    """Same mean reward and length as the vector's, within five standard errors."""
    env, rewards = bench.PlainFunnel(), []
    actions = np.random.default_rng(1).integers(0, 3, 20_000).tolist()
    env.reset(seed=1)
    for action in actions:
        _, reward, _, truncated, info = env.step(action)
        rewards.append(reward)
        assert info["gap"] >= 1
        if truncated:
            env.reset()
    log = env.model.log_dataset("uniform", 400_000, 0)
    of_pairs = np.reshape(rewards, (400, 50)).mean(1)
    error = of_pairs.std() / 20
    assert abs(of_pairs.mean() - log["reward"].mean()) < 5 * error < 0.1


def test_the_bench_measures_and_prints():
    found = bench.measure(1, scale=0.001)
    assert len(found["rows"]) == 6 and all(r["speed"] > 0 for r in found["rows"])
    assert found["rows"][0]["ratio"] == 1
    assert [r["environment"] for r in found["rows"] if r["share"]] == list(bench.VECTORS)
    with pytest.raises(ValueError, match="runs must be at least 1"):
        bench.measure(0)


def test_the_bench_draws_what_a_step_drew():
    noted = bench._Noted()
    first = [noted.random(3), noted.standard_normal(2)]
    assert len(noted.draws) == 2
    again = [draw() for draw in list(noted.draws)]
    assert [len(a) for a in again] == [3, 2] and not np.array_equal(first[0], again[0])
    assert len(noted.draws) == 2  # drawing again notes nothing
