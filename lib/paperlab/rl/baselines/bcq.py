"""Discrete BCQ: Fujimoto et al., "Benchmarking Batch Deep Reinforcement Learning Algorithms", 2019.

DQN that only considers actions which the log itself takes often enough in such a state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ...nn.mlp import MLP
from ..offline import chosen
from .dqn import DQN

if TYPE_CHECKING:
    from jaxtyping import Float


class BCQ(DQN):
    """threshold: an action is allowed where its estimated propensity is above this share of the
    largest one, in [0, 1]; 0 is `DQN`, 1 imitates. Other options: `DQN`'s.
    """

    def __init__(
        self,
        d_obs: int,
        n_actions: int = 2,
        *,
        threshold: float = 0.3,
        widths=(256, 256),
        **options,
    ):
        super().__init__(d_obs, n_actions, widths=widths, **options)
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be in [0, 1], got {threshold}")
        self.threshold = threshold
        self.behaviour = MLP(d_obs, widths, n_actions)

    def allowed(self, obs: Float[Tensor, "B d"], q: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
        """q, and minus infinity where the log hardly goes."""
        share = self.behaviour(obs).softmax(-1)
        return q.masked_fill(share < self.threshold * share.amax(-1, keepdim=True), -torch.inf)

    @torch.no_grad()
    def targets(self, batch: Mapping[str, Tensor]) -> Float[Tensor, " B"]:
        after = batch["next_obs"]
        best = self.allowed(after, self.net(after)).argmax(-1)
        return batch["reward"] + self.gamma * (1 - batch["done"]) * chosen(self.slow(after), best)

    def loss(self, batch: Mapping[str, Tensor], step: int) -> Float[Tensor, ""]:
        imitation = F.cross_entropy(self.behaviour(batch["obs"]), batch["action"])
        return super().loss(batch, step) + imitation

    def policy(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "B A"]:
        q = self.allowed(batch["obs"], self.q(batch))
        return F.one_hot(q.argmax(-1), q.shape[-1]).to(q.dtype)
