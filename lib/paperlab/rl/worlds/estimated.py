"""EstimatedFunnel: the funnel as a platform sees it, with an estimate in place of the affinity.

The estimate of a pair's affinity bucket is made once, before the first exposure, and is wrong with
probability ``error`` (then each other bucket is equally likely). It splits all pairs into four
groups. Inside a group the platform can only tell relations apart, so a policy is four rules, each
from relation to boost, and is worth the mean of what its rule earns over the group's true
affinities. Both are solved exactly.
"""

from __future__ import annotations

import itertools
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ... import checks, mdp
from .funnel import STRANGER, FunnelModel, K, Z

if TYPE_CHECKING:
    from jaxtyping import Int

STATES = ("state", "post_update", "next_request", "exact")  # columns of a log that hold states


class EstimatedFunnel:
    """A `FunnelModel` whose policies and logs know k^, an estimate of the affinity bucket k.

    error: probability that the estimate is wrong, [0, .75]; at .75 it says nothing.
    options: of `FunnelModel`. Raises ValueError for values out of range.
    """

    def __init__(self, error: float = 0.3, **options):
        checks.inside("[0, 0.75]", error=error)
        self.model = FunnelModel(**options)
        self.confusion = (1 - error) * np.eye(K) + error / (K - 1) * (1 - np.eye(K))  # P(k | k^)

    def new_pair(self, policy, next_state: str = "exact") -> float:
        """Exact value of a new pair. policy: as `mdp.policy_table` takes it, by state 4 k^ + z."""
        rules = mdp.policy_table(policy, K * Z, self.model.n_actions).reshape(K, Z, -1)
        values = [self.model.exact_values(np.stack([r] * K), next_state) for r in rules]
        groups = zip(self.confusion, values, strict=True)
        return float(np.mean([odds @ value.total[:, 0] for odds, value in groups]))

    def optimal(self) -> Int[np.ndarray, "K Z"]:
        """The best boosts by estimate and relation: all n_actions ** 4 rules, solved.

        A policy that also uses a pair's history could infer the affinity from it, and do better.
        """
        rules = np.array([*itertools.product(range(self.model.n_actions), repeat=Z)])
        worth = [self.model.exact_values(np.tile(r, (K, 1))).total[:, 0] for r in rules]
        return rules[(np.stack(worth) @ self.confusion.T).argmax(0)]

    def share(self, policy) -> float:
        """Exact value of a policy for a new pair, as a share of `optimal`'s."""
        return self.new_pair(policy) / self._optimum

    @cached_property
    def _optimum(self) -> float:
        return self.new_pair(self.optimal())

    def log_dataset(
        self, policy, n: int, seed: int, *, steps: int = 50, start=STRANGER
    ) -> dict[str, np.ndarray]:
        """`FunnelModel.log_dataset` with states as the platform sees them, 4 k^ + z.

        policy: by state 4 k^ + z. The true affinity is in the column ``affinity``. Pairs of one
        estimate stand together, the four estimates have a quarter of the rows each.
        Raises ValueError for n < 4 and as `FunnelModel.log_dataset` does.
        """
        checks.whole(K, n=n)
        rules = mdp.policy_table(policy, K * Z, self.model.n_actions).reshape(K, Z, -1)
        parts, pairs = [], 0
        for k, (rule, odds) in enumerate(zip(rules, self.confusion, strict=True)):
            size, how = n * (k + 1) // K - n * k // K, {"steps": steps, "start": start}
            rule = np.stack([rule] * K)  # whatever the true affinity
            log = self.model.log_dataset(rule, size, [seed, k], **how, affinities=odds)
            log["affinity"] = log["state"] // Z
            log |= {name: (Z * k + log[name] % Z).astype(np.uint8) for name in STATES}
            log["pair"] += pairs
            pairs = log["pair"].max() + 1
            parts.append(log)
        return {name: np.concatenate([log[name] for log in parts]) for name in parts[0]}
