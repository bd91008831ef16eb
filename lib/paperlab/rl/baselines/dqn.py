"""DQN: Mnih et al. 2015, with the double estimator of van Hasselt et al. 2016, on a fixed log.

Ours: a target that follows by Polyak averaging, squared errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ...nn.mlp import MLP
from ..offline import Follower, OfflineAgent, chosen

if TYPE_CHECKING:
    from jaxtyping import Float


class DQN(OfflineAgent):
    """Greedy in Q(s, .), an MLP of ``widths``. tau: Polyak step of the target, in (0, 1].

    Targets bootstrap wherever the episode goes on, y = r + gamma (1 - done) Q'(s', argmax Q(s', .)).
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
        self.net = MLP(d_obs, widths, n_actions)
        self.slow = Follower(self.net, tau)

    def q(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "B A"]:
        return self.net(batch["obs"])

    @torch.no_grad()
    def targets(self, batch: Mapping[str, Tensor]) -> Float[Tensor, " B"]:
        best = self.net(batch["next_obs"]).argmax(-1)
        after = chosen(self.slow(batch["next_obs"]), best)
        return batch["reward"] + self.gamma * (1 - batch["done"]) * after

    def loss(self, batch: Mapping[str, Tensor], step: int) -> Float[Tensor, ""]:
        return F.mse_loss(chosen(self.q(batch), batch["action"]), self.targets(batch))

    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
        self.slow.follow(self.net)

    def policy(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "B A"]:
        q = self.q(batch)
        return F.one_hot(q.argmax(-1), q.shape[-1]).to(q.dtype)
