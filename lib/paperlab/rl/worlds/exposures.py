"""Exposures of user-author pairs: batches of them, and logs with all that a learner is judged by."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import tabular
from .funnel import CLICK, FOLLOW, GIFT, FunnelTruth, K, Z

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

LONGEST = 65_535  # requests of a gap, cut there


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
    done: Bool[np.ndarray, " B"]  # the pair is lost: it never meets again


class FunnelModel(FunnelTruth):
    """The funnel with its draws. Parameters: `FunnelTruth`."""

    def __init__(self, **parameters):
        super().__init__(**parameters)
        A = self.n_actions
        # Draws come as flat indices into (state, action, outcome).
        table = self.outcomes.transpose(2, 3, 1, 0).reshape(K * Z * A, 6)
        self._by_cell = tabular.Choices(table)
        state, action, outcome = np.unravel_index(np.arange(K * Z * A * 6), (K * Z, A, 6))
        self._after = (Z * (state // Z) + self.after[outcome, state % Z]).astype(np.uint8)
        self._click, self._follow, self._gift = (x[outcome] for x in (CLICK, FOLLOW, GIFT))
        self._action = action.astype(np.uint8)
        self._gift_mean = self.gift_means[state % Z]
        self._reward = self._click * self.weights[0] + self._follow * self.weights[1]
        self._reward = (self._reward - self.boost_costs[action]).astype(np.float32)

    def expose(
        self,
        draw: np.random.Generator,
        state: Int[np.ndarray, " B"],
        action: Int[np.ndarray, " B"],
    ) -> Exposures:
        """Outcome, gap and next states of a batch of exposures. state: 4 k + z, 0..15."""
        return self._unfold(
            draw, self._by_cell.draw(draw, state * np.intp(self.n_actions) + action)
        )

    def _unfold(self, draw: np.random.Generator, found: Int[np.ndarray, " B"]) -> Exposures:
        """All that follows from (state, action, outcome)."""
        n = len(found)
        post = self._after.take(found, mode="clip")
        gave = np.flatnonzero(self._gift.take(found, mode="clip"))
        gift = np.zeros(n, np.float32)
        reward = self._reward.take(found, mode="clip")
        if len(gave):
            noise = draw.standard_normal(len(gave)) * self.gift_sigma - self.gift_sigma**2 / 2
            gift[gave] = self._gift_mean[found[gave]] * np.exp(noise)
            reward[gave] += np.float32(self.weights[2]) * gift[gave]
        gap = self._gaps(draw, post)
        near, far = self._forget(draw, post, gap) if self.forgetting else (post, post)
        done = (gap > self.lost_after) if self.lost_after else np.zeros(n, bool)
        click, follow = self._click.take(found, mode="clip"), self._follow.take(found, mode="clip")
        return Exposures(click, follow, gift, reward, post, near, far, gap, done)

    def _gaps(
        self, draw: np.random.Generator, post: Int[np.ndarray, " B"]
    ) -> Int[np.ndarray, " B"]:
        """Requests until the pair meets again, by the relation after the exposure."""
        z = post & 3
        if self.heavy_tail:
            scale = (self.gap_means * np.exp(-(1.5**2) / 2)).astype(np.float32)
            gap = scale.take(z) * np.exp(1.5 * draw.standard_normal(len(z), np.float32))
            return np.clip(np.rint(gap), 1, LONGEST).astype(np.uint16)
        # G = 1 + floor(E / lambda), E exponential, lambda = -log(1 - 1/g): geometric from 1
        with np.errstate(divide="ignore"):
            stretch = (-1 / np.log1p(-1 / self.gap_means)).astype(np.float32)
        gap = draw.standard_exponential(len(z), np.float32)
        gap *= stretch.take(z, mode="clip")
        gap += 1
        return np.minimum(gap, np.float32(LONGEST), out=gap).astype(np.uint16)

    def _forget(self, draw: np.random.Generator, post, gap):
        """States after one request and after the gap, on the same path of forgettings."""
        n = len(post)
        near, far = post.copy(), post.copy()
        if self.forgetting == 1:
            return post - ((post & 3) > 0), post - np.minimum(post & 3, gap).astype(np.uint8)
        stretch = np.float32(-1 / np.log1p(-self.forgetting))
        when = np.zeros(n, np.float32)  # the request of the first, second, third level lost
        for level in range(Z - 1):
            wait = draw.standard_exponential(n, np.float32)
            wait *= stretch
            when += np.floor(wait, out=wait)
            when += 1
            far -= (when <= gap) & ((far & 3) > 0)
            if level == 0:
                near -= (when == 1) & ((near & 3) > 0)
        return near, far

    def log_dataset(
        self, policy, n: int, seed: int, *, steps: int = 50, start=(1.0, 0.0, 0.0, 0.0)
    ) -> dict[str, np.ndarray]:
        """n exposures of independent pairs under a policy, with all that it takes to judge a learner.

        steps: exposures a pair is followed for, >= 1. start: probabilities of its first relation;
            four equal ones are "exploring starts". Affinity buckets are equally likely.
        Rows of a pair stand in the order of time, but not next to each other: a block of pairs
        takes its first step, then its second. A pair that is lost starts anew, under a new number.

        Returns arrays of length n: state (4 k + z), action, mu (the probability with which it was
        taken), click, follow (0/1), gift (value), reward, post_update, next_request, exact (next
        states; the stale one is ``state``), done, gap (requests), time (days since the pair's
        start), pair.
        Raises ValueError for n < 1, steps < 1, a policy or start that is none.
        """
        if n < 1 or steps < 1:
            raise ValueError(f"n and steps must be at least 1, got {n} and {steps}")
        start = tabular.policy_table([start], 1, Z)[0] if np.shape(start) == (Z,) else None
        if start is None:
            raise ValueError(f"start must hold {Z} probabilities, one a relation")
        draw = np.random.default_rng(seed)
        table = self.policy(policy)
        joint = table[..., None] * self.outcomes.transpose(2, 3, 1, 0).reshape(K * Z, -1, 6)
        by_state = tabular.Choices(joint.reshape(K * Z, -1))  # action and outcome in one draw
        mu = table.astype(np.float32).ravel().repeat(6)
        log = {name: np.empty(n, kind) for name, kind in _COLUMNS.items()}
        unchanged = set()
        if not self.forgetting:  # one array under three names: fresh memory is what costs most
            log["next_request"] = log["exact"] = log["post_update"]
            unchanged |= {"next_request", "exact"}
        if not self.lost_after:
            log["done"] = np.zeros(n, bool)
            unchanged.add("done")
        pairs, block = -(-n // steps), 8192  # a block of pairs stays in the cache
        made = fresh = 0
        for first in range(0, pairs, block):
            size = min(block, pairs - first)
            pair = np.arange(first, first + size, dtype=np.int32)
            state = first_states(draw, size, start)
            time = np.zeros(size, np.float32)
            for _ in range(steps):
                keep = min(size, n - made)
                if keep <= 0:
                    break
                rows = slice(made, made + keep)
                found = by_state.draw(draw, state)
                seen = self._unfold(draw, found)
                now = {"state": state, "time": time, "pair": pair}
                now["action"] = self._action.take(found, mode="clip")
                now["mu"] = mu.take(found, mode="clip")
                for name, values in (now | seen._asdict()).items():
                    if name not in unchanged:
                        log[name][rows] = values[:keep]
                made += keep
                days = seen.gap * np.float32(self.days_per_request)
                time, state = time + days, seen.exact
                lost = np.flatnonzero(seen.done)
                if len(lost):
                    state, pair = state.copy(), pair.copy()
                    state[lost] = first_states(draw, len(lost), start)
                    pair[lost] = pairs + fresh + np.arange(len(lost))
                    time[lost] = 0
                    fresh += len(lost)
        return log


_COLUMNS = {"state": np.uint8, "action": np.uint8, "mu": np.float32, "click": bool, "follow": bool}
_COLUMNS |= {
    "gift": np.float32,
    "reward": np.float32,
    "post_update": np.uint8,
    "next_request": np.uint8,
}
_COLUMNS |= {"exact": np.uint8, "done": bool, "gap": np.uint16, "time": np.float32}
_COLUMNS |= {"pair": np.int32}


def first_states(draw: np.random.Generator, n: int, start) -> Int[np.ndarray, " n"]:
    k = draw.integers(0, K, n, dtype=np.uint8)
    z = draw.choice(Z, n, p=start) if start.max() < 1 else np.full(n, start.argmax())
    return (Z * k + z).astype(np.uint8)
