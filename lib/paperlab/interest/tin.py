"""TIN: Zhou et al., "Temporal Interest Network for User Response Prediction", WWW 2024 Companion
(arXiv 2308.08487).

    e~_i = e_i + p_f(X_i),  v~_t = v_t + p_f(X_t)          1. target-aware temporal encoding (TTE)
    alpha_i = softmax_i <e~_i, v~_t> / sqrt(d)             2. target-aware attention (TA)
    r_i = e~_i * v~_t                                      3. target-aware representation (TR)
    u = sum_i alpha_i r_i                                  4. temporal interest module
    logit = MLP [u; v~_t; other fields]                    5. head

Each summand of u is a product of four things: what the event was, when, what the target is, when.
The full text was not available: the equations follow the released code and the authors' notes. Our
choices: the buckets of the interval encoding, the initial values (N(0, std) for all tables), the MLP
of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from .. import checks
from ..data.schema import Field, Schema
from ..data.store import Batch
from ..nn.attention import MultiHeadAttention, TargetAttention
from ..nn.embedding import FeatureEmbedding
from ..nn.encodings import TemporalEncoding
from ..nn.mlp import MLP, linear
from .base import InterestModel
from .baselines.din import DIN
from .baselines.sasrec import SASRec

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

VARIANTS = ("paper", "code", "mha")


class TIN(InterestModel):
    """The paper's model, what its released code computes, or a third party's version.

    variant: ``paper`` is steps 1 to 5. ``code``: u^ = Linear(affine(sum_i alpha_i e~_i)) and
        z = [u^; v~_t; u^ * v~_t], affine, then an MLP with sigmoids, plus a bias for each target
        item: TR comes after a linear map, and the raw pooled vector enters too. (Its BatchNorm is
        called without a training flag and never sees statistics: an affine map.) ``widths`` are
        80 and 40 there. ``mha``: alpha and r_i from multi-head
        projections, r_i = W_v e~_i * W_q v~_t.
    encoding: see `positions` in nn/encodings.py; ``size``: the highest index, None for the longest
        history (of intervals: 32 buckets).
    tte, ta, tr: switch a part off, for the 2 x 2 x 2 ablation; ``variant="paper"`` only.
    heads: of ``mha``. widths, dropout, options: see `InterestModel`.
    Raises ValueError for an unknown variant or encoding, and for options that do not go together.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        variant: Literal["paper", "code", "mha"] = "paper",
        encoding: Literal["rank", "interval", "absolute", "reversed"] = "rank",
        tte: bool = True,
        ta: bool = True,
        tr: bool = True,
        size: int | None = None,
        heads: int = 4,
        widths: Sequence[int] = (200, 80),
        dropout: float = 0.0,
        **options,
    ):
        checks.one_of(VARIANTS, variant=variant)
        if variant != "paper" and not (tte and ta and tr):
            raise ValueError(f"tte, ta and tr are switches of variant 'paper', not of {variant!r}")
        super().__init__(schema, dim, **options)
        self.variant, self.product, d = variant, tr, self.d_event
        if size is None:
            made = TemporalEncoding.for_length(encoding, schema.length, d, self.std)
        else:
            made = TemporalEncoding(encoding, size, d, self.std)
        self.encoding = made if tte else None
        if variant == "mha":
            self.module = MultiHeadAttention(d, heads, product=True)
        else:
            self.module = TargetAttention(ta, tr and variant == "paper")
        if variant == "code":
            self.project = nn.Sequential(Affine(d), linear(d, d))
            n = 3 * d + self.embed.d_others
            mlp = MLP(n, widths, out=1, dropout=dropout, activation=nn.Sigmoid)
            self.head = nn.Sequential(Affine(n), mlp)
            item = next(f for f in schema.categorical if f.name == schema.sequences[0].shares)
            self.item = schema.categorical.index(item)
            self.bias = FeatureEmbedding(Schema((Field("item", size=item.size),)), 1, False, 0.0)
        else:
            self.head = self.head_on(2 * d, widths, dropout)

    def encode(self, events, target, mask, elapsed):  # step 1
        return self.encoding(events, target, mask, elapsed) if self.encoding else (events, target)

    def attend(
        self,
        events: Float[Tensor, "B T D"],
        target: Float[Tensor, "B D"],
        mask: Bool[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B T"]]:
        """u and alpha (of ``mha``: the mean over heads) from encoded events and target."""
        if self.variant == "mha":
            u, alpha = self.module(target[:, None], events, mask[:, None])
            return u.squeeze(1), alpha.mean(1).squeeze(1)
        return self.module(events, target, mask)  # steps 2 to 4

    def interest(self, events, target, mask, elapsed):
        events, target = self.encode(events, target, mask, elapsed)
        u, _ = self.attend(events, target, mask)
        if self.variant == "code":
            u = self.project(u)
            return torch.cat([u, target, u * target], 1)
        return torch.cat([u, target], 1)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        logit = super().forward(batch)
        if self.variant == "code":
            items = batch.ids[:, self.item : self.item + 1]
            logit = logit + self.bias(batch._replace(ids=items)).flatten()
        return logit

    @torch.no_grad()
    def weights(self, batch: Batch) -> Float[Tensor, "B T"]:
        """alpha of every event of a batch, for plots."""
        events, target, mask, _ = self.embed.sequence(batch)
        return self.attend(*self.encode(events, target, mask, batch.elapsed), mask)[1]


class Affine(nn.Module):
    """x * g + b, a weight and a shift a dimension (the released code's idle BatchNorm)."""

    def __init__(self, dim: int):
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        return x * self.gain + self.shift


def contenders() -> dict[str, Callable[[Schema, int | None], InterestModel]]:
    """What `paperlab.tryout` compares: TIN and the models of section 4, all with the same head."""

    def head(model, **more):
        def build(schema: Schema, width: int) -> InterestModel:
            return model(schema, 16, std=0.05, widths=(width, max(1, width * 2 // 5)), **more)

        return build

    attention = {"attention": (32,)}
    return {
        "TIN": head(TIN),
        "DIN": head(DIN, **attention),
        "DIN + TR": head(DIN, tr=True, **attention),
        "DIN + position": head(DIN, encoding="absolute", **attention),
        "SASRec": head(SASRec),
        "average": head(TIN, tte=False, ta=False, tr=False),
    }
