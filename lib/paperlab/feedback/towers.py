"""The base of models with several labels a row, from dense to sparse: heads, their sum or product, loss.

A label is a joint event of the funnel: of "click, order" the second is "clicked and ordered". Every
model gives one number r_k a label, its head's; how heads become logits s_k is one of

    separate   s_k = r_k
    sum        s_k = s_(k-1) + r_k                          ResFlow's logit residual
    product    sigma(s_k) = sigma(s_(k-1)) sigma(r_k)       ESMM: r_k is the conditional's logit

and the loss is sum_k w_k mean[q_k y_k softplus(-s_k) + (1 - y_k) softplus(s_k)] over all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks, metrics
from ..data.schema import Schema
from ..data.store import Batch, Log, Split
from ..nn.click import ClickModel

if TYPE_CHECKING:
    from jaxtyping import Float

Combine = Literal["separate", "sum", "product"]
COMBINE = ("separate", "sum", "product")


def joint_logits(
    heads: Float[Tensor, "B K"], combine: Combine, *, clamp: bool = False
) -> Float[Tensor, "B K"]:
    """Logits s_k of the joint events from the heads r_k, which stand in the order of the chain.

    clamp: r_k <- min(r_k, 0) for k >= 2, so that a sum cannot rise along the chain.
    """
    if combine == "separate":
        return heads
    if combine == "product":
        log_p = F.logsigmoid(heads).cumsum(1).clamp(max=-1e-7)
        return log_p - torch.log(-torch.expm1(log_p))
    if clamp:
        heads = torch.cat([heads[:, :1], heads[:, 1:].clamp(max=0)], 1)
    return heads.cumsum(1)


def heads_at(logits: Float[Tensor, " K"], combine: Combine) -> Float[Tensor, " K"]:
    """The heads r_k that give these joint logits; a conditional probability is held below .9999."""
    if combine == "separate":
        return logits
    before = torch.cat([logits[:1] * 0, logits[:-1]])
    if combine == "sum":
        return logits - before
    ratio = (F.logsigmoid(logits) - F.logsigmoid(before)).exp()
    ratio[0] = logits[0].sigmoid()
    return torch.logit(ratio.clamp(1e-6, 1 - 1e-4))


def funnel_loss(
    logits: Float[Tensor, "B K"],
    labels: Float[Tensor, "B K"],
    q: Float[Tensor, " K"] | None = None,
    w: Float[Tensor, " K"] | None = None,
    *,
    reduction: Literal["mean", "none"] = "mean",
) -> Float[Tensor, ""] | Float[Tensor, "B K"]:
    """sum_k w_k mean over rows of cross-entropy with weight q_k on positives, in nats.

    q, w: 1 by default. reduction: ``none`` gives the weighted terms of each row and label.
    """
    loss = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=q, reduction="none")
    loss = loss if w is None else loss * w
    return loss if reduction == "none" else loss.mean(0).sum()


class MultiTask(ClickModel):
    """A model from a batch to one logit a label; a subclass gives ``heads`` and the layers ``out``.

    ``out`` is a list of K linear layers to one number, in the order of ``chain``.

    combine: how heads become joint logits, see the module.
    chain: labels in the order of the chain, the schema's (dense to sparse) by default.
    clamp: with ``sum``, no head but the first may be above 0.
    q: weight of the positives of each label, > 0. w: weight of each label's loss, >= 0. Both in the
        schema's order, 1 by default.
    chosen_by: the label whose validation log loss chooses the weights, and whose logit ``forward``
        gives; the last by default. ``all``: the sum over labels, and the last one's logit.
    dim, options: see `ClickModel`.
    Raises ValueError for values out of range, other than K weights, and unknown labels.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 8,
        *,
        combine: Combine = "separate",
        chain: Sequence[str] | None = None,
        clamp: bool = False,
        q: Sequence[float] | None = None,
        w: Sequence[float] | None = None,
        chosen_by: str | None = None,
        **options,
    ):
        checks.one_of(COMBINE, combine=combine)
        labels = schema.labels
        chain = labels if chain is None else tuple(chain)
        if sorted(chain) != sorted(labels):
            raise ValueError(f"chain must hold each of {', '.join(labels)} once, got {chain}")
        if clamp and combine != "sum":
            raise ValueError(f"clamp needs combine 'sum', not {combine!r}")
        chosen_by = chosen_by or labels[-1]
        checks.one_of((*labels, "all"), chosen_by=chosen_by)
        weights = {"q": q, "w": w}
        for name, values in weights.items():
            if values is not None and len(values) != len(labels):
                raise ValueError(f"{name} must have {len(labels)} values, got {len(values)}")
            for value in values or ():
                checks.positive(q=value) if name == "q" else checks.at_least(0, w=value)
        super().__init__(schema, dim, **options)
        for name, values in weights.items():
            values = torch.tensor(values or [1.0] * len(labels), dtype=torch.float32)
            self.register_buffer(name, values, persistent=False)
        self.combine, self.clamp = combine, clamp
        self.place = [chain.index(name) for name in labels]  # of each label in the chain
        self.order = [labels.index(name) for name in chain]
        self.judged = labels.index(labels[-1] if chosen_by == "all" else chosen_by)
        self.select = (f"logloss_{chosen_by}", "lower")
        self.out: nn.ModuleList

    def heads(self, x: Float[Tensor, "B d_in"]) -> Float[Tensor, "B K"]:
        """r_k in the order of the chain."""
        raise NotImplementedError

    def logits(self, batch: Batch) -> Float[Tensor, "B K"]:
        """s_k in the schema's order."""
        heads = self.heads(self.embed(batch).flatten(1))
        return joint_logits(heads, self.combine, clamp=self.clamp)[:, self.place]

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        """Logits of the label that chooses the weights."""
        return self.logits(batch)[:, self.judged]

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        return funnel_loss(self.logits(batch).float(), batch.labels, self.q, self.w)

    @torch.no_grad()
    def start_at(self, train: Split) -> Self:
        """Begin at the base rates of a part: the biases of the heads."""
        base = torch.logit(train.labels.mean(0).clamp(1e-6, 1 - 1e-6)) + self.q.log()
        for layer, value in zip(self.out, heads_at(base[self.order], self.combine), strict=True):
            layer.bias.fill_(value)
        return self

    @torch.no_grad()
    def predict_all(self, split: Split, batch_size: int = 8192) -> Float[Tensor, "n K"]:
        """Logits of all labels, in eval mode, in the order of the rows, calibrated: s_k - ln q_k."""
        training, device = self.training, next(self.parameters()).device
        self.eval()
        parts = torch.arange(len(split)).split(batch_size)
        found = [self.logits(split.take(rows).to(device)).float().cpu() for rows in parts]
        self.train(training)
        return torch.cat(found) - self.q.log().cpu()

    # training: see `paperlab.loop.Trainable` ---------------------------------------------------

    def check(self, log: Log) -> None:
        """Refuse labels that are not 0 or 1, and a label of one class in training or validation."""
        for part in ("train", "valid"):
            for name, values in zip(log.schema.labels, getattr(log, part).labels.T, strict=True):
                wrong = values[(values != 0) & (values != 1)]
                if len(wrong):
                    raise ValueError(f"{log.name}.{part}: {name} must be 0 or 1, got {wrong[0]:g}")
                if len(values.unique()) < 2:
                    raise ValueError(
                        f"{log.name}.{part}: {name} has {len(values):,} rows of one class"
                    )

    def evaluate(self, log: Log, part: str = "test") -> dict[str, float]:
        """auc_LABEL and logloss_LABEL of every label, the latter of calibrated logits, and their sum.

        The sum is ``logloss_all``.
        Raises FloatingPointError where a logit is NaN.
        """
        split = getattr(log, part)
        logits = self.predict_all(split)
        if logits.isnan().any():
            raise FloatingPointError(f"{log.name}.{part}: logits are NaN; training has diverged")
        scores = {}
        for k, name in enumerate(log.schema.labels):
            scores[f"auc_{name}"] = metrics.auc(logits[:, k], split.labels[:, k])
            scores[f"logloss_{name}"] = metrics.logloss(logits[:, k], split.labels[:, k])
        losses = [scores[f"logloss_{name}"] for name in log.schema.labels]
        return scores | {"logloss_all": sum(losses)}
