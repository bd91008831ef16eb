"""Behaviour cloning: imitate the logged actions (Pomerleau, "ALVINN", NeurIPS 1988).

The rival that reads no reward: an offline agent that earns less than it has learned nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from ...nn.mlp import MLP
from ..offline import OfflineAgent

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..offline import Batch


class BehaviourCloning(OfflineAgent):
    """A softmax over actions, an MLP of ``widths``, by cross-entropy. It has no Q."""

    def __init__(
        self,
        d_obs: int,
        n_actions: int = 2,
        *,
        widths: Sequence[int] = (256, 256),
        lr: float = 1e-3,
    ):
        super().__init__(lr=lr)
        self.actor = MLP(d_obs, widths, n_actions)

    def loss(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        return F.cross_entropy(self.actor(batch["obs"]), batch["action"])

    def policy(self, batch: Batch) -> Float[Tensor, "B A"]:
        return self.actor(batch["obs"]).softmax(-1)
