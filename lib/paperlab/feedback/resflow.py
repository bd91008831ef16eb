"""ResFlow: Fu, Wang, Wu, Chen, Huzhang, Ni, Zeng, Zhou, "Residual Multi-Task Learner for Applied
Ranking", KDD 2024 (arXiv 2411.09705).

Labels from dense to sparse, a tower each on shared field embeddings x. With f_k^l a layer (PReLU, and
BatchNorm where ``norm`` says so):

    a_k^1 = f_k^1(x),  a_k^(l+1) = f_k^(l+1)(o_k^l)         1. the tower's own features
    o_1^l = a_1^l,  o_k^l = o_(k-1)^l + a_k^l               2. feature residual (``fr``)
    r_k = w_k . o_k^L + c_k                                 3. the tower's output
    s_1 = r_1,  s_k = s_(k-1) + r_k                         4. logit residual (``combine="sum"``)
    L = sum_k w_k mean[q_k y_k softplus(-s_k) + (1 - y_k) softplus(s_k)]          5. over all rows

Nothing is detached: the sparse label also trains the dense towers. 4 reads odds_k = odds_(k-1) exp(r_k),
so that probabilities fall along the chain where r_k <= 0.

An amount as progressive labels, y_i = 1[amount > t_i], with the logit residual alone:

    v = y_I c_top + sum_(i < I) max(y_i - y_(i+1), 0) (t_i + t_(i+1)) / 2 + (1 - y_0) c_bottom      6.

After the released code, from which sizes and weights come. It calls BatchNorm without a training flag:
by our reading an affine map; ``norm="batch"`` is real BatchNorm. Its constants of 6 (93 and 5 seconds)
are ours to refit: means of the training amounts beyond the last and below the first threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from ..data.schema import Schema
from ..data.store import Batch, Log, Split
from ..nn.click import ClickModel
from ..nn.mlp import linear
from .towers import Combine, MultiTask, funnel_loss, heads_at, joint_logits

if TYPE_CHECKING:
    from jaxtyping import Float

THRESHOLDS = (5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0)  # seconds


def tower_features(
    x: Float[Tensor, "B d"],
    towers: Sequence[Sequence[Callable[[Tensor], Tensor]]],
    fr: bool = True,
) -> list[Float[Tensor, "B h"]]:
    """o_k^L of every tower, steps 1 and 2. towers: the layers f_k^1 .. f_k^L of each, equal in width."""
    found, before = [], None
    for layers in towers:
        o, through = x, []
        for depth, layer in enumerate(layers):
            a = layer(o)
            o = a if before is None or not fr else before[depth] + a
            through.append(o)
        before = through
        found.append(o)
    return found


class ResFlow(MultiTask):
    """Steps 1 to 5; without residuals, separate towers on shared embeddings.

    fr: feature residual. combine: ``sum`` is the logit residual, ``separate`` none, ``product`` ESMM.
    widths: hidden units of each tower. norm: ``batch`` puts BatchNorm after the activations.
    dim, options: see `MultiTask` and `ClickModel`.
    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 8,
        *,
        fr: bool = True,
        combine: Combine = "sum",
        widths: Sequence[int] = (128, 64),
        norm: Literal["none", "batch"] = "none",
        **options,
    ):
        checks.widths(widths=widths)
        checks.one_of(("none", "batch"), norm=norm)
        super().__init__(schema, dim, combine=combine, **options)
        self.fr, tasks = fr, len(schema.labels)
        self.towers = _towers(self.d_in, widths, tasks, norm)
        self.out = nn.ModuleList(linear(widths[-1], 1) for _ in range(tasks))

    def heads(self, x: Float[Tensor, "B d_in"]) -> Float[Tensor, "B K"]:
        features = tower_features(x, self.towers, self.fr)
        return torch.cat([w(o) for w, o in zip(self.out, features, strict=True)], 1)  # step 3


def _towers(d_in: int, widths: Sequence[int], tasks: int, norm: str) -> nn.ModuleList:
    def layer(a: int, b: int) -> nn.Module:
        extra = [nn.BatchNorm1d(b)] if norm == "batch" else []
        return nn.Sequential(linear(a, b), nn.PReLU(), *extra)

    sizes = list(zip((d_in, *widths[:-1]), widths, strict=True))
    return nn.ModuleList(nn.ModuleList(layer(a, b) for a, b in sizes) for _ in range(tasks))


def exceeds(amount: Float[Tensor, " B"], thresholds: Float[Tensor, " K"]) -> Float[Tensor, "B K"]:
    """Progressive labels 1[amount > t_i]."""
    return (amount[:, None] > thresholds).float()


