"""Looking ahead from a log of single steps. (A start: put the paper's agent here.)

Title of the paper. (Name authors, venue and arXiv id.)

    Q(s, a) <- mean of r + gamma max_b Q(s', b) over the log's steps at (s, a)     1. a sweep
    policy(s) = argmax_a Q(s, a)                                                   2.

Say here which equations are the paper's, what its released code does differently, and what you add.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import checks

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Steps(NamedTuple):
    """A log: state, action, reward and next state of each step."""

    state: Int[np.ndarray, " rows"]
    action: Int[np.ndarray, " rows"]
    reward: Float[np.ndarray, " rows"]
    following: Int[np.ndarray, " rows"]


@dataclass(frozen=True)
class TiringWorld:
    """A user is rested (state 0) or tired (1); action 0 waits, 1 shows an item.

    A click has the probability ``clicks[state, action]``. Showing tires, waiting rests; with the
    probability ``slip`` in [0, 1) the state stays as it is. gamma in [0, 1): discount per step.
    """

    slip: float = 0.1
    gamma: float = 0.9
    clicks: tuple[tuple[float, float], ...] = ((0.1, 0.9), (0.0, 0.2))

    def __post_init__(self):
        checks.inside("[0, 1)", slip=self.slip, gamma=self.gamma)

    @property
    def moves(self) -> Float[np.ndarray, "2 2 2"]:
        """P(next state | state, action)."""
        go = np.array([[[1, 0], [0, 1]]] * 2, float)
        return (1 - self.slip) * go + self.slip * np.eye(2)[:, None]

    def value(self, policy: Float[np.ndarray, "2 2"]) -> float:
        """Exact discounted clicks of a policy P(action | state), from either state alike."""
        reward = (policy * np.array(self.clicks)).sum(1)
        moves = (policy[..., None] * self.moves).sum(1)
        return float(np.linalg.solve(np.eye(2) - self.gamma * moves, reward).mean())

    def optimum(self) -> float:
        """The best value of the four policies that do not draw."""
        return max(self.value(np.eye(2)[[a, b]]) for a in (0, 1) for b in (0, 1))

    def log(self, rows: int, seed: int) -> Steps:
        """Steps from uniform states by uniform actions."""
        checks.whole(rows=rows)
        draw = np.random.default_rng([seed, rows])
        state, action = draw.integers(0, 2, (2, rows))
        reward = (draw.random(rows) < np.array(self.clicks)[state, action]).astype(float)
        return Steps(state, action, reward, (draw.random(rows) < self.moves[state, action, 1]) * 1)


def q_values(log: Steps, gamma: float, sweeps: int = 100) -> Float[np.ndarray, "2 2"]:
    """Equation 1 from Q = 0; a pair that the log never shows stays at 0. gamma 0 is myopic."""
    checks.inside("[0, 1)", gamma=gamma)
    checks.whole(sweeps=sweeps)
    at, q = 2 * log.state + log.action, np.zeros((2, 2))
    count = np.bincount(at, minlength=4).clip(1)
    for _ in range(sweeps):
        target = log.reward + gamma * q.max(1)[log.following]
        q = (np.bincount(at, target, minlength=4) / count).reshape(2, 2)
    return q


def greedy(q: Float[np.ndarray, "2 2"]) -> Float[np.ndarray, "2 2"]:
    """Equation 2 as P(action | state); at a tie the agent waits."""
    return np.eye(2)[q.argmax(1)]
