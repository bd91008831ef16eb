"""The myopic ranker: predict the reward of each action, take the best (what most feeds do)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from ..offline import chosen
from .dqn import DQN

if TYPE_CHECKING:
    from jaxtyping import Float


class MyopicRanker(DQN):
    """`DQN` with gamma = 0: regression of the reward on state and action. Options: `DQN`'s."""

    def __init__(self, d_obs: int, n_actions: int = 2, **options):
        super().__init__(d_obs, n_actions, gamma=0.0, **options)

    def loss(self, batch: Mapping[str, Tensor], step: int) -> Float[Tensor, ""]:
        return F.mse_loss(chosen(self.q(batch), batch["action"]), batch["reward"])
