"""Attention of a target over a history, masked before the softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from .mlp import linear

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def masked_softmax(
    scores: Float[Tensor, "*rows T"], mask: Bool[Tensor, "*rows T"]
) -> Float[Tensor, "*rows T"]:
    """Softmax over the events that are there; 0 at padding, and everywhere in an empty history.

    In an empty history all scores are equally low, and a softmax alone would be uniform: hence the
    second mask. Always in float32.
    """
    return scores.float().masked_fill(~mask, -1e9).softmax(-1) * mask


def masked_mean(mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """The weights of a mean over the events that are there."""
    return mask / mask.sum(1, keepdim=True).clamp(min=1)


def pool(weights: Float[Tensor, "B T"], events: Float[Tensor, "B T D"]) -> Float[Tensor, "B D"]:
    """sum_i weights_i events_i, as one batched product."""
    return (weights.to(events.dtype)[:, None] @ events).squeeze(1)


class TargetAttention(nn.Module):
    """TIN's temporal interest module: u = sum_i alpha_i (e~_i * v~_t).

    alpha = softmax_i(<e~_i, v~_t> / sqrt(d)) (TA; without it a mean), and the product with v~_t (TR;
    without it u = sum_i alpha_i e~_i). v~_t is the same in every summand, so that it multiplies
    once, after pooling.

    ta, tr: switch either off. scale: divide the scores by sqrt(d).
    """

    def __init__(self, ta: bool = True, tr: bool = True, scale: bool = True):
        super().__init__()
        self.ta, self.tr, self.scale = ta, tr, scale

    def forward(
        self,
        events: Float[Tensor, "B T D"],
        target: Float[Tensor, "B D"],
        mask: Bool[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B T"]]:
        """u and alpha."""
        if self.ta:
            scores = (events @ target[:, :, None]).squeeze(2)
            alpha = masked_softmax(scores / events.shape[2] ** 0.5 if self.scale else scores, mask)
        else:
            alpha = masked_mean(mask)
        u = pool(alpha, events)
        return (u * target if self.tr else u), alpha


class MultiHeadAttention(nn.Module):
    """Attention with projections W_q, W_k, W_v, W_o (no bias) in heads, scaled by a head's width.

    product: multiply the projected values by the projected query, v_i * q, before they are summed.
    Raises ValueError when ``heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, heads: int, product: bool = False):
        if heads < 1 or dim % heads:
            raise ValueError(f"heads must divide the width {dim}, got {heads}")
        super().__init__()
        self.heads, self.product = heads, product
        self.query, self.key, self.value, self.out = (
            linear(dim, dim, bias=False) for _ in range(4)
        )

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        keys: Float[Tensor, "B K D"],
        mask: Bool[
            Tensor,
            (
                B  # Q K
            ),
        ],
    ) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B H Q K"]]:
        """The mixed values, and alpha of every head; ``mask`` says which keys a query may read."""
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, queries), (self.key, keys), (self.value, keys))
        )
        alpha = masked_softmax(q @ k.transpose(2, 3) / q.shape[3] ** 0.5, mask[:, None])
        mixed = alpha.to(v.dtype) @ v
        if self.product:  # sum_i alpha_i (v_i * q) = (sum_i alpha_i v_i) * q
            mixed = mixed * q
        return self.out(mixed.transpose(1, 2).flatten(2)), alpha
