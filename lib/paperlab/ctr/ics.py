"""Iterative competitive sparsification (ICS), the filter of SSR-D (arXiv 2604.08011), and its control.

    x(0) = ReLU(z),  mu(t) = mean_j x(t)_j,  x(t+1) = ReLU(x(t) - alpha_t mu(t)),  t < T

Not in the paper: alpha kept positive (``constrain``), and the reading as one soft threshold.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks

if TYPE_CHECKING:
    from jaxtyping import Float


def ics(
    z: Float[Tensor, "*rows N"], alpha: Float[Tensor, "*views T"]
) -> tuple[Float[Tensor, "*rows N"], Float[Tensor, "*rows"]]:
    """T times, subtract a share of the mean and clip at 0.

    Returns x(T) and the threshold theta = sum_t alpha_t mu(t). For alpha >= 0 the loop is a soft
    threshold that the sample sets itself: x(T) = ReLU(ReLU(z) - theta). The leading dimensions of
    alpha broadcast to those of z; zeros count in the mean, and gradients flow through it.
    """
    x = F.relu(z)
    threshold = torch.zeros_like(x[..., :1])
    for alpha_t in alpha.unsqueeze(-2).unbind(-1):
        inhibition = alpha_t * x.mean(-1, keepdim=True)
        x = F.relu(x - inhibition)
        threshold = threshold + inhibition
    return x, threshold.squeeze(-1)


def alpha_for(total: float, steps: int, n: int = 128) -> float:
    """The common rate at which ``steps`` steps of ICS inhibit ``total`` > 0 times the mean.

    That is theta / mu(0), averaged over Gaussian inputs of n coordinates. Raises ValueError.
    """
    from scipy.optimize import brentq

    checks.positive(total=total)
    z = torch.randn(1024, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = F.relu(z).mean(-1)

    def excess(alpha: float) -> float:
        return (ics(z, torch.full((steps,), alpha, dtype=z.dtype))[1] / mean).mean().item() - total

    return brentq(excess, 0.0, 1.01 * total, xtol=1e-6)


class Competition(NamedTuple):
    """What ICS did to a batch."""

    sparsity: Float[Tensor, "B views"]  # share of zeros, in [0, 1]
    threshold: Float[Tensor, "B views"]
    dead: float  # share of (sample, view) pairs with nothing left, which pass no gradient on


class ICS(nn.Module):
    """y = gamma * x(T) for all views at once, with learnable alpha (views, T), gamma (views, dim).

    steps: T >= 1. alpha0: initial alpha; 0 freezes it there, and leaves gamma * ReLU(z).
    constrain: alpha = softplus(rho), rho learned, so that alpha stays positive; the paper
        learns alpha itself, and a negative one would feed the losers. alpha0 < 0 is refused then.
    learn_alpha: False keeps alpha0.
    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        dim: int,
        views: int = 1,
        steps: int = 5,
        alpha0: float = 0.1,
        constrain: bool = True,
        learn_alpha: bool = True,
    ):
        super().__init__()
        checks.whole(dim=dim, views=views, steps=steps)
        if constrain and alpha0 < 0:
            raise ValueError(
                f"alpha0 must be 0 or more, got {alpha0}: constrain=False allows below"
            )
        self.constrain = constrain and alpha0 > 0
        rho = math.log(math.expm1(alpha0)) if self.constrain else float(alpha0)
        learn_alpha = learn_alpha and alpha0 != 0
        self.rho = nn.Parameter(torch.full((views, steps), rho), requires_grad=learn_alpha)
        self.gamma = nn.Parameter(torch.ones(views, dim))

    @property
    def alpha(self) -> Float[Tensor, "views T"]:
        return F.softplus(self.rho) if self.constrain else self.rho

    def forward(self, z: Float[Tensor, "B views dim"]) -> Float[Tensor, "B views dim"]:
        return self.gamma * ics(z, self.alpha)[0]

    @torch.no_grad()
    def inspect(self, z: Float[Tensor, "B views dim"]) -> Competition:
        """Sparsity, threshold and dead share for an input of `forward`."""
        x, threshold = ics(z, self.alpha)
        sparsity = (x == 0).float().mean(-1)
        return Competition(sparsity, threshold, (sparsity == 1).float().mean().item())


class TopK(nn.Module):
    """ReLU, then all but the largest ``keep`` share of each view masked; the gradient ignores the mask.

    The released control keeps the sorted values and loses their places.
    """

    def __init__(self, dim: int, keep: float):
        super().__init__()
        self.k = max(1, round(keep * dim))

    def forward(self, z: Float[Tensor, "B views dim"]) -> Float[Tensor, "B views dim"]:
        x = F.relu(z)
        mask = torch.zeros_like(x).scatter(-1, x.topk(self.k, -1).indices, 1.0)
        return x + (x * mask - x).detach()
