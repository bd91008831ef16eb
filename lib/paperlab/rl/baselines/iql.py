"""IQL: Kostrikov, Nair, Levine, "Offline Reinforcement Learning with Implicit Q-Learning", ICLR 2022.

V is an upper expectile of Q over the logged actions, so targets never use the value of an action
that the log did not take. Their actor, weighted cloning, fits discrete actions as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ... import checks
from ...nn.mlp import MLP
from ..offline import OfflineAgent, TargetNetwork, q_of_action

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..offline import Batch

CEILING = 100.0  # of the actor's weights, as in the authors' code


def expectile_loss(error: Float[Tensor, " B"], expectile: float) -> Float[Tensor, ""]:
    """Mean of |expectile - 1[error < 0]| error^2 (equation 5): above .5 it leans to the maximum."""
    return (torch.where(error < 0, 1 - expectile, expectile) * error.square()).mean()


class IQL(OfflineAgent):
    """Twin critics, a state value and an actor, each an MLP of ``widths``.

    V    expectile of min_j Q'_j(s, a) - V(s)                   equation 5
    Q    (r + gamma (1 - done) V(s') - Q(s, a))^2               equation 6
    pi   -exp(beta (min_j Q'_j(s, a) - V(s))) log pi(a|s)       equation 7

    expectile: in (0, 1). beta: inverse temperature of the actor, 0 or more; 0 clones the log.
    tau: Polyak step of the target critics Q'.
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
        expectile: float = 0.7,
        beta: float = 3.0,
    ):
        super().__init__(gamma, lr)
        checks.inside("(0, 1)", expectile=expectile)
        checks.at_least(0, beta=beta)
        self.expectile, self.beta = expectile, beta
        self.critics = nn.ModuleList(MLP(d_obs, widths, n_actions) for _ in range(2))
        self.slow = nn.ModuleList(TargetNetwork(c, tau) for c in self.critics)
        self.value = MLP(d_obs, widths, 1)
        self.actor = MLP(d_obs, widths, n_actions)

    def q(self, batch: Batch) -> Float[Tensor, "B A"]:
        return torch.stack([c(batch["obs"]) for c in self.critics]).amin(0)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Float[Tensor, " B"]:
        after = self.value(batch["next_obs"]).squeeze(-1)
        return batch["reward"] + self.gamma * (1 - batch["done"]) * after

    def loss(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        obs, action = batch["obs"], batch["action"]
        with torch.no_grad():
            slow = q_of_action(torch.stack([c(obs) for c in self.slow]).amin(0), action)
        q = q_of_action(torch.stack([c(obs) for c in self.critics]), action)
        td = (self.targets(batch) - q).square().mean(1).sum()
        advantage = slow - self.value(obs).squeeze(-1)
        weight = (self.beta * advantage.detach()).exp().clamp(max=CEILING)
        cloning = F.cross_entropy(self.actor(obs), action, reduction="none")
        return td + expectile_loss(advantage, self.expectile) + (weight * cloning).mean()

    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
        for slow, critic in zip(self.slow, self.critics, strict=True):
            slow.update(critic)

    def policy(self, batch: Batch) -> Float[Tensor, "B A"]:
        return self.actor(batch["obs"]).softmax(-1)
