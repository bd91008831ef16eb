"""TD3+BC: Fujimoto and Gu, "A Minimalist Approach to Offline RL", NeurIPS 2021, for discrete actions.

What differs, because actions are discrete: the actor is a softmax whose expected Q is maximised; the
cloning term is the cross-entropy of the logged action in place of a squared distance; the target
takes the expectation over the slow actor; no noise smooths the target action.
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


class TD3BC(OfflineAgent):
    """Twin critics and an actor that is updated at every second step.

    y = r + gamma (1 - done) sum_a pi'(a|s') min_j Q'_j(s', a), with Q' and pi' the slow copies.
    Actor: -lambda sum_a pi(a|s) Q_1(s, a) - log pi(a|s) of the logged action, with
    lambda = alpha / mean |Q_1| (their equations 4 and 5).

    alpha: weight of Q against cloning, 0 or more; 0 clones the log. tau: Polyak step.
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
        alpha: float = 2.5,
    ):
        super().__init__(gamma, lr)
        checks.at_least(0, alpha=alpha)
        self.alpha = alpha
        self.critics = nn.ModuleList(MLP(d_obs, widths, n_actions) for _ in range(2))
        self.actor = MLP(d_obs, widths, n_actions)
        self.slow = nn.ModuleList(TargetNetwork(c, tau) for c in (*self.critics, self.actor))

    def q(self, batch: Batch) -> Float[Tensor, "B A"]:
        return torch.stack([c(batch["obs"]) for c in self.critics]).amin(0)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Float[Tensor, " B"]:
        after, (*critics, actor) = batch["next_obs"], self.slow
        q = torch.stack([c(after) for c in critics]).amin(0)
        value = (actor(after).softmax(-1) * q).sum(-1)
        return batch["reward"] + self.gamma * (1 - batch["done"]) * value

    def loss(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        q = torch.stack([c(batch["obs"]) for c in self.critics])
        td = (self.targets(batch) - q_of_action(q, batch["action"])).square().mean(1).sum()
        if step % 2:
            return td
        logits, first = self.actor(batch["obs"]), q[0].detach()
        weight = self.alpha / first.abs().mean().clamp(min=1e-6)
        gain = (logits.softmax(-1) * first).sum(-1).mean()
        return td - weight * gain + F.cross_entropy(logits, batch["action"])

    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
        for slow, net in zip(self.slow, (*self.critics, self.actor), strict=True):
            slow.update(net)

    def policy(self, batch: Batch) -> Float[Tensor, "B A"]:
        return self.actor(batch["obs"]).softmax(-1)
