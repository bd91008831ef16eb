"""Both environments behind Gymnasium's interfaces."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from paperlab.bench import environments as bench
from paperlab.rl.worlds.environments import (
    LiveAlloc,
    LiveAllocVector,
    UserAuthorFunnel,
    UserAuthorFunnelVector,
)

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


@pytest.mark.parametrize("make", [UserAuthorFunnelVector, LiveAllocVector])
def test_an_episode_ends_with_its_own_observation_and_the_next_step_begins_anew(make):
    env = make(num_envs=200, horizon=3)
    first, _ = env.reset(seed=0)
    again, _ = make(num_envs=200, horizon=3).reset(seed=0)
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
    env = UserAuthorFunnelVector(num_envs=50_000, start=(0, 0, 0, 1))
    seen, _ = env.reset(seed=1)
    assert (seen[:, 4:] == [0, 0, 0, 1]).all() and np.allclose(seen[:, :4].sum(1), 1)
    actions = np.arange(50_000) % 3
    _, reward, _, _, info = env.step(actions)
    paid = 0.1 * info["click"] + 0.5 * info["follow"] + info["gift"] - env.boost_costs[actions]
    np.testing.assert_allclose(reward, paid, rtol=1e-5, atol=1e-6)
    want = env.rewards().reshape(3, 4, 4)[:, :, 3].mean(1)
    for a in range(3):
        at = reward[actions == a]
        assert abs(at.mean() - want[a]) < 4 * at.std() / np.sqrt(len(at))


def test_a_lost_pair_terminates():
    env = UserAuthorFunnelVector(num_envs=5000, lost_after=1)
    env.reset(seed=0)
    _, _, ended, _, info = env.step(np.zeros(5000, int))
    np.testing.assert_array_equal(ended, info["gap"] > 1)


def test_live_observations_hide_the_state_behind_noise():
    clear, noisy = (LiveAllocVector(num_envs=500, noise=n) for n in (0.0, 0.5))
    a, b = clear.reset(seed=2)[0], noisy.reset(seed=2)[0]
    assert (a[:, 6] == 0.5).all() and (a[:, 7] == 0).all() and b[:, 6].std() > 0.3
    np.testing.assert_array_equal(a[:, :6], b[:, :6])
    assert a[:, 8:].std() == pytest.approx(1, abs=0.1)


def test_an_environment_is_its_model():
    env = UserAuthorFunnel(forgetting=0.01, horizon=5)
    assert env.optimal()[1].new_pair == pytest.approx(1.377422, abs=1e-5)
    assert LiveAlloc(discount=0.5).discount == 0.5
    assert env.log_dataset("uniform", 10, 0)["state"].shape == (10,)


@pytest.mark.parametrize(
    "make", [UserAuthorFunnel, LiveAlloc, UserAuthorFunnelVector, LiveAllocVector]
)
def test_bad_arguments(make):
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        make(horizon=0)
    with pytest.raises(TypeError, match="colour"):
        make(colour=1)


def test_other_bad_arguments():
    with pytest.raises(ValueError, match="start must hold 4 probabilities"):
        UserAuthorFunnel(start=(1, 0))
    with pytest.raises(ValueError, match="sum to 1"):
        UserAuthorFunnelVector(start=(0.5, 0, 0, 0))
    with pytest.raises(ValueError, match=r"noise must be in \[0, 1\]"):
        LiveAlloc(noise=-1)
    with pytest.raises(ValueError, match="num_envs must be at least 1"):
        LiveAllocVector(num_envs=0)


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
    text = bench.markdown(found)
    assert len(found["rows"]) == 6 and all(r["speed"] > 0 for r in found["rows"])
    assert text.count("our log_dataset") == 3 and "plain Gymnasium loop" in text
    with pytest.raises(ValueError, match="runs must be at least 1"):
        bench.measure(0)
