"""UserAuthorSlate: the funnel inside requests, where authors compete for one place.

Users and authors have taste vectors; authors are popular by Zipf's law. At each request a user
meets ``CANDIDATES`` authors, the agent boosts each of them by a level, and one is shown. What
happens to the pair that is shown is the funnel's (`FunnelModel`); all other pairs may forget. The
agent sees the relation z, the affinity bucket k is hidden. Competition makes exact values
impossible here: judge by long rollouts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from ... import checks
from .funnel import FunnelModel, Z
from .tabular import valid_actions

if TYPE_CHECKING:
    from jaxtyping import Float, Int

DIM, CANDIDATES = 8, 10
ZIPF = 1.1  # exponent of popularity
MULTIPLIERS = (1.0, 1.5, 2.5)  # of a score, by boost level


class UserAuthorSlate(VectorEnv):
    """One environment a user; a step is one request of every user.

    Action (U, 10): a boost level for each candidate. Observation (U, 10): the candidates' relations
    z; ``info["candidates"]`` says who they are. Reward: that of the exposure, its boost's cost
    included.
    Affinity is p_u . q_a / sqrt 8 + .3 b_a, b the standardised log popularity; ``k`` (U, A) is its
    quartile over all pairs. A follower or gifter enters the slate with probability 1 / g_z, as the
    funnel's gaps have it; popularity fills the rest, without repeats. Shown: softmax(affinity +
    log multiplier).

    n_users >= 1, n_authors >= 10. horizon: requests of an episode, >= 1; after it all pairs are
    strangers again. seed: of the population. parameters: `FunnelModel`'s but ``lost_after``, since
    gaps arise here by themselves. Raises ValueError for values and actions out of range.
    """

    metadata: dict = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        n_users: int = 200,
        n_authors: int = 100,
        *,
        horizon: int = 200,
        seed: int = 0,
        **parameters,
    ):
        checks.whole(n_users=n_users, horizon=horizon)
        checks.whole(CANDIDATES, n_authors=n_authors)
        if "lost_after" in parameters:
            raise ValueError("lost_after belongs to the pair-level funnel: gaps arise here")
        self.model = FunnelModel(**parameters)
        if self.model.n_actions > len(MULTIPLIERS):
            raise ValueError(f"boost_effects must hold at most {len(MULTIPLIERS)} levels")
        self.multipliers = np.log(MULTIPLIERS)[: self.model.n_actions]
        draw = np.random.default_rng(seed)
        users, authors = (draw.standard_normal((n, DIM)) for n in (n_users, n_authors))
        weight = np.arange(1, n_authors + 1) ** -ZIPF
        self.popularity = draw.permutation(weight / weight.sum())
        b = np.log(self.popularity) - np.log(self.popularity).mean()
        self.affinity = users @ authors.T / np.sqrt(DIM) + 0.3 * b / b.std()
        self.k = np.searchsorted(np.quantile(self.affinity, (0.25, 0.5, 0.75)), self.affinity)
        self.num_envs, self.horizon = n_users, horizon
        for name, n in (("action_space", self.model.n_actions), ("observation_space", Z)):
            levels = np.full((n_users, CANDIDATES), n)
            setattr(self, name, spaces.MultiDiscrete(levels))
            setattr(self, f"single_{name}", spaces.MultiDiscrete(levels[0]))

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.z = np.zeros(self.k.shape, np.uint8)
        self.requests, self._over = 0, False
        return self._meet(), {"candidates": self.slate}

    def _meet(self) -> Int[np.ndarray, "U 10"]:
        """Draw every user's candidates; their relations."""
        draw, (U, A) = self.np_random, self.z.shape
        gaps = self.model.gap_means[self.z]
        returns = (self.z >= 2) & (draw.random((U, A)) < 1 / gaps)
        # Exponential races: the C smallest of E / weight are a draw without replacement.
        race = draw.standard_exponential((U, A)) / self.popularity
        race = np.where(returns, -draw.random((U, A)), np.where(self.z >= 2, np.inf, race))
        self.slate = np.argpartition(race, CANDIDATES - 1, 1)[:, :CANDIDATES]
        return np.take_along_axis(self.z, self.slate, 1).astype(np.int64)

    def step(self, actions: Int[np.ndarray, "U 10"]):
        if self._over:  # next-step autoreset: everybody begins anew, at once
            seen, info = self.reset()
            zeros = np.zeros(self.num_envs)
            return seen, zeros, zeros > 0, zeros > 0, info | {"fresh": zeros == 0}
        draw, rows = self.np_random, np.arange(self.num_envs)
        actions = valid_actions(actions, self.slate.shape, self.model.n_actions)
        pull = self.affinity[rows[:, None], self.slate] + self.multipliers[actions]
        place = (pull + draw.gumbel(size=pull.shape)).argmax(1)  # softmax
        author, boost = self.slate[rows, place], actions[rows, place]
        at = rows, author
        state = 4 * self.k[at] + self.z[at]
        seen = self.model.expose(draw, state.astype(np.uint8), boost)
        self.z[at] = seen.post_update & 3
        if self.model.forgetting:
            self.z -= (draw.random(self.z.shape) < self.model.forgetting) & (self.z > 0)
        self.requests += 1
        self._over = self.requests >= self.horizon
        relations, ended = self._meet(), np.zeros(self.num_envs, bool)
        info = {"author": author, "boost": boost, "click": seen.click, "follow": seen.follow}
        info |= {"gift": seen.gift, "candidates": self.slate}
        return relations, seen.reward.astype(np.float64), ended, ended | self._over, info


def gini(amounts: Float[np.ndarray, " n"]) -> float:
    """Gini coefficient of amounts >= 0: 0 when all are equal, towards 1 when one has everything."""
    ordered = np.sort(np.asarray(amounts, np.float64))
    n = len(ordered)
    if n == 0 or not (ordered[0] >= 0 and 0 < ordered[-1] < np.inf):
        raise ValueError("amounts must be finite, at least 0, and not all 0")
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))
