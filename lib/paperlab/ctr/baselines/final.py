"""FINAL: Zhu et al., "FINAL: Factorized Interaction Layer for CTR Prediction", SIGIR 2023, as
FuxiCTR defines it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ... import checks
from ...data.schema import Schema
from ...data.store import Batch
from ...nn.click import ClickModel
from ...nn.mlp import linear

if TYPE_CHECKING:
    from jaxtyping import Float

KINDS = ("concat", "sum")


class FactorizedInteraction(nn.Module):
    """[h_2; h_1] = W x + b, out = [h_2; h_1 * h_2] (``concat``) or h_2 + h_1 * h_2 (``sum``).

    A layer that doubles the order of what it is given, so that L layers reach order 2^L (without the
    ReLU between). ``concat`` has d_out / 2 units in each half and needs an even d_out; ``sum`` has
    twice the weights.
    """

    def __init__(self, d_in: int, d_out: int, kind: Literal["concat", "sum"]):
        super().__init__()
        self.kind = kind
        self.project = linear(d_in, d_out if kind == "concat" else 2 * d_out)

    def forward(self, x: Float[Tensor, "B n"]) -> Float[Tensor, "B m"]:
        h2, h1 = self.project(x).chunk(2, 1)
        return torch.cat([h2, h1 * h2], 1) if self.kind == "concat" else torch.addcmul(h2, h1, h2)


class FieldGate(nn.Module):
    """[E; E * A], A = a Linear over the fields of E, from F to F, that starts as the number 1."""

    def __init__(self, fields: int):
        super().__init__()
        self.over_fields = nn.Linear(fields, fields)
        nn.init.zeros_(self.over_fields.weight)
        nn.init.ones_(self.over_fields.bias)

    def forward(self, e: Float[Tensor, "B F d"]) -> Float[Tensor, "B 2*F d"]:
        return torch.cat([e, e * self.over_fields(e.transpose(1, 2)).transpose(1, 2)], 1)


def distilled_loss(
    logits: Float[Tensor, "B blocks"],
    labels: Float[Tensor, " B"],
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Float[Tensor, "*"]:
    """Cross-entropy of the mean logit and, with two blocks, of each block against that mean.

    BCE(sigma(y), label) + sum_k BCE(sigma(y_k), stop-gradient of sigma(y)), y the mean over blocks
    of y_k: blocks learn from the ensemble, the ensemble does not bend to them. With one block the
    second part is left out. In nats; gradients flow into ``logits`` only.
    """
    y = logits.mean(1)
    loss = F.binary_cross_entropy_with_logits(y, labels, reduction=reduction)
    if logits.shape[1] > 1:
        teacher = y.detach().sigmoid()
        for own in logits.unbind(1):
            loss = loss + F.binary_cross_entropy_with_logits(own, teacher, reduction=reduction)
    return loss


class FINAL(ClickModel):
    """One block of factorised interactions and a Linear (1B), or the mean logit of several (2B).

    blocks: hidden layers of each block, ``[(400, 400)]`` for 1B, ``[(400, 400), (800,)]`` for 2B;
        every layer is interaction, BatchNorm?, ReLU, Dropout?.
    kind: see `FactorizedInteraction`; ``concat`` needs even widths. gate: `FieldGate` before the
        first block. dropout: a probability in [0, 1). options: see `ClickModel`.
    With two or more blocks, ``loss`` is `distilled_loss`.
    Raises ValueError for an unknown kind, no block, a block without layers, an odd or zero width.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        blocks: Sequence[Sequence[int]] = ((400, 400, 400),),
        kind: Literal["concat", "sum"] = "concat",
        gate: bool = False,
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options,
    ):
        checks.one_of(KINDS, kind=kind)
        checks.inside("[0, 1)", dropout=dropout)
        even = 2 if kind == "concat" else 1
        if not blocks or any(not widths or min(widths) < 1 for widths in blocks):
            raise ValueError(f"blocks must hold widths of at least 1, one a layer, got {blocks}")
        if any(w % even for widths in blocks for w in widths):
            raise ValueError(f"blocks must hold even widths where kind is 'concat', got {blocks}")
        super().__init__(schema, dim, **options)
        self.gate = FieldGate(self.n_fields) if gate else None
        self.blocks = nn.ModuleList()
        for k, widths in enumerate(blocks):
            layers, d_in = [], self.d_in * (2 if gate and k == 0 else 1)
            for width in widths:
                layers.append(FactorizedInteraction(d_in, width, kind))
                if batch_norm:
                    layers.append(nn.BatchNorm1d(width))
                layers.append(nn.ReLU())
                if dropout:
                    layers.append(nn.Dropout(dropout))
                d_in = width
            self.blocks.append(nn.Sequential(*layers, linear(d_in, 1)))

    def logits(self, batch: Batch) -> Float[Tensor, "B blocks"]:
        """The logit of each block."""
        e = self.embed(batch)
        x = e.flatten(1)
        first = x if self.gate is None else self.gate(e).flatten(1)
        return torch.cat([b(first if k == 0 else x) for k, b in enumerate(self.blocks)], 1)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        return self.logits(batch).mean(1)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """`distilled_loss` of the first label, plus the embedding penalty."""
        loss = distilled_loss(self.logits(batch).float(), batch.labels[:, 0])
        if self.embedding_l2:
            loss = loss + self.embedding_l2 / 2 * self.embed.table.weight.square().sum()
        return loss
