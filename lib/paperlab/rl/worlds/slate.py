"""UserAuthorSlate: the funnel inside requests, where authors compete for one place.

Users and authors have taste vectors; authors are popular by Zipf's law. At each request a user
meets ``CANDIDATES`` authors, a policy boosts each of them by a level, and one is shown. What
happens to the pair that is shown is the funnel's (`FunnelModel`); all other pairs may forget.
Competition makes exact values impossible here: judge by long rollouts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ... import checks
from ...mdp import valid_actions
from .funnel import FunnelModel, Z

if TYPE_CHECKING:
    from jaxtyping import Float, Int

DIM, CANDIDATES = 8, 10
ZIPF = 1.1  # exponent of popularity
MULTIPLIERS = np.array([1.0, 1.5, 2.5])  # of a score, by boost level


class UserAuthorSlate:
    """Users who start as strangers to all authors; each `serve` is one request of every user.

    Affinity is p_u . q_a / sqrt 8 + .3 b_a, b the standardised log popularity; ``k`` (U, A) is its
    quartile over all pairs, ``z`` (U, A) the relation now, ``slate`` (U, 10) the authors whom each
    user meets. A follower or gifter enters the slate with probability 1 / g_z, as the funnel's
    gaps have it; popularity fills the rest, without repeats. Shown: softmax(affinity + log
    multiplier).

    n_users >= 1, n_authors >= 10. seed: of the population and of all draws. forgetting: as in
    `FunnelModel`, of every pair at every request. Raises ValueError for values out of range.
    """

    def __init__(
        self, n_users: int = 200, n_authors: int = 100, *, seed: int = 0, forgetting: float = 0.0
    ):
        checks.whole(n_users=n_users)
        checks.whole(CANDIDATES, n_authors=n_authors)
        self.model, self.draw = FunnelModel(forgetting=forgetting), np.random.default_rng(seed)
        users, authors = (self.draw.standard_normal((n, DIM)) for n in (n_users, n_authors))
        weight = np.arange(1, n_authors + 1) ** -ZIPF
        self.popularity = self.draw.permutation(weight / weight.sum())
        b = np.log(self.popularity) - np.log(self.popularity).mean()
        self.affinity = users @ authors.T / np.sqrt(DIM) + 0.3 * b / b.std()
        self.k = np.searchsorted(np.quantile(self.affinity, (0.25, 0.5, 0.75)), self.affinity)
        self.z = np.zeros(self.k.shape, np.uint8)
        self.meet()

    def meet(self) -> None:
        """Draw every user's candidates."""
        known, shape = self.z >= 2, self.z.shape
        turn = self.draw.random(shape, np.float32) * self.model.gap_means[self.z]
        back = np.where(turn < 1, -turn, np.inf)  # with probability 1 / g, before everybody else
        # Exponential races: the C smallest of E / weight are a draw without replacement.
        race = self.draw.standard_exponential(shape, np.float32) / self.popularity
        race = np.where(known, back, race)
        self.slate = np.argpartition(race, CANDIDATES - 1, 1)[:, :CANDIDATES]

    def states(self) -> Int[np.ndarray, "U 10"]:
        """The funnel's states of the candidates, 4 k + z."""
        at = np.arange(len(self.slate))[:, None], self.slate
        return Z * self.k[at] + self.z[at]

    def serve(self, boosts: Int[np.ndarray, "U 10"]) -> dict[str, np.ndarray]:
        """One request: ``author`` shown, its ``boost``, and ``click``, ``follow``, ``gift``, ``reward``.

        boosts: a level for each candidate. Raises ValueError for others than 0, 1, 2.
        """
        rows = np.arange(len(self.slate))
        boosts = valid_actions(boosts, self.slate.shape, len(MULTIPLIERS))
        pull = self.affinity[rows[:, None], self.slate] + np.log(MULTIPLIERS)[boosts]
        place = (pull + self.draw.gumbel(size=pull.shape)).argmax(1)  # softmax
        author, boost = self.slate[rows, place], boosts[rows, place]
        state = self.states()[rows, place].astype(np.uint8)
        seen = self.model.expose(self.draw, state, boost)
        self.z[rows, author] = seen.post_update % Z
        if self.model.forgetting:
            self.z -= (self.draw.random(self.z.shape) < self.model.forgetting) & (self.z > 0)
        self.meet()
        facts = {name: getattr(seen, name) for name in ("click", "follow", "gift", "reward")}
        return {"author": author, "boost": boost, **facts}


def gini(amounts: Float[np.ndarray, " n"]) -> float:
    """Gini coefficient of amounts >= 0: 0 when all are equal, towards 1 when one has everything."""
    ordered = np.sort(np.asarray(amounts, np.float64))
    n = len(ordered)
    if n == 0 or not (ordered[0] >= 0 and 0 < ordered[-1] < np.inf):
        raise ValueError("amounts must be finite, at least 0, and not all 0")
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))
