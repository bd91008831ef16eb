"""The agent by hand, its fixed point, a slow second version, and a world that is solved exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.templates.newcomer_agent import Steps, TiringWorld, greedy, q_values


def test_worked_numbers():
    """Showing pays 1 and tires; waiting pays 0 and rests; nothing else is logged."""
    log = Steps(np.array([0, 1]), np.array([1, 0]), np.array([1.0, 0.0]), np.array([1, 0]))
    np.testing.assert_allclose(q_values(log, 0.5, sweeps=1), [[0, 1], [0, 0]])
    np.testing.assert_allclose(q_values(log, 0.5, sweeps=2), [[0, 1], [0.5, 0]])
    np.testing.assert_allclose(q_values(log, 0.5), [[0, 4 / 3], [2 / 3, 0]])  # 1 / (1 - 1/4)


def test_the_value_of_a_policy_by_hand():
    world = TiringWorld(slip=0.0, gamma=0.5, clicks=((0.0, 1.0), (0.0, 0.0)))
    turns = np.eye(2)[[1, 0]]  # show when rested, wait when tired: 4/3 and 2/3
    assert world.value(turns) == pytest.approx(1.0)
    assert world.optimum() == pytest.approx(1.0)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(1, 40), st.integers(0, 99), st.floats(0, 0.95))
def test_it_is_what_a_loop_computes(rows, seed, gamma):
    log, q = TiringWorld().log(rows, seed), [[0.0, 0.0], [0.0, 0.0]]
    for _ in range(5):
        targets = {(s, a): [] for s in (0, 1) for a in (0, 1)}
        for s, a, r, following in zip(*log, strict=True):
            targets[s, a].append(r + gamma * max(q[following]))
        q = [[np.mean(targets[s, a]) if targets[s, a] else 0.0 for a in (0, 1)] for s in (0, 1)]
    np.testing.assert_allclose(q_values(log, gamma, sweeps=5), q, atol=1e-12)


def test_a_long_log_gives_the_optimal_policy_and_gamma_0_the_myopic_one():
    world = TiringWorld()
    log = world.log(20_000, seed=0)
    assert world.value(greedy(q_values(log, world.gamma))) == pytest.approx(world.optimum())
    np.testing.assert_allclose(q_values(log, 0.0), world.clicks, atol=0.03)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.floats(0, 0.99), st.floats(0, 0.99), st.floats(0, 1), st.floats(0, 1))
def test_no_policy_beats_the_optimum_and_moves_are_chances(slip, gamma, a, b):
    world = TiringWorld(slip=slip, gamma=gamma)
    np.testing.assert_allclose(world.moves.sum(-1), 1)
    policy = np.array([[1 - a, a], [1 - b, b]])
    assert world.value(policy) <= world.optimum() + 1e-9


def test_the_exact_value_is_that_of_simulated_users():
    world, users, total = TiringWorld(), 4000, 0.0
    draw = np.random.default_rng(0)
    policy = np.array([[0.3, 0.7], [0.6, 0.4]])
    state = np.arange(users) % 2
    for t in range(120):
        action = (draw.random(users) < policy[state, 1]) * 1
        total += world.gamma**t * np.array(world.clicks)[state, action].mean()
        state = (draw.random(users) < world.moves[state, action, 1]) * 1
    assert total == pytest.approx(world.value(policy), rel=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TiringWorld(slip=1.0), "slip must be in"),
        (lambda: TiringWorld(gamma=1.0), "gamma must be in"),
        (lambda: TiringWorld().log(0, 0), "rows must be at least 1"),
        (lambda: q_values(TiringWorld().log(5, 0), 1.0), "gamma must be in"),
        (lambda: q_values(TiringWorld().log(5, 0), 0.5, 0), "sweeps must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
