"""The two environments for Gymnasium, single and as vectors; every parameter of their models.

Importing this registers ``UserAuthorFunnel-v0`` and ``LiveAlloc-v0`` with Gymnasium:
``gymnasium.make(id)`` for one, ``gymnasium.make_vec(id, num_envs)`` for a batch.
"""

from __future__ import annotations

import gymnasium
import numpy as np

from .exposures import FunnelModel, first_states
from .funnel import K, Z
from .live import G, L, LiveModel, S
from .stepping import Batch, Single
from .tabular import numbers, policy_table


class _Pairs(FunnelModel):
    """Observation: one-hot of k, then of z (float32, 8). Reward: weighted tasks minus the cost."""

    observed, limits = K + Z, (0, 1)

    def _begin_at(self, start) -> None:
        if np.shape(start) != (Z,):
            raise ValueError(f"start must hold {Z} probabilities, one a relation, got {start}")
        self.start = policy_table([start], 1, Z)[0]

    def begin(self, draw, n):
        return first_states(draw, n, self.start)

    def advance(self, draw, state, action):
        seen = self.expose(draw, state, action)
        info = {name: getattr(seen, name) for name in ("click", "follow", "gift", "gap")}
        return seen.exact.copy(), seen.reward.astype(np.float64), seen.done, info

    def observe(self, draw, state):
        seen = np.zeros((len(state), K + Z), np.float32)
        rows = np.arange(len(state))
        seen[rows, state // Z] = seen[rows, K + state % Z] = 1
        return seen


class UserAuthorFunnel(_Pairs, Single):
    """One pair after the other. horizon: exposures a pair is followed for, >= 1. start: probabilities
    of its first relation. Everything else: `FunnelModel`."""

    def __init__(
        self, horizon: int = 50, start=(1.0, 0.0, 0.0, 0.0), render_mode=None, **parameters
    ):
        FunnelModel.__init__(self, **parameters)
        self.render_mode = render_mode
        self._begin_at(start)
        self._prepare(horizon)


class UserAuthorFunnelVector(_Pairs, Batch):
    """num_envs independent pairs. The rest: `UserAuthorFunnel`."""

    def __init__(
        self, num_envs: int = 1024, horizon: int = 50, start=(1.0, 0.0, 0.0, 0.0), **parameters
    ):
        FunnelModel.__init__(self, **parameters)
        self._begin_at(start)
        self._prepare(num_envs, horizon)


class _Sessions(LiveModel):
    """Observation (float32, 16): one-hot of the group, l and s with normal noise, 8 of pure noise."""

    observed, limits = G + 2 + 8, (-10, 10)

    def observe(self, draw, state):
        seen = draw.standard_normal((len(state), self.observed), np.float32).clip(-6, 6)
        seen[:, :G] = 0
        seen[np.arange(len(state)), self.group[state]] = 1
        seen[:, G] = self.interest[state] / (L - 1) + self.noise * seen[:, G]
        seen[:, G + 1] = self.satiation[state] / (S - 1) + self.noise * seen[:, G + 1]
        return seen

    def _look_through(self, noise: float) -> None:
        self.noise = np.float32(numbers("noise", noise, 0, 1))


class LiveAlloc(_Sessions, Single):
    """One session after the other. horizon: requests of the longest session, >= 1. noise: sd of what
    is seen of l and s, each scaled to [0, 1], 0..1. Everything else: `LiveModel`."""

    def __init__(self, horizon: int = 200, noise: float = 0.1, render_mode=None, **parameters):
        LiveModel.__init__(self, **parameters)
        self.render_mode = render_mode
        self._look_through(noise)
        self._prepare(horizon)


class LiveAllocVector(_Sessions, Batch):
    """num_envs independent sessions. The rest: `LiveAlloc`."""

    def __init__(self, num_envs: int = 1024, horizon: int = 200, noise: float = 0.1, **parameters):
        LiveModel.__init__(self, **parameters)
        self._look_through(noise)
        self._prepare(num_envs, horizon)


for _name in ("UserAuthorFunnel", "LiveAlloc"):
    gymnasium.register(
        f"{_name}-v0",
        entry_point=f"{__name__}:{_name}",
        vector_entry_point=f"{__name__}:{_name}Vector",
    )
