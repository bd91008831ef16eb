"""The two worlds for Gymnasium, one environment at a time and as vectors.

Importing this registers ``UserAuthorFunnel-v0`` and ``LiveAlloc-v0`` with Gymnasium:
``gymnasium.make(id)`` for one, ``gymnasium.make_vec(id, num_envs=...)`` for a batch; both take
``horizon`` and the parameters of `FunnelModel` or `LiveModel`. A world says how a batch of states
begins, moves and looks:

    begin(draw, n) -> states (n,)
    advance(draw, states, actions) -> next states, rewards, terminated, info of arrays; ValueError
        for actions outside 0..world.n_actions-1
    observe(draw, states) -> float32 (n, world.observed) within world.limits
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv

from ... import checks
from .funnel import FunnelModel
from .live import LiveModel

if TYPE_CHECKING:
    from jaxtyping import Int


class WorldVectorEnv(VectorEnv):
    """num_envs independent environments, each step one batch step without a Python loop over them.

    horizon: steps after which an episode is truncated, >= 1.
    Raises ValueError for actions outside their space, ResetNeeded for a step before the first reset.
    The autoreset is Gymnasium's ``NEXT_STEP``: the step that ends an episode returns its last
    observation, and the next step begins a new one, ignores the action, and pays 0; rows of
    ``info["fresh"]`` say where.
    """

    metadata: dict = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, world: FunnelModel | LiveModel, num_envs: int, horizon: int):
        checks.whole(num_envs=num_envs, horizon=horizon)
        self.world, self.num_envs, self.horizon = world, num_envs, horizon
        self.single_action_space = spaces.Discrete(world.n_actions)
        self.single_observation_space = spaces.Box(*world.limits, (world.observed,), np.float32)
        self.action_space = spaces.MultiDiscrete(np.full(num_envs, world.n_actions))
        shape = (num_envs, world.observed)
        self.observation_space = spaces.Box(*world.limits, shape, np.float32)
        self._state = None

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self._state = self.world.begin(self.np_random, self.num_envs)
        self._steps = np.zeros(self.num_envs, np.int64)
        self._over = np.zeros(self.num_envs, bool)
        return self.world.observe(self.np_random, self._state), {}

    def step(self, actions: Int[np.ndarray, " B"]):
        if self._state is None:
            raise ResetNeeded("reset must be called before step")
        draw, fresh = self.np_random, self._over
        state, reward, ended, info = self.world.advance(draw, self._state, actions)
        steps = self._steps + 1
        if fresh.any():
            state[fresh] = self.world.begin(draw, int(fresh.sum()))
            steps[fresh], reward[fresh], ended[fresh] = 0, 0, False
        truncated = steps >= self.horizon
        self._state, self._steps, self._over = state, steps, ended | truncated
        return self.world.observe(draw, state), reward, ended, truncated, info | {"fresh": fresh}


class WorldEnv(gymnasium.Env):
    """A single environment: a vector of one, whose episodes the caller resets."""

    metadata: dict = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own form)

    def __init__(self, world: FunnelModel | LiveModel, horizon: int, render_mode=None):
        self.world, self.render_mode = world, render_mode
        self.vector = WorldVectorEnv(world, 1, horizon)
        self.action_space = self.vector.single_action_space
        self.observation_space = self.vector.single_observation_space

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        return self.vector.reset(seed=seed)[0][0], {}

    def step(self, action):
        seen, reward, ended, truncated, info = self.vector.step([action])
        facts = {name: values[0] for name, values in info.items()}
        return seen[0], float(reward[0]), bool(ended[0]), bool(truncated[0]), facts


def _one(world: type, horizon: int, render_mode=None, **parameters) -> WorldEnv:
    return WorldEnv(world(**parameters), horizon, render_mode)


def _many(world: type, horizon: int, num_envs: int = 1, **parameters) -> WorldVectorEnv:
    return WorldVectorEnv(world(**parameters), num_envs, horizon)


for _name, *_defaults in (("UserAuthorFunnel", FunnelModel, 50), ("LiveAlloc", LiveModel, 200)):
    _kwargs = dict(zip(("world", "horizon"), _defaults, strict=True))
    gymnasium.register(f"{_name}-v0", entry_point=_one, vector_entry_point=_many, kwargs=_kwargs)
