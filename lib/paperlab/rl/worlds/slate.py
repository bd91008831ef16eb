"""UserAuthorSlate: the funnel inside requests, where authors compete for one place.

Users and authors have taste vectors; authors are popular by Zipf's law. At each request a user meets
``candidates`` authors, the agent boosts each of them by a level, and one is shown. What happens to
the pair that is shown is the funnel's (`FunnelModel`); all other pairs may forget. The affinity
bucket k is hidden: the agent sees noisy vectors, counters and recencies, and the relation z unless
``observe_z`` is off. Competition makes exact values impossible here: judge by long rollouts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from .exposures import FunnelModel
from .tabular import numbers

if TYPE_CHECKING:
    from jaxtyping import Float, Int

DIM = 8
MULTIPLIERS = (1.0, 1.5, 2.5)  # of a score, by boost level


class Population:
    """Users, authors, and what each pair would be to the other.

    n_users, n_authors >= 1. zipf: exponent of popularity, >= 0. noise: sd of what is seen of the
    vectors, >= 0. Affinity is p_u . q_a / sqrt 8 + .3 b_a, b the standardised log weight; ``k``
    (U, A) is its quartile over all pairs.
    """

    def __init__(
        self, n_users: int, n_authors: int, seed: int, *, zipf: float = 1.1, noise: float = 0.3
    ):
        if min(n_users, n_authors) < 1:
            raise ValueError(f"n_users and n_authors must be at least 1: {n_users}, {n_authors}")
        zipf, noise = (
            float(numbers("zipf", zipf, 0, np.inf)),
            float(numbers("noise", noise, 0, np.inf)),
        )
        draw = np.random.default_rng(seed)
        users, authors = (draw.standard_normal((n, DIM)) for n in (n_users, n_authors))
        weight = np.arange(1, n_authors + 1) ** -zipf
        self.popularity = draw.permutation(weight / weight.sum())
        self.log_popularity = np.log(self.popularity)
        centred = self.log_popularity - self.log_popularity.mean()
        self.b = centred / max(centred.std(), 1e-12)
        self.score = users @ authors.T / np.sqrt(DIM) + 0.3 * self.b  # (U, A)
        self.k = np.searchsorted(np.quantile(self.score, (0.25, 0.5, 0.75)), self.score)
        self.users = (users + noise * draw.standard_normal(users.shape)).astype(np.float32)
        self.authors = (authors + noise * draw.standard_normal(authors.shape)).astype(np.float32)


class UserAuthorSlate(VectorEnv):
    """One environment a user; a step is one request of every user.

    Action (U, C): a boost level for each candidate. Reward: that of the exposure, its boost's cost
    included. Observation (U, C, 27): user 8, author 8, log popularity, counters (exposures, clicks,
    follows, gifts, log1p of gift value), log1p requests since the last exposure and click (-1 for
    never), z as 3 flags (zeros without ``observe_z``).
    A follower or gifter enters the slate with probability 1 / g_z, as the funnel's gaps have it;
    popularity fills the rest, without repeats. Shown: softmax(score + log multiplier).

    horizon: requests of an episode; after it all pairs are strangers again. parameters: the
    funnel's; gaps arise here by themselves, so that ``heavy_tail`` and ``lost_after`` are not among
    them. Raises ValueError for values out of range.
    """

    metadata: dict = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        n_users: int = 200,
        n_authors: int = 100,
        *,
        candidates: int = 10,
        horizon: int = 200,
        observe_z: bool = True,
        seed: int = 0,
        zipf: float = 1.1,
        noise: float = 0.3,
        **parameters,
    ):
        if not 1 <= candidates <= n_authors or horizon < 1:
            raise ValueError(
                f"candidates must be in 1..n_authors and horizon at least 1, got {candidates}, {horizon}"
            )
        if {"heavy_tail", "lost_after"} & set(parameters):
            raise ValueError(
                "heavy_tail and lost_after belong to the pair-level funnel: gaps arise here"
            )
        self.model = FunnelModel(**parameters)
        self.people = Population(n_users, n_authors, seed, zipf=zipf, noise=noise)
        self.num_envs, self.candidates, self.horizon = n_users, candidates, horizon
        self.observe_z = observe_z
        self.multipliers = np.log(MULTIPLIERS)[: self.model.n_actions]
        if self.model.n_actions > len(MULTIPLIERS):
            raise ValueError(f"boost_effects must hold at most {len(MULTIPLIERS)} levels")
        levels = np.full(candidates, self.model.n_actions)
        shape = (candidates, 2 * DIM + 11)
        self.single_action_space = spaces.MultiDiscrete(levels)
        self.action_space = spaces.MultiDiscrete(np.tile(levels, (n_users, 1)))
        self.single_observation_space = spaces.Box(-np.inf, np.inf, shape, np.float32)
        self.observation_space = spaces.Box(-np.inf, np.inf, (n_users, *shape), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        pairs = self.people.score.shape
        self.z = np.zeros(pairs, np.uint8)
        self.counts = np.zeros((4, *pairs), np.float32)  # exposures, clicks, follows, gifts
        self.gifted = np.zeros(pairs, np.float32)
        self.last = np.full((2, *pairs), -1, np.int32)  # request of the last exposure, click
        self.requests, self._over = 0, False
        self._meet()
        return self._see(), {"candidates": self.slate}

    def _meet(self) -> None:
        """Draw every user's candidates."""
        draw, (U, A) = self.np_random, self.z.shape
        gaps = self.model.gap_means[self.z]
        returns = (self.z >= 2) & (draw.random((U, A)) < 1 / gaps)
        # Exponential races: the C smallest of E / weight are a draw without replacement.
        race = draw.standard_exponential((U, A)) / self.people.popularity
        race = np.where(returns, -draw.random((U, A)), np.where(self.z >= 2, np.inf, race))
        self.slate = np.argpartition(race, self.candidates - 1, 1)[:, : self.candidates]

    def _see(self) -> Float[np.ndarray, "U C 27"]:
        rows = np.arange(self.num_envs)[:, None]
        at = rows, self.slate
        since = [np.where(t[at] < 0, -1, np.log1p(self.requests - t[at])) for t in self.last]
        flags = (self.z[at][..., None] == np.arange(1, 4)) * self.observe_z
        parts = [
            np.broadcast_to(self.people.users[:, None], (*self.slate.shape, DIM)),
            self.people.authors[self.slate],
            self.people.log_popularity[self.slate][..., None],
            np.moveaxis(self.counts[:, *at], 0, -1),
            np.log1p(self.gifted[at])[..., None],
            np.stack(since, -1),
            flags,
        ]
        return np.concatenate(parts, -1).astype(np.float32)

    def step(self, actions: Int[np.ndarray, "U C"]):
        if self._over:  # next-step autoreset: everybody begins anew, at once
            seen, info = self.reset()
            zeros = np.zeros(self.num_envs)
            return seen, zeros, zeros > 0, zeros > 0, info | {"fresh": zeros == 0}
        draw, rows = self.np_random, np.arange(self.num_envs)
        pull = self.people.score[rows[:, None], self.slate] + self.multipliers[actions]
        place = (pull + draw.gumbel(size=pull.shape)).argmax(1)  # softmax
        author, boost = self.slate[rows, place], np.asarray(actions)[rows, place]
        at = rows, author
        state = 4 * self.people.k[at] + self.z[at]
        seen = self.model.expose(draw, state.astype(np.uint8), boost)
        self.z[at] = seen.post_update & 3
        if self.model.forgetting:
            self.z -= (draw.random(self.z.shape) < self.model.forgetting) & (self.z > 0)
        facts = (np.ones(self.num_envs), seen.click, seen.follow, seen.gift > 0)
        self.counts[:, *at] += np.stack(facts)
        self.gifted[at] += seen.gift
        self.requests += 1
        self.last[0][at] = self.requests
        self.last[1][rows[seen.click], author[seen.click]] = self.requests
        self._over = self.requests >= self.horizon
        self._meet()
        info = {"author": author, "boost": boost, "click": seen.click, "follow": seen.follow}
        info |= {"gift": seen.gift, "candidates": self.slate}
        ended = np.zeros(self.num_envs, bool)
        return self._see(), seen.reward.astype(np.float64), ended, ended | self._over, info


def gini(amounts: Float[np.ndarray, " n"]) -> float:
    """Gini coefficient of amounts >= 0: 0 when all are equal, towards 1 when one has everything."""
    ordered = np.sort(np.asarray(amounts, np.float64))
    n = len(ordered)
    if n == 0 or ordered[0] < 0 or ordered[-1] == 0:
        raise ValueError("amounts must be at least 0, and not all 0")
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))
