"""Discrete SAC: Christodoulou, "Soft Actor-Critic for Discrete Action Settings", 2019.

What differs: a fixed log, and a fixed temperature, so that its fixed point can be checked exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ... import checks
from ...nn.mlp import MLP
from ..offline import OfflineAgent, TargetNetwork, q_of_action

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..offline import Batch


class DiscreteSAC(OfflineAgent):
    """Twin critics and a softmax actor. temperature: weight of the entropy, above 0, in reward.

    y = r + gamma (1 - done) sum_a pi(a|s') (min_j Q'_j(s', a) - temperature log pi(a|s')).
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
        temperature: float = 0.05,
    ):
        super().__init__(gamma, lr)
        checks.positive(temperature=temperature)
        self.temperature = temperature
        self.critics = nn.ModuleList(MLP(d_obs, widths, n_actions) for _ in range(2))
        self.slow = nn.ModuleList(TargetNetwork(c, tau) for c in self.critics)
        self.actor = MLP(d_obs, widths, n_actions)

    def q(self, batch: Batch) -> Float[Tensor, "B A"]:
        return torch.stack([c(batch["obs"]) for c in self.critics]).amin(0)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Float[Tensor, " B"]:
        after = batch["next_obs"]
        q = torch.stack([c(after) for c in self.slow]).amin(0)
        log_pi = self.actor(after).log_softmax(-1)
        soft = (log_pi.exp() * (q - self.temperature * log_pi)).sum(-1)
        return batch["reward"] + self.gamma * (1 - batch["done"]) * soft

    def loss(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        q = torch.stack([c(batch["obs"]) for c in self.critics])
        td = (self.targets(batch) - q_of_action(q, batch["action"])).square().mean(1).sum()
        log_pi = self.actor(batch["obs"]).log_softmax(-1)
        gain = q.detach().amin(0) - self.temperature * log_pi
        return td - (log_pi.exp() * gain).sum(-1).mean()

    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
        for slow, critic in zip(self.slow, self.critics, strict=True):
            slow.update(critic)

    def policy(self, batch: Batch) -> Float[Tensor, "B A"]:
        return self.actor(batch["obs"]).softmax(-1)
