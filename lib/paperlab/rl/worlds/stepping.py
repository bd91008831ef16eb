"""Gymnasium's two interfaces over one batch model: a single environment, and a vector of them.

A model says how a batch of states begins, moves and looks; nothing else is needed:

    begin(draw, n) -> states (n,)
    advance(draw, states, actions) -> next states, rewards, terminated, info of arrays
    observe(draw, states) -> float32 (n, d)

The vector takes one batch step, without a Python loop over environments. Its autoreset is
Gymnasium's ``NEXT_STEP``: the step that ends an episode returns its last observation, and the next
step begins a new one, ignores the action, and pays 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


class Single(gymnasium.Env):
    """One environment. horizon: steps after which an episode is truncated, >= 1."""

    metadata: dict = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own form)

    def _prepare(self, horizon: int) -> None:
        self.horizon = _positive("horizon", horizon)
        self.action_space = spaces.Discrete(self.n_actions)
        self.observation_space = spaces.Box(*self.limits, (self.observed,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self._state, self._step = self.begin(self.np_random, 1), 0
        return self.observe(self.np_random, self._state)[0], {}

    def step(self, action):
        self._state, reward, done, info = self.advance(
            self.np_random, self._state, np.array([action])
        )
        self._step += 1
        seen = self.observe(self.np_random, self._state)[0]
        facts = {name: values[0] for name, values in info.items()}
        return seen, float(reward[0]), bool(done[0]), self._step >= self.horizon, facts


class Batch(VectorEnv):
    """num_envs environments, each step one batch step."""

    metadata: dict = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def _prepare(self, num_envs: int, horizon: int) -> None:
        self.num_envs, self.horizon = _positive("num_envs", num_envs), _positive("horizon", horizon)
        box = spaces.Box(*self.limits, (self.observed,), np.float32)
        self.single_action_space = spaces.Discrete(self.n_actions)
        self.single_observation_space = box
        self.action_space = spaces.MultiDiscrete(np.full(num_envs, self.n_actions))
        self.observation_space = spaces.Box(*self.limits, (num_envs, self.observed), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self._state = self.begin(self.np_random, self.num_envs)
        self._steps = np.zeros(self.num_envs, np.int64)
        self._over = np.zeros(self.num_envs, bool)
        return self.observe(self.np_random, self._state), {}

    def step(
        self, actions: Int[np.ndarray, " B"]
    ) -> tuple[Float[np.ndarray, "B d"], np.ndarray, Bool[np.ndarray, " B"], np.ndarray, dict]:
        draw, fresh = self.np_random, self._over
        state, reward, ended, info = self.advance(draw, self._state, np.asarray(actions))
        steps = self._steps + 1
        if fresh.any():
            state[fresh] = self.begin(draw, int(fresh.sum()))
            steps[fresh], reward[fresh], ended[fresh] = 0, 0, False
        truncated = steps >= self.horizon
        self._state, self._steps, self._over = state, steps, ended | truncated
        info["fresh"] = fresh  # rows that began anew: their action and facts count for nothing
        return self.observe(draw, state), reward.astype(np.float64), ended, truncated, info


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value
