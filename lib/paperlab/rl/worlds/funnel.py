"""UserAuthorFunnel: the life of one user-author pair, exposure by exposure, solved exactly.

A pair has a hidden affinity bucket k in 0..3, which stays, and a relation z: stranger, viewer,
follower, gifter. At each exposure the ranker boosts the author by a in 0..2, at a cost. The viewer may
click; after a click follow, gift or both. Then ``gap`` requests pass until the pair meets again,
and at each of them it may forget one level. No log shows that state at training time: that is what
the approximations of the next state are about (RLIV-UA, `paperlab.rl.rliv_ua`).

A state is numbered s = 4 k + z. The numbers are a teaching preset, denser than any real platform.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import tabular
from .tabular import numbers, sigmoid

if TYPE_CHECKING:
    from jaxtyping import Float, Int

AFFINITY = (-1.0, -0.3, 0.4, 1.2)
RELATIONS = ("stranger", "viewer", "follower", "gifter")
TASKS = ("click", "follow", "gift")
K, Z = len(AFFINITY), len(RELATIONS)
NEXT_STATES = ("exact", "next_request", "post_update", "stale")
# Outcomes of an exposure, in the order of the cumulative table.
CLICK, FOLLOW, GIFT = np.array([[0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 0, 1], [0, 0, 0, 0, 1, 1]], bool)


class Values(NamedTuple):
    """Discounted values by state: [k, z] in the last two places."""

    total: Float[np.ndarray, "K Z"]  # weighted tasks minus costs
    tasks: Float[np.ndarray, "3 K Z"]  # clicks, follows, gift value; unweighted
    cost: Float[np.ndarray, "K Z"]
    q: Float[np.ndarray, "A K Z"]  # total of an action now, the policy afterwards

    @property
    def new_pair(self) -> float:
        """Value of a stranger whose affinity is not known: the mean over k at z = 0."""
        return float(self.total[:, 0].mean())


class FunnelTruth:
    """The funnel's parameters and its exact solution.

    click, follow, gift: the intercept of each rate by relation, in logits (sigma(.) is the rate of
        a pair with affinity 0); click_slope and the like multiply the affinity.
    boost_effects: what a boost adds to the click's logit. boost_costs: its price, >= 0, in reward.
    gift_means: mean value of a gift by relation, > 0 (lognormal, log-sd ``gift_sigma``).
    decay, irritation: probability that an exposure without a click costs a level, by relation and
        by boost; their sum must stay in [0, 1].
    gap_means: mean requests between exposures by relation after the exposure, >= 1 (geometric;
        ``heavy_tail`` takes a lognormal of the same mean and log-sd 1.5, rounded, instead).
    forgetting: probability a request that a pair falls one level, [0, 1].
    weights: of click, follow and gift value in the reward. discount: per exposure, [0, 1).
    time_discount: per request, (0, 1); given, it replaces ``discount``.
    lost_after: requests without an exposure after which a pair never meets again; None: never lost.
    days_per_request: turns requests into days in logs.
    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        *,
        click=(-2.2, -1.2, -0.2, 0.6),
        follow=(-3.5, -2.5),
        gift=(-9.0, -7.5, -4.5, -2.0),
        click_slope: float = 0.9,
        follow_slope: float = 1.0,
        gift_slope: float = 0.8,
        affinity=AFFINITY,
        boost_effects=(0.0, 0.35, 0.7),
        boost_costs=(0.0, 0.02, 0.06),
        gift_means=(2.0, 2.0, 4.0, 10.0),
        gift_sigma: float = 1.0,
        decay=(0.0, 0.10, 0.05, 0.08),
        irritation=(0.0, 0.04, 0.12),
        gap_means=(50.0, 20.0, 8.0, 4.0),
        forgetting: float = 0.0,
        weights=(0.1, 0.5, 1.0),
        discount: float = 0.95,
        time_discount: float | None = None,
        heavy_tail: bool = False,
        lost_after: int | None = None,
        days_per_request: float = 0.2,
    ):
        self.boost_effects = numbers("boost_effects", boost_effects, -np.inf, np.inf)
        self.n_actions = A = len(self.boost_effects)
        self.boost_costs = numbers("boost_costs", boost_costs, 0, np.inf, A)
        self.affinity = numbers("affinity", affinity, -np.inf, np.inf, K)
        self.gift_means = numbers("gift_means", gift_means, 0, np.inf, Z, "()")
        self.gap_means = numbers("gap_means", gap_means, 1, np.inf, Z)
        self.weights = numbers("weights", weights, 0, np.inf, len(TASKS))
        self.decay = numbers("decay", decay, 0, 1, Z)
        self.irritation = numbers("irritation", irritation, 0, 1, A)
        self.forgetting = float(numbers("forgetting", forgetting, 0, 1))
        self.discount = float(numbers("discount", discount, 0, 1, ends="[)"))
        self.gift_sigma = float(numbers("gift_sigma", gift_sigma, 0, 5))
        self.days_per_request = float(
            numbers("days_per_request", days_per_request, 0, np.inf, ends="()")
        )
        if self.decay[1:].max() + self.irritation.max() > 1:
            raise ValueError("decay + irritation must be in [0, 1]: it is a probability")
        if time_discount is not None and not 0 < time_discount < 1:
            raise ValueError(f"time_discount must be in (0, 1) or None, got {time_discount}")
        if lost_after is not None and lost_after < 1:
            raise ValueError(f"lost_after must be at least 1 request or None, got {lost_after}")
        self.time_discount, self.heavy_tail = time_discount, heavy_tail
        self.lost_after = lost_after

        x = self.affinity[:, None]
        follow = (*numbers("follow", follow, -np.inf, np.inf, 2), -np.inf, -np.inf)  # z < 2 only
        click = numbers("click", click, -np.inf, np.inf, Z)
        gift = numbers("gift", gift, -np.inf, np.inf, Z)
        for name, slope in (("click", click_slope), ("follow", follow_slope), ("gift", gift_slope)):
            numbers(f"{name}_slope", slope, -np.inf, np.inf)
        p_click = sigmoid(click + click_slope * x + self.boost_effects[:, None, None])  # (A, K, Z)
        p_follow = sigmoid(np.array(follow) + follow_slope * x)  # given a click
        p_gift = sigmoid(gift + gift_slope * x)  # given a click, whatever the follow
        self.p_click = p_click
        falls = self.decay + self.irritation[:, None, None]
        falls[..., 0] = 0  # a stranger has no level to lose
        self.outcomes = np.stack(  # (6, A, K, Z)
            [
                (1 - p_click) * (1 - falls),
                (1 - p_click) * falls,
                p_click * (1 - p_follow) * (1 - p_gift),
                p_click * p_follow * (1 - p_gift),
                p_click * (1 - p_follow) * p_gift,
                p_click * p_follow * p_gift,
            ]
        )
        z = np.arange(Z)
        seen, followed = np.maximum(z, 1), np.maximum(z, 2)
        gifted = np.where(z >= 2, 3, seen)  # only a follower becomes a gifter
        self.after = np.stack(
            [z, np.maximum(z - 1, 0), seen, followed, gifted, z * 0 + 3]
        )  # (6, Z)
        self._tables()

    def _tables(self) -> None:
        """P and R from outcomes, and flat tables for drawing."""
        A = self.n_actions
        into = np.eye(Z)[self.after]  # (6, Z, Z)
        self.P = np.einsum("oakz,ozy->akzy", self.outcomes, into)
        counts = np.stack([flag @ self.outcomes.reshape(6, -1) for flag in (CLICK, FOLLOW, GIFT)])
        self.R = counts.reshape(3, A, K, Z)
        self.R[2] = self.R[2] * self.gift_means

    # Exact ---------------------------------------------------------------------------------------

    def gap_operator(self, next_state: str = "exact") -> Float[np.ndarray, "Z Z"]:
        """What lies between the outcome of one exposure and the next: [z, z'] = E[discount; z'].

        With p = 1 / g_z, D the forgetting of one request, gamma_r the discount of one request (or
        1, and gamma outside) and H = lost_after:
        sum_{n=1..H} p (1-p)^(n-1) gamma_r^n D^n = p gamma_r D (I - c D)^-1 (I - (c D)^H),
        c = (1-p) gamma_r; row z of it. The discount per exposure is included.

        next_state: ``exact``; ``next_request``: one request later, always; ``post_update``: at
            once; or ``stale``: the same, and `transitions` leaves the outcome out too. These three
            know nothing of the gap but its mean discount, and never lose a pair.
        Raises ValueError for another name, or where a heavy tail has no closed form.
        """
        if next_state not in NEXT_STATES:
            raise ValueError(
                f"next_state must be one of {', '.join(NEXT_STATES)}, not {next_state!r}"
            )
        depends = self.forgetting > 0 or self.time_discount is not None or self.lost_after
        if self.heavy_tail and depends:
            raise ValueError(
                "heavy_tail must be False for exact values with forgetting, time_discount or "
                "lost_after: its gaps have no closed form"
            )
        eye, D = np.eye(Z), self.forget_once()
        per_request = self.time_discount or 1.0
        whole = np.empty((Z, Z))
        discount = np.empty((Z, 1))
        for z, g in enumerate(self.gap_means):
            stays = (1 - 1 / g) * per_request
            discount[z] = per_request / g / (1 - stays)  # E[gamma_r^G]
            power = np.linalg.matrix_power(stays * D, self.lost_after) if self.lost_after else 0
            whole[z] = (per_request / g * D @ np.linalg.inv(eye - stays * D) @ (eye - power))[z]
        outer = 1.0 if self.time_discount else self.discount
        if next_state == "exact":
            return outer * whole
        return outer * discount * (D if next_state == "next_request" else eye)

    def forget_once(self) -> Float[np.ndarray, "Z Z"]:
        """D: one request's forgetting, z to z - 1."""
        fall = np.eye(Z, k=-1)
        fall[0, 0] = 1
        return (1 - self.forgetting) * np.eye(Z) + self.forgetting * fall

    def transitions(self, next_state: str = "exact") -> Float[np.ndarray, "A S S"]:
        """Discounted transitions over the 16 states, with the true or an approximated next state."""
        after = np.broadcast_to(np.eye(Z), self.P.shape) if next_state == "stale" else self.P
        step = after @ self.gap_operator(next_state)  # (A, K, Z, Z)
        whole = np.zeros((self.n_actions, K, Z, K, Z))
        for k in range(K):  # k never changes
            whole[:, k, :, k] = step[:, k]
        return whole.reshape(self.n_actions, K * Z, K * Z)

    def rewards(self) -> Float[np.ndarray, "A S"]:
        """Expected reward of one exposure: weighted tasks minus the boost's cost."""
        total = np.tensordot(self.weights, self.R, 1) - self.boost_costs[:, None, None]
        return total.reshape(self.n_actions, K * Z)

    def exact_values(self, policy, next_state: str = "exact") -> Values:
        """Values of a policy by a linear solve.

        policy: an action, actions [k][z] or (16,), or probabilities [k][z][a] or (16, A).
        next_state: with an approximation, what a learner that uses it believes in the limit.
        """
        table, A = self.policy(policy), self.n_actions
        P = self.transitions(next_state)
        costs = np.broadcast_to(self.boost_costs[:, None], (A, K * Z))
        each = [*self.R.reshape(3, A, K * Z), costs, self.rewards()]
        V = tabular.policy_values(P, np.stack(each), table)
        q = tabular.action_values(P, self.rewards(), V[4])
        V = V.reshape(5, K, Z)
        return Values(V[4], V[:3], V[3], q.reshape(A, K, Z))

    def optimal(self, next_state: str = "exact") -> tuple[Int[np.ndarray, "K Z"], Values]:
        """The best actions [k][z], and what they are worth in the model that chose them."""
        actions = tabular.policy_iteration(self.transitions(next_state), self.rewards())
        return actions.reshape(K, Z), self.exact_values(actions, next_state)

    def myopic(self) -> Int[np.ndarray, "K Z"]:
        """The best actions [k][z] for the reward of this exposure alone."""
        return self.rewards().argmax(0).reshape(K, Z)

    def policy(self, policy) -> Float[np.ndarray, "S A"]:
        """Probabilities (16, A) of a policy in any of its forms; ``"uniform"`` is one."""
        A = self.n_actions
        if isinstance(policy, str):
            if policy != "uniform":
                raise ValueError(f"policy must be 'uniform', actions or probabilities: {policy!r}")
            return np.full((K * Z, A), 1 / A)
        given = np.asarray(policy)
        if given.shape[:2] == (K, Z):
            given = given.reshape(K * Z, *given.shape[2:])
        return tabular.policy_table(given, K * Z, A)
