"""Steps a second of our environments beside a plain Gymnasium loop on the same one.

Everything on one core. The plain loop steps an environment that does one thing at a time with
Python's numbers, `PlainFunnel`, as one would write it first: it is faster than a batch of one.
Medians over runs in turn, so that a busy moment does not fall on one side alone.
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

RUNS, LOGGED, VECTOR, PLAIN = 5, 10_000_000, 2_000_000, 20_000
ENVS = 8192


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


def measure(runs: int = RUNS, scale: float = 1.0) -> dict:
    """Steps a second, medians over ``runs`` >= 1. scale: of the work in each run, for a trial."""
    if runs < 1:
        raise ValueError(f"runs must be at least 1, got {runs}")
    n = {"log": int(LOGGED * scale), "vector": int(VECTOR * scale), "plain": int(PLAIN * scale)}
    forgetting = FunnelModel(forgetting=0.01)
    ways: dict[tuple[str, str], Callable[[], int]] = {
        ("UserAuthorFunnel", "plain Gymnasium loop"): lambda: plain(PlainFunnel(), n["plain"]),
        ("UserAuthorFunnel", f"our vector, {ENVS} pairs"): lambda: vector(
            WorldVectorEnv(FunnelModel(), ENVS, 50), n["vector"]
        ),
        ("UserAuthorFunnel", "our log_dataset"): lambda: logged(FunnelModel(), n["log"]),
        ("UserAuthorFunnel, forgetting .01", "our log_dataset"): lambda: logged(
            forgetting, n["log"]
        ),
        ("LiveAlloc", f"our vector, {ENVS} sessions"): lambda: vector(
            WorldVectorEnv(LiveModel(), ENVS, 200), n["vector"]
        ),
        ("LiveAlloc", "our log_dataset"): lambda: logged(LiveModel(), n["vector"]),
    }
    speeds: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    for _ in range(runs):
        for way, work in ways.items():
            start = time.perf_counter()
            steps = work()
            speeds[way].append(steps / (time.perf_counter() - start))
    rows = [
        {"environment": e, "way": w, "speed": statistics.median(s), "range": [min(s), max(s)]}
        for (e, w), s in speeds.items()
    ]
    return {"runs": runs, "rows": rows}


def markdown(found: dict) -> str:
    """A line a way, with its ratio to the plain loop where there is one."""
    lines = ["| environment | way | steps/s | range | times the loop |", "|---|---|---:|---:|---:|"]
    loop = {r["environment"]: r["speed"] for r in found["rows"] if "loop" in r["way"]}
    for r in found["rows"]:
        base = loop.get(r["environment"].split(",")[0])
        times = f"{r['speed'] / base:,.0f}" if base else ""
        spread = "–".join(f"{v:,.0f}" for v in r["range"])
        lines.append(
            f"| {r['environment']} | {r['way']} | {r['speed']:,.0f} | {spread} | {times} |"
        )
    return "\n".join([*lines, "", f"One core; medians of {found['runs']} runs in turn."])
