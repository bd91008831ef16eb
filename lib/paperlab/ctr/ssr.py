"""SSR: Yu et al., "Beyond Dense Connectivity: Explicit Sparsity for Scalable Recommendation",
SIGIR 2026 (arXiv 2604.08011).

One layer, for views i = 1..b of the input x (B, d_in):

    h_i = F_i(x)                          1. sparse filter: which dimensions this view sees
    z_i = GELU(h_i V_i + c_i)             2. dense fusion inside the view
    y   = concat_i LN_i(z_i)              3. or, in the last layer, mean_i LN_i(z_i)

SSR-S picks d_v random dimensions a view, once and for all; SSR-D projects x to d_v* dimensions a
view and lets them compete (ICS). The paper's equations are the defaults; ``gate``, ``residual`` and
``n_hidden`` are what its released code does beside them. Ours: alpha kept positive, and the
controls ``none``, ``topk``, ``soft`` and ``dropout`` in place of the filter.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.schema import Schema
from ..data.store import Batch
from ..nn import ClickModel, linear
from ..nn.grouped import GroupedLinear

if TYPE_CHECKING:
    from jaxtyping import Float

PROJECTED = ("dynamic", "none", "topk", "soft")  # h_i comes from x W_i
KINDS = ("static", *PROJECTED, "dropout")


def ics(
    z: Float[Tensor, "*rows N"], alpha: Float[Tensor, "*views T"]
) -> tuple[Float[Tensor, "*rows N"], Float[Tensor, "*rows"]]:
    """Iterative competitive sparsification: T times, what is below a share of the mean dies.

        x(0) = ReLU(z),  mu(t) = mean_j x(t)_j,  x(t+1) = ReLU(x(t) - alpha_t mu(t))

    Returns x(T) and the threshold theta = sum_t alpha_t mu(t). For alpha >= 0 the loop is a soft
    threshold that the sample sets itself: x(T) = ReLU(ReLU(z) - theta). The leading dimensions of
    alpha broadcast to those of z; the mean counts the dead, and gradients flow through it.
    """
    x = F.relu(z)
    threshold = torch.zeros_like(x[..., :1])
    for alpha_t in alpha.unsqueeze(-2).unbind(-1):
        inhibition = alpha_t * x.mean(-1, keepdim=True)
        x = F.relu(x - inhibition)
        threshold = threshold + inhibition
    return x, threshold.squeeze(-1)


class Competition(NamedTuple):
    """What ICS did to a batch."""

    sparsity: Float[Tensor, "B views"]  # share of zeros, in [0, 1]
    threshold: Float[Tensor, "B views"]
    dead: float  # share of (sample, view) pairs with nothing left, which pass no gradient on


class ICS(nn.Module):
    """y = gamma * x(T) for all views at once, with learnable alpha (views, T), gamma (views, dim).

    steps: T >= 1. alpha0: initial alpha; 0 freezes it there, and leaves gamma * ReLU(z).
    constrain: alpha = softplus(rho), rho learned, so that alpha stays positive (ours; the paper
        learns alpha itself, and a negative one would feed the losers). alpha0 < 0 is refused then.
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
        if min(dim, views, steps) < 1:
            raise ValueError(
                f"dim, views and steps must be at least 1, got {dim}, {views}, {steps}"
            )
        if constrain and alpha0 < 0:
            raise ValueError(
                f"alpha0 must be 0 or more, got {alpha0}: constrain=False allows below"
            )
        self.constrain = constrain and learn_alpha and alpha0 > 0
        if self.constrain:
            self.rho = nn.Parameter(torch.full((views, steps), math.log(math.expm1(alpha0))))
        elif learn_alpha and alpha0:
            self.free_alpha = nn.Parameter(torch.full((views, steps), float(alpha0)))
        else:
            self.register_buffer("free_alpha", torch.full((views, steps), float(alpha0)))
        self.gamma = nn.Parameter(torch.ones(views, dim))

    @property
    def alpha(self) -> Float[Tensor, "views T"]:
        return F.softplus(self.rho) if self.constrain else self.free_alpha

    def forward(self, z: Float[Tensor, "B views dim"]) -> Float[Tensor, "B views dim"]:
        return self.gamma * ics(z, self.alpha)[0]

    @torch.no_grad()
    def inspect(self, z: Float[Tensor, "B views dim"]) -> Competition:
        """Sparsity, threshold and dead share for an input of `forward`."""
        x, threshold = ics(z, self.alpha)
        sparsity = (x == 0).float().mean(-1)
        return Competition(sparsity, threshold, (sparsity == 1).float().mean().item())


class TopK(nn.Module):
    """ReLU, then all but the largest ``keep`` share of each view masked in place.

    The gradient passes the mask straight through. (Ours: the released control keeps the sorted
    values and loses their places.)
    """

    def __init__(self, dim: int, keep: float):
        super().__init__()
        self.k = max(1, round(keep * dim))

    def forward(self, z: Float[Tensor, "B views dim"]) -> Float[Tensor, "B views dim"]:
        x = F.relu(z)
        top = x.detach().topk(self.k, -1)
        masked = torch.zeros_like(top.values, shape=x.shape) if False else torch.zeros_like(x)
        return x + (masked.scatter(-1, top.indices, top.values) - x).detach()


class StaticRandomFilter(nn.Module):
    """SSR-S: h_i = x[:, I_i], with I_i ``width`` positions drawn without replacement. No weights.

    ``index`` (views, width) is saved with the model; view i is drawn with seed + i. Where width
    exceeds d_in, permutations follow one another.
    """

    def __init__(self, d_in: int, views: int, width: int, seed: int = 0):
        super().__init__()
        drawn = []
        for view in range(views):
            generator = torch.Generator().manual_seed(seed + view)
            rounds = -(-width // d_in)
            orders = [
                torch.randperm(d_in, generator=generator, device="cpu") for _ in range(rounds)
            ]
            drawn.append(torch.cat(orders)[:width])
        self.register_buffer("index", torch.stack(drawn))

    def forward(self, x: Float[Tensor, "B d_in"]) -> Float[Tensor, "B views width"]:
        # Rows of x^T are gathered and their gradients added as whole rows; columns of x are not.
        rows = x.t().contiguous().index_select(0, self.index.flatten())
        return rows.unflatten(0, self.index.shape).permute(2, 0, 1)


class ProjectedFilter(nn.Module):
    """SSR-D: h_i = ICS_i(x W_i), W_i (d_in, star) Glorot normal without bias; and its controls.

    kind: ``dynamic`` is the paper's; ``none`` leaves x W_i as it is; ``topk`` is `TopK`; ``soft``
        takes a learned sigmoid gate for ICS, sigmoid(x W_i) * (x W'_i).
    gate: the released code's branch, h_i = ICS_i(x W_i) * (x W'_i).
    """

    def __init__(
        self, kind: str, d_in: int, views: int, star: int, gate: bool, keep: float, **competition
    ):
        super().__init__()
        self.shape = (views, star)
        self.project = _projection(d_in, views, star)
        self.value = _projection(d_in, views, star) if gate or kind == "soft" else None
        if kind == "dynamic":
            self.select = ICS(star, views, **competition)
        elif kind == "topk":
            self.select = TopK(star, keep)
        else:
            self.select = nn.Sigmoid() if kind == "soft" else nn.Identity()

    def forward(self, x: Float[Tensor, "B d_in"]) -> Float[Tensor, "B views star"]:
        h = self.select(self.project(x).unflatten(1, self.shape))
        return h if self.value is None else h * self.value(x).unflatten(1, self.shape)