def progressive_value(
    chances: Float[Tensor, "B K"],
    thresholds: Float[Tensor, " K"],
    bottom: float,
    top: float,
) -> Float[Tensor, " B"]:
    """Step 6: the expected amount from the chances of exceeding each threshold."""
    middle = (thresholds[:-1] + thresholds[1:]) / 2
    between = (chances[:, :-1] - chances[:, 1:]).clamp(min=0) @ middle
    return chances[:, -1] * top + between + (1 - chances[:, 0]) * bottom


class ProgressiveResFlow(ClickModel):
    """An amount, as K labels of exceeding thresholds in a chain of towers, or as one number.

    The log has one label: the amount. ``forward`` gives it in its own unit.

    combine: ``sum`` is the paper's chain, ``separate`` towers without a residual, and ``None`` one
        tower whose output is the amount (in standard deviations from the mean), with squared error.
    thresholds: increasing. widths: hidden units of each tower. dim, options: see `ClickModel`.
    Positives have the weight q_i = .9 + .05 i (the released code). The chains have no BatchNorm, and no
    feature residual, as published. Call `start_at` before training: it reads bottom, top and rates.
    Raises ValueError for values out of range.
    """

    select = ("mse", "lower")

    def __init__(
        self,
        schema: Schema,
        dim: int = 8,
        *,
        combine: Literal["sum", "separate"] | None = "sum",
        thresholds: Sequence[float] = THRESHOLDS,
        widths: Sequence[int] = (128, 64),
        **options,
    ):
        checks.one_of(("sum", "separate", None), combine=combine)
        checks.widths(widths=widths)
        if list(thresholds) != sorted(set(thresholds)) or len(thresholds) < 2:
            raise ValueError(f"thresholds must be two or more, increasing, got {list(thresholds)}")
        super().__init__(schema, dim, **options)
        self.combine, tasks = combine, len(thresholds) if combine else 1
        self.towers = _towers(self.d_in, widths, tasks, "none")
        self.out = nn.ModuleList(linear(widths[-1], 1) for _ in range(tasks))
        self.register_buffer("thresholds", torch.tensor(thresholds, dtype=torch.float32))
        self.register_buffer("q", 0.9 + 0.05 * torch.arange(len(thresholds)))
        self.register_buffer("ends", torch.zeros(2))  # c_bottom, c_top; or mean and deviation

    @torch.no_grad()
    def start_at(self, train: Split) -> ProgressiveResFlow:
        """Read c_bottom, c_top and base rates from the training amounts (here: mean and deviation)."""
        amount = train.labels[:, 0]
        if self.combine is None:
            self.ends.copy_(torch.stack([amount.mean(), amount.std().clamp(min=1e-6)]))
            return self
        low, high = amount[amount <= self.thresholds[0]], amount[amount > self.thresholds[-1]]
        for place, (some, default) in enumerate(((low, 0.0), (high, self.thresholds[-1].item()))):
            self.ends[place] = some.mean() if len(some) else default
        rate = exceeds(amount, self.thresholds).mean(0).clamp(1e-6, 1 - 1e-6)
        base = heads_at(torch.logit(rate) + self.q.log(), self.combine)
        for layer, value in zip(self.out, base, strict=True):
            layer.bias.fill_(value)
        return self

    def logits(self, batch: Batch) -> Float[Tensor, "B K"]:
        features = tower_features(self.embed(batch).flatten(1), self.towers, fr=False)
        heads = torch.cat([w(o) for w, o in zip(self.out, features, strict=True)], 1)
        return heads if self.combine is None else joint_logits(heads, self.combine)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        """Predicted amounts."""
        logits, (bottom, top) = self.logits(batch), self.ends
        if self.combine is None:
            return bottom + top * logits[:, 0]
        chances = (logits - self.q.log()).sigmoid()
        return progressive_value(chances, self.thresholds, bottom, top)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        logits, amount = self.logits(batch).float(), batch.labels[:, 0]
        if self.combine is None:
            return F.mse_loss(logits[:, 0], (amount - self.ends[0]) / self.ends[1])
        return funnel_loss(logits, exceeds(amount, self.thresholds), self.q)

    def check(self, log: Log) -> None:
        """Refuse a log of several labels, and amounts below 0."""
        if len(log.schema.labels) != 1:
            raise ValueError(f"{log.name} must have one label, got {', '.join(log.schema.labels)}")
        if (log.train.labels < 0).any():
            raise ValueError(f"{log.name}.train: amounts must be at least 0")

    def evaluate(self, log: Log, part: str = "test") -> dict[str, float]:
        """Mean squared error, in the amount's unit squared."""
        split = getattr(log, part)
        return {"mse": (self.predict(split) - split.labels[:, 0]).square().mean().item()}
