"""Discrete BCQ: Fujimoto et al., "Benchmarking Batch Deep Reinforcement Learning Algorithms", 2019.

DQN that only considers actions which the log itself takes often enough in such a state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ... import checks
from ...nn.mlp import MLP
from .dqn import DQN

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..offline import Batch


class BCQ(DQN):
    """threshold: an action is allowed where its estimated propensity is above this share of the
    largest one, in [0, 1]; 0 is `DQN`, 1 imitates. Other options: `DQN`'s.
    """

    def __init__(self, d_obs: int, n_actions: int = 2, *, threshold: float = 0.3, **options):
        super().__init__(d_obs, n_actions, **options)
        checks.inside("[0, 1]", threshold=threshold)
        self.threshold = threshold
        self.behaviour = MLP(d_obs, self.widths, n_actions)

    def allowed(self, obs: Float[Tensor, "B d"], q: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
        """q, and minus infinity where the log hardly goes."""
        share = self.behaviour(obs).softmax(-1)
        return q.masked_fill(share < self.threshold * share.amax(-1, keepdim=True), -torch.inf)

    def loss(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        imitation = F.cross_entropy(self.behaviour(batch["obs"]), batch["action"])
        return super().loss(batch, step) + imitation
