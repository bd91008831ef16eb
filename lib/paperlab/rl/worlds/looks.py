"""Agents that see LiveAlloc through noise, judged exactly.

Noise is drawn anew at every request, so that a policy of observations is worth what its mean over
the noise is worth in each state: a linear solve. The mean is taken over a fixed set of looks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from ... import checks
from .live import G, LiveModel, N

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Int


class Looks:
    """``each`` observations of every state, ``obs`` (90 each, 16), state by state.

    seed: of the noise. Raises ValueError for each < 1.
    """

    def __init__(self, model: LiveModel, each: int = 16, seed: int = 0):
        checks.whole(each=each)
        self.model, self.each = model, each
        self.obs = model.observe(np.random.default_rng(seed), np.arange(N).repeat(each))

    def mean(self, values: Float[np.ndarray, "90*each k"]) -> Float[np.ndarray, "90 k"]:
        """Mean over the looks at each state."""
        values = np.asarray(values, np.float64)
        return values.reshape(N, self.each, values.shape[-1]).mean(1)

    def worth(self, policy) -> dict[str, float]:
        """Exact yields of a session (`live.Session`), each the mean over groups.

        policy: probabilities for every look (90 each, 2), or any form of `mdp.policy_table`.
        """
        if np.shape(policy) == (len(self.obs), 2):
            policy = self.mean(policy)
        return {k: float(v.mean()) for k, v in self.model.session(policy)._asdict().items()}

    def watch(self, scale: float = 1.0) -> Callable[[object], dict[str, float]]:
        """What `loop.fit` records of an agent at each check; scale: of what it observes.

        The `worth` of its likelier actions, and beside it: ``as served``, the value of its sampled
        actions; ``error``, mean |Q - Q*| with Q averaged over the looks; ``bias, no stream`` and
        ``bias, stream``, mean Q - Q* of an action; ``max Q``, the largest |Q| at any check so far.
        An agent without ``q`` has None for what needs it.
        """
        import torch

        batch = {"obs": torch.tensor(scale * self.obs)}
        batch["group"] = torch.tensor(self.model.group).repeat_interleave(self.each)
        truth = self.model.optimal()[1].T
        peaks: WeakKeyDictionary = WeakKeyDictionary()  # an agent -> its largest |Q|

        def look(agent) -> dict[str, float]:
            policy = agent.policy(batch).double().numpy()
            row = self.worth(np.eye(2)[policy.argmax(1)])
            row["as served"] = self.worth(policy)["value"]
            if not hasattr(agent, "q"):
                return row | dict.fromkeys(("error", "bias, no stream", "bias, stream", "max Q"))
            q = agent.q(batch).double().numpy()
            gap = self.mean(q) - truth
            peaks[agent] = max(peaks.get(agent, 0.0), float(np.abs(q).max()))
            row |= {"error": float(np.abs(gap).mean()), "max Q": peaks[agent]}
            biases = map(float, gap.mean(0))
            return row | dict(zip(("bias, no stream", "bias, stream"), biases, strict=True))

        return look


def nearest(obs: Float[np.ndarray, "B 16"]) -> Int[np.ndarray, " B"]:
    """The state whose group, interest and satiation are nearest to an observation."""
    levels = np.rint(obs[:, G : G + 2] * [2, 4]).clip(0, [2, 4]).astype(int)
    return 15 * obs[:, :G].argmax(1) + levels @ [5, 1]


def eager(model: LiveModel) -> Callable[[Float[np.ndarray, "B 16"]], Float[np.ndarray, "B 2"]]:
    """A logging policy that inserts where users engage, blind to satiation: .1 to .9 either way."""

    def policy(obs: Float[np.ndarray, "B 16"]) -> Float[np.ndarray, "B 2"]:
        logit = obs[:, :G] @ model.engage + 0.8 * (2 * obs[:, G] - 1)
        insert = 0.1 + 0.8 / (1 + np.exp(-logit))
        return np.stack([1 - insert, insert], 1)

    return policy
