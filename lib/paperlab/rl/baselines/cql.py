"""CQL: Kumar et al., "Conservative Q-Learning for Offline Reinforcement Learning", NeurIPS 2020.

For discrete actions, CQL(H): DQN whose loss also lowers logsumexp_a Q(s, a) and lifts Q at the
logged action (their equation 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from ..offline import chosen
from .dqn import DQN

if TYPE_CHECKING:
    from jaxtyping import Float


class CQL(DQN):
    """alpha: weight of the conservative term, 0 or more; 0 is `DQN`. Other options: `DQN`'s."""

    def __init__(self, d_obs: int, n_actions: int = 2, *, alpha: float = 0.1, **options):
        super().__init__(d_obs, n_actions, **options)
        if alpha < 0:
            raise ValueError(f"alpha must be 0 or more, got {alpha}")
        self.alpha = alpha

    def loss(self, batch: Mapping[str, Tensor], step: int) -> Float[Tensor, ""]:
        q = self.q(batch)
        mine = chosen(q, batch["action"])
        td = F.mse_loss(mine, self.targets(batch))
        return td + self.alpha * (q.logsumexp(-1) - mine).mean()
