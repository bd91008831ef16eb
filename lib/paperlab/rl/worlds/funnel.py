"""UserAuthorFunnel: the life of one user-author pair, exposure by exposure, solved exactly.

A pair has a hidden affinity bucket k in 0..3, which stays, and a relation z: stranger, viewer,
follower, gifter. At each exposure the ranker boosts the author by a in 0..2, at a cost. The viewer
may click; after a click follow, gift or both. Then ``gap`` requests pass until the pair meets
again, and at each of them it may forget one level. The state at that next meeting is not in the log
at training time; RLIV-UA approximates it (`paperlab.rl.rliv_ua`).

A state is numbered s = 4 k + z. The numbers are a teaching preset, denser than any real platform.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ... import checks, mdp
from ...mdp import numbers, sigmoid

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    Batch = Int[np.ndarray, " B"]

K, Z = 4, 4
ONE_HOT = np.eye(K + Z, dtype=np.float32)  # of k, then of z, by state: (16, 8)
ONE_HOT = (ONE_HOT[:K, None] + ONE_HOT[K:]).reshape(K * Z, K + Z)
NEXT_STATES = ("exact", "next_request", "post_update", "stale")
SLOPES = {"click": 0.9, "follow": 1.0, "gift": 0.8}  # of the affinity, in each rate's logit
DECAY = np.array([0.0, 0.10, 0.05, 0.08])  # chance that no click costs a level, by relation
DAYS_PER_REQUEST = 0.2
LONGEST = 65_535  # requests of a gap, cut there
REAL = "(-inf, inf)"
STRANGER = (1.0, 0.0, 0.0, 0.0)  # probabilities of a new pair's relation
ALIKE = (0.25, 0.25, 0.25, 0.25)  # ... and of its affinity
# Outcomes of an exposure: nothing, a level lost, click, and click with follow, gift, or both.
CLICK, FOLLOW, GIFT = np.array([[0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 0, 1], [0, 0, 0, 0, 1, 1]], bool)
_COLUMNS = dict.fromkeys(("state", "action", "post_update", "next_request", "exact"), np.uint8)
_COLUMNS |= dict.fromkeys(("gift", "reward", "time"), np.float32)
_COLUMNS |= dict.fromkeys(("click", "follow"), bool) | {"gap": np.uint16, "pair": np.int32}


class Values(NamedTuple):
    """Discounted values by state: [k, z] in the last two places."""

    total: Float[np.ndarray, "K Z"]  # weighted tasks minus costs
    tasks: Float[np.ndarray, "3 K Z"]  # clicks, follows, gift value; unweighted
    cost: Float[np.ndarray, "K Z"]

    @property
    def new_pair(self) -> float:
        """Mean value of a stranger over the four affinities."""
        return float(self.total[:, 0].mean())


class Exposures(NamedTuple):
    """What a batch of exposures led to."""

    click: Bool[np.ndarray, " B"]
    follow: Bool[np.ndarray, " B"]
    gift: Float[np.ndarray, " B"]  # value, 0 without a gift
    reward: Float[np.ndarray, " B"]  # weighted sum of the three minus the boost's cost
    post_update: Int[np.ndarray, " B"]  # states: after the outcome ...
    next_request: Int[np.ndarray, " B"]  # ... after one request ...
    exact: Int[np.ndarray, " B"]  # ... and when the pair meets again
    gap: Int[np.ndarray, " B"]  # requests until then, >= 1


class FunnelModel:
    """The funnel: its parameters, its exact solution, and draws from it.

    click, follow, gift: the intercept of each rate by relation, in logits (sigma(.) is the rate of
        a pair with affinity 0); only strangers and viewers can follow.
    boost_effects: what a boost adds to the click's logit. boost_costs: its price, >= 0, in reward.
    gift_means: mean value of a gift by relation, > 0 (lognormal, log-sd ``gift_sigma``, 0..5).
    irritation: what each boost adds to the probability that an exposure without a click costs a
        level, [0, .9].
    gap_means: mean requests between exposures by relation after the exposure, >= 1 (geometric).
    forgetting: probability a request that a pair falls one level, [0, 1].
    discount: per exposure, [0, 1). time_discount: per request, (0, 1); given, it replaces it.
    Raises ValueError for values out of range.
    """

    affinity = np.array([-1.0, -0.3, 0.4, 1.2])  # by bucket k
    weights = np.array([0.1, 0.5, 1.0])  # of click, follow and gift value in the reward
    observed, limits = K + Z, (0, 1)  # size and range of what an environment shows

    def __init__(
        self,
        *,
        click=(-2.2, -1.2, -0.2, 0.6),
        follow=(-3.5, -2.5),
        gift=(-9.0, -7.5, -4.5, -2.0),
        boost_effects=(0.0, 0.35, 0.7),
        boost_costs=(0.0, 0.02, 0.06),
        gift_means=(2.0, 2.0, 4.0, 10.0),
        gift_sigma: float = 1.0,
        irritation=(0.0, 0.04, 0.12),
        gap_means=(50.0, 20.0, 8.0, 4.0),
        forgetting: float = 0.0,
        discount: float = 0.95,
        time_discount: float | None = None,
    ):
        self.boost_effects = numbers("boost_effects", boost_effects, REAL)
        self.n_actions = A = self.boost_effects.size
        self.boost_costs = numbers("boost_costs", boost_costs, "[0, inf)", A)
        self.gift_means = numbers("gift_means", gift_means, "(0, inf)", Z)
        self.gap_means = numbers("gap_means", gap_means, "[1, inf)", Z)
        checks.inside("[0, 1]", forgetting=forgetting)
        checks.inside("[0, 1)", discount=discount)
        checks.inside("[0, 5]", gift_sigma=gift_sigma)
        self.forgetting, self.discount, self.gift_sigma = forgetting, discount, gift_sigma
        if time_discount is not None:
            checks.inside("(0, 1)", time_discount=time_discount)
        self.time_discount = time_discount

        click, gift = numbers("click", click, REAL, Z), numbers("gift", gift, REAL, Z)
        follow = (*numbers("follow", follow, REAL, 2), -np.inf, -np.inf)  # z < 2 only
        x = self.affinity[:, None]
        self.p_click = sigmoid(click + SLOPES["click"] * x + self.boost_effects[:, None, None])
        p_follow = sigmoid(np.array(follow) + SLOPES["follow"] * x)  # given a click
        p_gift = sigmoid(gift + SLOPES["gift"] * x)  # given a click, whatever the follow
        falls = DECAY + numbers("irritation", irritation, "[0, 0.9]", A)[:, None, None]
        falls[..., 0] = 0  # a stranger has no level to lose
        chances = [
            (1 - self.p_click) * (1 - falls),
            (1 - self.p_click) * falls,
            self.p_click * (1 - p_follow) * (1 - p_gift),
            self.p_click * p_follow * (1 - p_gift),
            self.p_click * (1 - p_follow) * p_gift,
            self.p_click * p_follow * p_gift,
        ]
        self.outcomes = np.stack(chances)  # (6, A, K, Z)
        z = np.arange(Z)
        seen = np.maximum(z, 1)
        gifted = np.where(z >= 2, 3, seen)  # only a follower becomes a gifter
        after = [z, np.maximum(z - 1, 0), seen, np.maximum(z, 2), gifted, z * 0 + 3]
        self.after = np.stack(after)  # (6, Z): relation after an outcome
        self.P = np.einsum("oakz,ozy->akzy", self.outcomes, np.eye(Z)[self.after])
        counts = np.stack([flag @ self.outcomes.reshape(6, -1) for flag in (CLICK, FOLLOW, GIFT)])
        self.R = counts.reshape(3, A, K, Z)  # expected clicks, follows, gift value
        self.R[2] = self.R[2] * self.gift_means
        self._prepare_draws()

    def gap_operator(self, next_state: str = "exact") -> Float[np.ndarray, "Z Z"]:
        """What lies between the outcome of one exposure and the next: [z, z'] = E[discount; z'].

        With p = 1 / g_z, D the forgetting of one request, gamma_r the discount of one request (or
        1, and gamma outside) and c = (1-p) gamma_r:
        sum_{n>=1} p (1-p)^(n-1) gamma_r^n D^n = p gamma_r D (I - c D)^-1, row z of it.
        The discount per exposure is included.

        next_state: ``exact``; ``next_request``: one request later, always; ``post_update``: at
            once; or ``stale``: the same, and `transitions` leaves the outcome out too. Of the gap,
            these three have the mean discount only.
        Raises ValueError for another name.
        """
        checks.one_of(NEXT_STATES, next_state=next_state)
        eye, fall = np.eye(Z), np.eye(Z, k=-1)
        fall[0, 0] = 1
        D = (1 - self.forgetting) * eye + self.forgetting * fall
        per_request = self.time_discount or 1.0
        outer = 1.0 if self.time_discount else self.discount
        stays = (1 - 1 / self.gap_means) * per_request
        if next_state != "exact":
            discount = per_request / self.gap_means / (1 - stays)  # E[gamma_r^G]
            return outer * discount[:, None] * (D if next_state == "next_request" else eye)
        gaps = zip(self.gap_means, stays, strict=True)
        each = [per_request / g * D @ np.linalg.inv(eye - c * D) for g, c in gaps]
        return outer * np.stack([each[z][z] for z in range(Z)])

    def transitions(self, next_state: str = "exact") -> Float[np.ndarray, "A S S"]:
        """Discounted transitions of the 16 states, with the true or an approximated next state."""
        after = np.broadcast_to(np.eye(Z), self.P.shape) if next_state == "stale" else self.P
        step = after @ self.gap_operator(next_state)  # (A, K, Z, Z)
        whole = np.einsum("akzy,kl->akzly", step, np.eye(K))  # k never changes
        return whole.reshape(self.n_actions, K * Z, K * Z)

    def rewards(self) -> Float[np.ndarray, "A S"]:
        """Expected reward of one exposure: weighted tasks minus the boost's cost."""
        total = np.tensordot(self.weights, self.R, 1) - self.boost_costs[:, None, None]
        return total.reshape(self.n_actions, K * Z)

    def exact_values(self, policy, next_state: str = "exact") -> Values:
        """Values of a policy by a linear solve.

        policy: see `mdp.policy_table`; states may be [k][z] or 0..15.
        next_state: with an approximation, what a learner that uses it believes in the limit.
        """
        A, P = self.n_actions, self.transitions(next_state)
        costs = np.broadcast_to(self.boost_costs[:, None], (A, K * Z))
        each = np.stack([*self.R.reshape(3, A, K * Z), costs, self.rewards()])
        V = mdp.policy_values(P, each, mdp.policy_table(policy, K * Z, A))
        *tasks, cost, total = V.reshape(5, K, Z)
        return Values(total, np.stack(tasks), cost)

    def optimal(self, next_state: str = "exact") -> tuple[Int[np.ndarray, "K Z"], Values]:
        """The best actions [k][z], and what they are worth in the model that chose them."""
        actions = mdp.policy_iteration(self.transitions(next_state), self.rewards())
        return actions.reshape(K, Z), self.exact_values(actions, next_state)

    def myopic(self) -> Int[np.ndarray, "K Z"]:
        """The best actions [k][z] for the reward of this exposure alone."""
        return self.rewards().argmax(0).reshape(K, Z)

    def share(self, policy) -> float:
        """Exact value of a policy for a new pair, as a share of the optimum's."""
        return self.exact_values(policy).new_pair / self.optimal()[1].new_pair

    def _prepare_draws(self) -> None:
        """Tables by flat indices of (state, action, outcome): taking from them is what is fast."""
        joint = self.outcomes.transpose(2, 3, 1, 0).reshape(-1, 6)  # (S A, 6)
        self._by_cell = mdp.Choices(joint)
        state, action, outcome = np.unravel_index(np.arange(joint.size), (K * Z, self.n_actions, 6))
        self._action = action.astype(np.uint8)
        self._after = (Z * (state // Z) + self.after[outcome, state % Z]).astype(np.uint8)
        self._click, self._follow, self._gift = (flag[outcome] for flag in (CLICK, FOLLOW, GIFT))
        self._gift_mean = self.gift_means[state % Z]
        reward = self._click * self.weights[0] + self._follow * self.weights[1]
        self._reward = (reward - self.boost_costs[action]).astype(np.float32)

    def expose(self, draw: np.random.Generator, state: Batch, action: Batch) -> Exposures:
        """Outcome, gap and next states of a batch of exposures. state: 4 k + z, 0..15.

        Raises ValueError for actions outside 0..n_actions-1.
        """
        action = mdp.valid_actions(action, (len(state),), self.n_actions)
        row = state * np.intp(self.n_actions) + action
        return self._unfold(draw, self._by_cell.draw(draw, row))

    def _unfold(self, draw: np.random.Generator, index: Batch) -> Exposures:
        """All that follows from flat indices of (state, action, outcome)."""
        take = lambda table: table.take(index, mode="clip")  # noqa: E731
        post, reward, gift = take(self._after), take(self._reward), np.zeros(len(index), np.float32)
        gave = np.flatnonzero(take(self._gift))
        if len(gave):
            noise = draw.standard_normal(len(gave)) * self.gift_sigma - self.gift_sigma**2 / 2
            gift[gave] = self._gift_mean[index[gave]] * np.exp(noise)
            reward[gave] += np.float32(self.weights[2]) * gift[gave]
        # G = 1 + floor(E / lambda), E exponential, lambda = -log(1 - 1/g): geometric from 1
        gap = draw.standard_exponential(len(index), np.float32)
        gap *= _scale(1 / self.gap_means).take(post & 3, mode="clip")
        gap += 1
        gap = np.minimum(gap, np.float32(LONGEST), out=gap).astype(np.uint16)
        near, far = self._forget(draw, post, gap) if self.forgetting else (post, post)
        click, follow = take(self._click), take(self._follow)
        return Exposures(click, follow, gift, reward, post, near, far, gap)

    def _forget(self, draw: np.random.Generator, post, gap):
        """States after one request and after the gap, on the same path of forgettings."""
        near, far = post.copy(), post.copy()
        when = np.zeros(len(post), np.float32)  # the request of the first, second, third level lost
        for level in range(Z - 1):
            wait = draw.standard_exponential(len(post), np.float32)
            wait *= _scale(self.forgetting)
            when += np.floor(wait, out=wait)
            when += 1
            far -= (when <= gap) & ((far & 3) > 0)
            if level == 0:
                near -= (when == 1) & ((near & 3) > 0)
        return near, far

    def begin(
        self, draw: np.random.Generator, n: int, start=STRANGER, affinities=ALIKE
    ) -> Int[np.ndarray, " n"]:
        """First states of n pairs. start, affinities: probabilities of z and of k."""
        chances = {"start": start, "affinities": affinities}
        for name, given in chances.items():
            chances[name] = numbers(name, given, "[0, 1]", Z)
            if abs(chances[name].sum() - 1) > 1e-6:
                raise ValueError(f"{name} must hold {Z} probabilities that sum to 1, got {given}")
        start, odds = chances.values()
        even = np.ptp(odds) == 0
        k = draw.integers(0, K, n, dtype=np.uint8) if even else draw.choice(K, n, p=odds)
        z = draw.choice(Z, n, p=start) if start.max() < 1 else np.full(n, start.argmax())
        return (Z * k + z).astype(np.uint8)

    def advance(self, draw: np.random.Generator, state: Batch, action: Batch):
        """One exposure of a batch of pairs: next states, rewards, ended (never), what happened."""
        seen = self.expose(draw, state, action)
        info = {name: getattr(seen, name) for name in ("click", "follow", "gift", "gap")}
        ended = np.zeros(len(state), bool)
        return seen.exact.copy(), seen.reward.astype(np.float64), ended, info

    def observe(self, draw: np.random.Generator, state: Batch) -> Float[np.ndarray, "B 8"]:
        """One-hot of k, then of z."""
        return ONE_HOT.take(state, 0)

    def log_dataset(
        self,
        policy,
        n: int,
        seed: int | Sequence[int],
        *,
        steps: int = 50,
        start=STRANGER,
        affinities=ALIKE,
    ) -> dict[str, np.ndarray]:
        """n exposures of independent pairs under a policy.

        seed: as `numpy.random.default_rng` takes it. steps: exposures of a pair, >= 1.
        start: probabilities of a pair's first relation; four equal ones are "exploring starts".
        affinities: probabilities of its affinity bucket.
        Rows of a pair stand in the order of time, but not next to each other: a block of pairs
        takes its first step, then its second.

        Returns arrays of length n: state (4 k + z), action, click, follow (0/1), gift (value),
        reward, post_update, next_request, exact (next states; the stale one is ``state``), gap
        (requests), time (days since the pair's start), pair.
        Raises ValueError for n < 1, steps < 1, a policy or start that is none.
        """
        checks.whole(n=n, steps=steps)
        draw = np.random.default_rng(seed)
        table = mdp.policy_table(policy, K * Z, self.n_actions)
        joint = table[..., None] * self.outcomes.transpose(2, 3, 1, 0).reshape(K * Z, -1, 6)
        by_state = mdp.Choices(joint.reshape(K * Z, -1))  # action and outcome in one draw
        log = {name: np.empty(n, kind) for name, kind in _COLUMNS.items()}
        pairs, block = -(-n // steps), 8192  # a block of pairs stays in the cache
        made = 0
        for first in range(0, pairs, block):
            size = min(block, pairs - first)
            pair = np.arange(first, first + size, dtype=np.int32)
            state, time = self.begin(draw, size, start, affinities), np.zeros(size, np.float32)
            for _ in range(steps):
                keep = min(size, n - made)
                if keep <= 0:
                    break
                index = by_state.draw(draw, state)
                seen = self._unfold(draw, index)
                now = {"state": state, "time": time, "pair": pair, **seen._asdict()}
                now |= {"action": self._action.take(index, mode="clip")}
                for name, values in now.items():
                    log[name][made : made + keep] = values[:keep]
                made += keep
                time = time + seen.gap * np.float32(DAYS_PER_REQUEST)
                state = seen.exact
        return log


def _scale(chance) -> Float[np.ndarray, "*shape"]:
    """1 / lambda of the exponential whose floor is geometric with this chance a request."""
    with np.errstate(divide="ignore"):  # a chance of 1 waits for nothing
        return (-1 / np.log1p(-np.asarray(chance))).astype(np.float32)
