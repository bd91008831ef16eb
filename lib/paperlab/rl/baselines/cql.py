"""CQL: Kumar et al., "Conservative Q-Learning for Offline Reinforcement Learning", NeurIPS 2020.

For discrete actions, CQL(H): DQN whose loss also lowers logsumexp_a Q(s, a) and lifts Q at the
logged action (their equation 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from ... import checks
from ..offline import q_of_action
from .dqn import DQN

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..offline import Batch


class CQL(DQN):
    """alpha: weight of the conservative term, 0 or more; 0 is `DQN`. Other options: `DQN`'s."""

    def __init__(self, d_obs: int, n_actions: int = 2, *, alpha: float = 0.1, **options):
        super().__init__(d_obs, n_actions, **options)
        checks.at_least(0, alpha=alpha)
        self.alpha = alpha

    def loss(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        q = self.q(batch)
        mine = q_of_action(q, batch["action"])
        td = F.mse_loss(mine, self.targets(batch))
        return td + self.alpha * (q.logsumexp(-1) - mine).mean()
