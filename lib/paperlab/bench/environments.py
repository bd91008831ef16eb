"""Steps a second of our environments beside a plain Gymnasium loop on the same one.

One core, and its processor time. The plain loop steps an environment that does one thing at a time
with Python's numbers, `PlainFunnel`, as one would write it first: it is faster than a batch of one.
Medians over runs in turn. The limit of a vector is the time to draw its random numbers: a step's
draws are noted, and drawn again alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import gymnasium
import numpy as np

from ..rl.worlds.environments import WorldVectorEnv
from ..rl.worlds.funnel import CLICK, FOLLOW, GIFT, FunnelModel
from ..rl.worlds.live import LiveModel
from . import limits

RUNS, LOGGED, VECTOR, PLAIN = 5, 10_000_000, 2_000_000, 20_000
ENVS = 8192
WARM, STEPS = 5, 20  # steps before draws are noted, and noted steps


class PlainFunnel(gymnasium.Env):
    """UserAuthorFunnel, one pair at a time, from the same tables. horizon: exposures a pair, >= 1."""

    def __init__(self, horizon: int = 50):
        self.model, self.horizon = FunnelModel(), horizon
        self.action_space = gymnasium.spaces.Discrete(3)
        self.observation_space = gymnasium.spaces.Box(0, 1, (8,), np.float32)
        self._bounds = self.model.outcomes.cumsum(0).transpose(1, 2, 3, 0).tolist()  # [a][k][z]
        self._after, self._gift_means = self.model.after.tolist(), self.model.gift_means.tolist()
        self._costs, self._gaps = self.model.boost_costs.tolist(), self.model.gap_means.tolist()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.k, self.z, self.steps = int(self.np_random.integers(4)), 0, 0
        return self._see(), {}

    def step(self, action):
        u, outcome = self.np_random.random(), 0
        bounds = self._bounds[action][self.k][self.z]
        while outcome < 5 and u >= bounds[outcome]:
            outcome += 1
        gift = 0.0
        if GIFT[outcome]:
            gift = self._gift_means[self.z] * float(np.exp(self.np_random.standard_normal() - 0.5))
        reward = 0.1 * CLICK[outcome] + 0.5 * FOLLOW[outcome] + gift - self._costs[action]
        self.z = self._after[outcome][self.z]
        gap = int(self.np_random.geometric(1 / self._gaps[self.z]))
        self.steps += 1
        return self._see(), reward, False, self.steps >= self.horizon, {"gap": gap}

    def _see(self):
        seen = np.zeros(8, np.float32)
        seen[self.k] = seen[4 + self.z] = 1
        return seen


def plain(env: gymnasium.Env, steps: int) -> int:
    """The loop of Gymnasium's first page, with actions drawn beforehand."""
    actions = np.random.default_rng(0).integers(0, env.action_space.n, steps).tolist()
    env.reset(seed=0)
    for action in actions:
        *_, ended, truncated, _ = env.step(action)
        if ended or truncated:
            env.reset()
    return steps


def vector(env: gymnasium.vector.VectorEnv, steps: int) -> int:
    """Batch steps until about ``steps`` exposures are made."""
    actions = np.random.default_rng(0).integers(0, env.single_action_space.n, env.num_envs)
    env.reset(seed=0)
    times = -(-steps // env.num_envs)
    for _ in range(times):
        env.step(actions)
    return times * env.num_envs


def logged(model: FunnelModel | LiveModel, n: int) -> int:
    model.log_dataset("uniform", n, 0)
    return n


VECTORS = {
    "UserAuthorFunnel": lambda: WorldVectorEnv(FunnelModel(), ENVS, 50),
    "LiveAlloc": lambda: WorldVectorEnv(LiveModel(), ENVS, 200),
}


class _Noted(np.random.Generator):
    """A generator that notes its draws, to draw the same again."""

    def __init__(self):
        super().__init__(np.random.PCG64(0))
        self.draws: list[Callable[[], object]] = []

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name not in ("random", "standard_normal", "standard_exponential", "integers", "choice"):
            return found

        def draw(*args, **options):
            self.draws.append(lambda: found(*args, **options))
            return found(*args, **options)

        return draw


def drawing(env: WorldVectorEnv) -> float:
    """Seconds that the random numbers of a step take by themselves."""
    env.np_random = noted = _Noted()
    env.reset()
    actions = np.zeros(env.num_envs, int)
    for _ in range(WARM):
        env.step(actions)
    noted.draws.clear()
    for _ in range(STEPS):
        env.step(actions)
    draws = list(noted.draws)
    return limits.fastest(lambda: [draw() for draw in draws]) / STEPS


def measure(runs: int = RUNS, scale: float = 1.0) -> dict:
    """Steps a second, medians over ``runs`` >= 1. scale: of the work in each run, for a trial."""
    if runs < 1:
        raise ValueError(f"runs must be at least 1, got {runs}")
    n = {"log": int(LOGGED * scale), "vector": int(VECTOR * scale), "plain": int(PLAIN * scale)}
    forgetting = FunnelModel(forgetting=0.01)
    ways: dict[tuple[str, str], Callable[[], int]] = {
        ("UserAuthorFunnel", "plain loop"): lambda: plain(PlainFunnel(), n["plain"]),
        **{(e, "vector"): lambda m=m: vector(m(), n["vector"]) for e, m in VECTORS.items()},
        ("UserAuthorFunnel", "log_dataset"): lambda: logged(FunnelModel(), n["log"]),
        ("UserAuthorFunnel, forgetting .01", "log_dataset"): lambda: logged(forgetting, n["log"]),
        ("LiveAlloc", "log_dataset"): lambda: logged(LiveModel(), n["vector"]),
    }
    speeds: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    for _ in range(runs):
        for way, work in ways.items():
            start = time.process_time()
            steps = work()
            speeds[way].append(steps / (time.process_time() - start))
    loop = statistics.median(speeds["UserAuthorFunnel", "plain loop"])
    rows = []
    for (name, way), found in speeds.items():
        speed = statistics.median(found)
        row = {"environment": name, "way": way, "speed": speed, "range": [min(found), max(found)]}
        row["ratio"] = speed / loop if name.startswith("UserAuthorFunnel") else None
        row["share"] = drawing(VECTORS[name]()) * speed / ENVS if way == "vector" else None
        rows.append(row)
    return {"runs": runs, "envs": ENVS, "threads": 1, "rows": rows}
