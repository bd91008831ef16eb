"""SSR: Yu et al., "Beyond Dense Connectivity: Explicit Sparsity for Scalable Recommendation",
SIGIR 2026 (arXiv 2604.08011).

One layer, for views i = 1..b of the input x (B, d_in):

    h_i = F_i(x)                          1. sparse filter: which dimensions this view sees
    z_i = GELU(h_i V_i + c_i)             2. dense fusion inside the view
    y   = concat_i LN_i(z_i)              3. or, in the last layer, mean_i LN_i(z_i)

SSR-S picks d_v random dimensions a view, once and for all; SSR-D projects x to d_v* dimensions a
view and lets them compete (ICS). The paper's equations are the defaults; ``gate``, ``residual`` and
``n_hidden`` are what its released code does beside them. Not in the paper: alpha kept positive, and
the controls ``dense``, ``none``, ``topk``, ``soft`` and ``dropout`` in place of the filter.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from ..data.schema import Schema
from ..data.store import Batch
from ..nn.click import ClickModel
from ..nn.grouped import GroupedLayerNorm, GroupedLinear
from ..nn.mlp import linear
from .baselines.dnn import DNN
from .baselines.lr import LR
from .ics import ICS, TopK

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float

PROJECTED = ("dynamic", "none", "topk", "soft")  # h_i comes from x W_i
KINDS = ("static", *PROJECTED, "dense", "dropout")


class StaticRandomFilter(nn.Module):
    """SSR-S: h_i = x[:, I_i], with I_i ``width`` positions drawn without replacement. No weights.

    ``index`` (views, width) is saved with the model; view i is drawn with seed + i. Where width
    exceeds d_in, permutations follow one another.
    """

    def __init__(self, d_in: int, views: int, width: int, seed: int = 0):
        super().__init__()
        rounds, drawn = -(-width // d_in), []
        for view in range(views):
            draw = torch.Generator("cpu").manual_seed(seed + view)
            orders = [torch.randperm(d_in, generator=draw, device="cpu") for _ in range(rounds)]
            drawn.append(torch.cat(orders)[:width])
        self.register_buffer("index", torch.stack(drawn))

    def forward(self, x: Float[Tensor, "B d_in"]) -> Float[Tensor, "B views width"]:
        # Faster than x[:, index], forward and backward.
        return x.index_select(1, self.index.flatten()).unflatten(1, self.index.shape)


def meeting_chance(fields: int, dim: int, views: int, width: int) -> float:
    """Probability that some view of `StaticRandomFilter` holds coordinates of two given fields.

    dim: coordinates a field, of fields * dim in all; width: coordinates a view, at most all.
    """
    every = math.comb(fields * dim, width)
    one, both = (math.comb(fields * dim - gone, width) / every for gone in (dim, 2 * dim))
    return 1 - (2 * one - both) ** views


class ProjectedFilter(nn.Module):
    """SSR-D: h_i = ICS_i(x W_i), W_i (d_in, star) Glorot normal without bias.

    select: ICS, or a control in its place. gate: a second projection W'_i multiplies what is
        selected, h_i = ICS_i(x W_i) * (x W'_i), as in the released code.
    """

    def __init__(self, d_in: int, views: int, star: int, select: nn.Module, gate: bool):
        super().__init__()
        self.shape, self.select = (views, star), select
        self.project = _projection(d_in, views, star)
        self.value = _projection(d_in, views, star) if gate else None

    def forward(self, x: Float[Tensor, "B d_in"]) -> Float[Tensor, "B views star"]:
        h = self.select(self.project(x).unflatten(1, self.shape))
        return h if self.value is None else h * self.value(x).unflatten(1, self.shape)


class InputDropout(nn.Module):
    """The control of SSR-S: each view sees x with its own random ``1 - keep`` share dropped."""

    def __init__(self, views: int, keep: float):
        super().__init__()
        self.views, self.rate = views, 1 - keep

    def forward(self, x: Float[Tensor, "B d_in"]) -> Float[Tensor, "B views d_in"]:
        return F.dropout(x[:, None].expand(-1, self.views, -1), self.rate, self.training)


class SSRLayer(nn.Module):
    """Filter, fuse, aggregate: (B, d_in) to (B, views * width), or to (B, width) if ``last``.

    kind, star, gate and the rest: see `SSR`. seed: that of the static filter's first view.
    ``filter(x)`` gives h (B, views, .), whose zeros are what the filter left out.
    """

    def __init__(
        self,
        kind: str,
        d_in: int,
        views: int,
        width: int,
        star: int | None = None,
        *,
        last: bool = False,
        gate: bool = False,
        residual: bool = False,
        n_hidden: int = 1,
        keep: float = 0.25,
        seed: int = 0,
        steps: int = 5,
        alpha0: float = 0.1,
        constrain: bool = True,
        learn_alpha: bool = True,
    ):
        checks.one_of(KINDS, kind=kind)
        checks.whole(views=views, width=width, n_hidden=n_hidden)
        checks.inside("(0, 1]", keep=keep)
        if star is not None and (kind not in PROJECTED or star < 1):
            raise ValueError(f"star is the width >= 1 of a projection: not {star} with {kind!r}")
        if gate and kind != "dynamic":
            raise ValueError(
                f"gate multiplies ICS's survivors: kind must be 'dynamic', not {kind!r}"
            )
        super().__init__()
        if kind == "static":
            seen, self.filter = width, StaticRandomFilter(d_in, views, width, seed)
        elif kind in ("dense", "dropout"):
            seen, self.filter = d_in, InputDropout(views, 1.0 if kind == "dense" else keep)
        else:
            seen = star or width
            select = {
                "dynamic": lambda: ICS(seen, views, steps, alpha0, constrain, learn_alpha),
                "none": nn.Identity,
                "topk": lambda: TopK(seen, keep),
                "soft": nn.Sigmoid,
            }[kind]()
            self.filter = ProjectedFilter(d_in, views, seen, select, gate or kind == "soft")
        if residual and seen != width:
            raise ValueError(f"residual needs a filter as wide as a view: {seen} is not {width}")
        self.fusion = nn.ModuleList(
            GroupedLinear(views, d, width) for d in (seen, *[width] * (n_hidden - 1))
        )
        self.norm = GroupedLayerNorm(views, width)
        self.residual, self.last = residual, last
        self.d_out = width if last else views * width

    def forward(self, x: Float[Tensor, "B d_in"]) -> Float[Tensor, "B d_out"]:
        h = z = self.filter(x).transpose(0, 1)
        for dense in self.fusion:
            z = F.gelu(dense(z))
        z = self.norm(h + z if self.residual else z)
        return z.mean(0) if self.last else z.transpose(0, 1).flatten(1)


class SSR(ClickModel):
    """SSR-S (``kind="static"``) or SSR-D (``"dynamic"``): layers of sparse views, mean, Linear.

    kind: or a control. ``dense`` removes the filter, h_i = x, and keeps all else: views, GELU,
        LayerNorm, initial weights. In place of ICS, ``none`` leaves x W_i as it is, ``topk`` is
        `TopK`, ``soft`` is a learned gate, sigmoid(x W_i) * (x W'_i). In place of the random choice,
        ``dropout`` is `InputDropout`.
    views: b. width: d_v. star: d_v*, for projected kinds only; None takes ``width``.
    layers: L. steps: T, alpha0, constrain, learn_alpha: see `ICS`.
    gate, residual, n_hidden: the released code's second projection (dynamic only), z_i + h_i before
        LN (star = width), and number of dense layers a view. It runs SSR-D with both flags on, and
        SSR-S with residual and n_hidden = 2.
    keep: share of coordinates that ``topk`` and ``dropout`` keep, in (0, 1].
    seed: draws static filters; view i of layer l has 1000 l + i as in the released code, plus
        1,000,000 seeds. None takes the seed that torch was given last, so that runs differ in it.
    options: see `ClickModel`.
    Raises ValueError for unknown kinds, numbers out of range and options that do not go together.
    """

    def __init__(
        self,
        schema: Schema,
        kind: str = "dynamic",
        *,
        dim: int = 16,
        views: int = 8,
        width: int = 64,
        star: int | None = None,
        layers: int = 2,
        steps: int = 5,
        alpha0: float = 0.1,
        constrain: bool = True,
        learn_alpha: bool = True,
        gate: bool = False,
        residual: bool = False,
        n_hidden: int = 1,
        keep: float = 0.25,
        seed: int | None = None,
        **options,
    ):
        checks.whole(layers=layers)
        super().__init__(schema, dim, **options)
        layer_options = dict(star=star, gate=gate, residual=residual, n_hidden=n_hidden, keep=keep)
        layer_options |= dict(
            steps=steps, alpha0=alpha0, constrain=constrain, learn_alpha=learn_alpha
        )
        if seed is None:
            seed = torch.initial_seed() % 1_000_000
        self.layers, d_in = nn.Sequential(), self.d_in
        for layer in range(layers):
            first_seed, last = 1_000_000 * seed + 1000 * layer, layer == layers - 1
            made = SSRLayer(kind, d_in, views, width, last=last, seed=first_seed, **layer_options)
            self.layers.append(made)
            d_in = made.d_out
        self.head = linear(width, 1)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        return self.head(self.layers(self.embed(batch).flatten(1))).squeeze(1)

    @torch.no_grad()
    def filtered(self, batch: Batch) -> list[Float[Tensor, "B views star"]]:
        """h of every layer: what the filters let through, for plots of sparsity and activity."""
        x, seen = self.embed(batch).flatten(1), []
        for layer in self.layers:
            seen.append(layer.filter(x))
            x = layer(x)
        return seen


def _projection(d_in: int, views: int, star: int) -> nn.Linear:
    """All views' W_i in one Linear, each Glorot normal."""
    project = nn.Linear(d_in, views * star, bias=False)
    for weight in project.weight.chunk(views):
        nn.init.xavier_normal_(weight)
    return project


def contenders() -> dict[str, Callable[[Schema, int | None], ClickModel]]:
    """What `paperlab.tryout` compares: SSR, its control without a filter, a plain network, LR."""
    std = {"std": 0.03}  # as wide as the released code's initial embeddings, for all

    def ssr(kind: str, views: int = 8):
        return lambda schema, width: SSR(schema, kind, views=views, width=width, **std)

    return {
        "SSR-D": ssr("dynamic", views=4),
        "SSR-S": ssr("static"),
        "dense views": ssr("dense"),
        "DNN": lambda schema, width: DNN(schema, widths=(width, width), **std),
        "LR": lambda schema, width: LR(schema, **std),
    }
