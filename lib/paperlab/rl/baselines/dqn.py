"""DQN: Mnih et al. 2015, with the double estimator of van Hasselt et al. 2016, on a fixed log.

What differs: a target network that follows by Polyak averaging, squared errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ...nn.mlp import MLP
from ..offline import OfflineAgent, TargetNetwork, q_of_action

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..offline import Batch


class DQN(OfflineAgent):
    """Greedy in Q(s, .), an MLP of ``widths``. tau: Polyak step of the target, in (0, 1].

    gamma = 0 makes it the myopic ranker, a regression of the reward on state and action.
    Targets bootstrap where the episode continues: y = r + gamma (1 - done) Q'(s', argmax Q(s', .)).
    """

    def __init__(
        self,
        d_obs: int,
        n_actions: int = 2,
        *,
        widths: Sequence[int] = (256, 256),
        gamma: float = 0.9,
        lr: float = 1e-3,
        tau: float = 0.005,
    ):
        super().__init__(gamma, lr)
        self.widths, self.net = widths, MLP(d_obs, widths, n_actions)
        self.slow = TargetNetwork(self.net, tau)

    def allowed(self, obs: Float[Tensor, "B d"], q: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
        """Q by which actions are compared."""
        return q

    def q(self, batch: Batch) -> Float[Tensor, "B A"]:
        return self.net(batch["obs"])

    @torch.no_grad()
    def targets(self, batch: Batch) -> Float[Tensor, " B"]:
        after = batch["next_obs"]
        best = self.allowed(after, self.net(after)).argmax(-1)
        value = q_of_action(self.slow(after), best)
        return batch["reward"] + self.gamma * (1 - batch["done"]) * value

    def loss(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        return F.mse_loss(q_of_action(self.q(batch), batch["action"]), self.targets(batch))

    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
        self.slow.update(self.net)

    def policy(self, batch: Batch) -> Float[Tensor, "B A"]:
        q = self.allowed(batch["obs"], self.q(batch))
        return F.one_hot(q.argmax(-1), q.shape[-1]).to(q.dtype)
