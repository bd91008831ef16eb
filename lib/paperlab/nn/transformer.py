"""A pre-norm transformer block with the options of ranking transformers, and their masks.

Masks are boolean, True where a query (row) may read a key (column). Every option of `Attention` is
a switch of one block, so that an ablation removes one mechanism and nothing else:

    q, k, v = x W          QK-norm: q, k <- RMS(q), RMS(k) per head, with learned scales
    a = softmax(q k / sqrt(d)) or silu(q k / sqrt(d)) / n,  masked;  o = a v
    o <- LayerNorm(o) (HSTU);  o <- o * sigmoid(x W_g) or o * silu(x W_g);  y = o W_o
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from .mlp import linear

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

Cache = tuple[Tensor, Tensor]  # keys and values of the tokens so far, (B, heads, T, width)


# masks and positions ---------------------------------------------------------------------------


def causal_mask(n: int, window: int | None = None, sinks: int = 0) -> Bool[Tensor, "n n"]:
    """Token i reads tokens i - window + 1 to i, and the first ``sinks`` tokens that are not after it.

    window >= 1, or None for all earlier tokens.
    """
    checks.whole(window=1 if window is None else window)
    checks.whole(0, n=n, sinks=sinks)
    query, key = torch.arange(n)[:, None], torch.arange(n)
    near = query - key < (n if window is None else window)
    return (key <= query) & (near | (key < sinks))


def candidate_mask(context: Bool[Tensor, "n n"], candidates: int, see: bool = False) -> Tensor:
    """The mask of context tokens, then candidates: each of these reads all of the context and itself.

    context: who reads whom before the candidates, which it never reads. see: whether candidates read
    each other too (OnePiece) or not (SORT).
    Returns (n + candidates, n + candidates).
    """
    checks.whole(0, candidates=candidates)
    n = len(context)
    mask = torch.zeros(n + candidates, n + candidates, dtype=torch.bool)
    mask[:n, :n] = context
    mask[n:, :n] = True
    mask[n:, n:] = True if see else torch.eye(candidates, dtype=torch.bool)
    return mask


def block_causal_mask(block: Int[Tensor, "*batch T"]) -> Bool[Tensor, "*batch T T"]:
    """Tokens read their own block and those of lower numbers; ``block`` is each token's number."""
    return block[..., None, :] <= block[..., :, None]


def present_positions(present: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Places counted over the tokens that are there, from 0; padding has place 0."""
    return (present.cumsum(1) - 1).clamp(min=0)


def share_position(
    context: Int[Tensor, "B n"], present: Bool[Tensor, "B n"], candidates: int
) -> Int[Tensor, "B T"]:
    """The positions of the context and, for every candidate, one: the next after the context."""
    following = present.sum(1, keepdim=True)
    return torch.cat([context, following.expand(-1, candidates)], 1)


# pure functions --------------------------------------------------------------------------------


def rotate(
    x: Float[Tensor, "B H T d"], positions: Int[Tensor, "B T"], base: float = 10_000.0
) -> Float[Tensor, "B H T d"]:
    """RoPE (arXiv 2104.09864): rotate pair i of d / 2 by position * base^(-2 i / d).

    Pairs are (i, i + d / 2). A product of a rotated query and key depends on the difference of
    their positions alone. Raises ValueError for an odd width.
    """
    checks.multiple(2, width=x.shape[-1])
    half = x.shape[-1] // 2
    frequency = base ** (-torch.arange(half, device=x.device) / half)
    angle = positions[:, None, :, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def attention_weights(
    scores: Float[Tensor, "B H Q K"],
    mask: Bool[Tensor, "#B #H Q K"],
    kind: Literal["softmax", "silu"] = "softmax",
    *,
    length: int = 1,
    sink: Float[Tensor, " H"] | None = None,
) -> Float[Tensor, "B H Q K"]:
    """Weights of the keys: 0 where the mask is False, and everywhere for a query that reads nothing.

    softmax: they add up to 1, less what goes to ``sink``, a logit per head without a value.
    silu: pointwise silu(score) / length (HSTU, arXiv 2402.17152, equation 2); length is a constant,
        so that padding changes nothing.
    """
    if kind == "silu":
        return F.silu(scores) / length * mask
    low = scores.float().masked_fill(~mask, -1e9)
    if sink is not None:
        extra = sink.float()[None, :, None, None].expand(*low.shape[:3], 1)
        low = torch.cat([low, extra], -1)
    weights = low.softmax(-1)[..., : scores.shape[-1]] * mask
    return weights.to(scores.dtype)


# modules ---------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Multi-head attention with the options of the module's head.

    kind: ``softmax`` or ``silu``. length: divisor of silu's weights, >= 1.
    rope: rotate queries and keys by their positions. qk_norm: RMS-normalise both per head before.
    gate: ``sigmoid``, ``silu`` or None. out_norm: LayerNorm of the mixed values before the gate.
    sink: a learned logit per head that takes weight and gives nothing; softmax only.
    Raises ValueError for unknown kinds and widths that the heads do not divide.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kind: Literal["softmax", "silu"] = "softmax",
        length: int = 1,
        rope: bool = True,
        qk_norm: bool = False,
        gate: Literal["sigmoid", "silu"] | None = None,
        out_norm: bool = False,
        sink: bool = False,
    ):
        checks.whole(heads=heads, length=length)
        checks.multiple(2 * heads if rope else heads, dim=dim)
        checks.one_of(("softmax", "silu"), kind=kind)
        checks.one_of(("sigmoid", "silu", None), gate=gate)
        if sink and kind == "silu":
            raise ValueError(
                "sink must be False with kind 'silu', whose weights do not add up to 1"
            )
        super().__init__()
        self.heads, self.kind, self.length, self.rope = heads, kind, length, rope
        self.query, self.key, self.value, self.out = (
            linear(dim, dim, bias=False) for _ in range(4)
        )
        width = dim // heads
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2)) if qk_norm else None
        self.gate = linear(dim, dim, bias=False) if gate else None
        self.opens = torch.sigmoid if gate == "sigmoid" else F.silu
        self.out_norm = nn.LayerNorm(dim) if out_norm else None
        self.sink = nn.Parameter(torch.zeros(heads)) if sink else None

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        positions: Int[Tensor, "B T"],
        mask: Bool[Tensor, "#B Q K"],
        keep: Int[Tensor, " Q"] | None = None,
        cache: Cache | None = None,
    ) -> tuple[Float[Tensor, "B Q D"], Cache]:
        """The mixed values of the queries ``keep`` (None: all), and all keys and values so far.

        mask: its columns are the cached tokens, then those of x.
        """
        asked, at = (x, positions) if keep is None else (x[:, keep], positions[:, keep])
        q, k, v = (
            layer(t).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, t in ((self.query, asked), (self.key, x), (self.value, x))
        )
        if self.norms is not None:
            q, k = self.norms[0](q), self.norms[1](k)
        if self.rope:
            q, k = rotate(q, at), rotate(k, positions)
        if cache is not None:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
        weights = attention_weights(
            scores, mask[:, None], self.kind, length=self.length, sink=self.sink
        )
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        if self.out_norm is not None:
            mixed = self.out_norm(mixed)
        if self.gate is not None:
            mixed = mixed * self.opens(self.gate(asked))
        return self.out(mixed), (k, v)


class SwiGLU(nn.Module):
    """(silu(x W_1) * x W_2) W_3, without biases (arXiv 2002.05202)."""

    def __init__(self, dim: int, hidden: int):
        checks.whole(dim=dim, hidden=hidden)
        super().__init__()
        self.into, self.back = linear(dim, 2 * hidden, bias=False), linear(hidden, dim, bias=False)

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        gate, value = self.into(x).chunk(2, -1)
        return self.back(F.silu(gate) * value)


class Block(nn.Module):
    """x <- x + attention(RMS(x)); x <- x + SwiGLU(RMS(x)).

    hidden: width of the SwiGLU; 0 leaves it out, as in HSTU. options: of `Attention`.
    """

    def __init__(self, dim: int, heads: int, hidden: int, **options):
        checks.whole(0, hidden=hidden)
        super().__init__()
        self.attention = Attention(dim, heads, **options)
        self.before, self.between = nn.RMSNorm(dim), nn.RMSNorm(dim) if hidden else None
        self.feed = SwiGLU(dim, hidden) if hidden else None

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        positions: Int[Tensor, "B T"],
        mask: Bool[Tensor, "#B Q K"],
        keep: Int[Tensor, " Q"] | None = None,
        cache: Cache | None = None,
    ) -> tuple[Float[Tensor, "B Q D"], Cache]:
        """The tokens ``keep`` (None: all) one layer on, and the layer's keys and values."""
        mixed, cache = self.attention(self.before(x), positions, mask, keep, cache)
        x = (x if keep is None else x[:, keep]) + mixed
        return (x if self.feed is None else x + self.feed(self.between(x))), cache


class MatchHead(nn.Module):
    """A logit from a token z and an item e: an MLP on [z; e; z * e]; without ``match`` on z alone.

    The product hands the MLP the terms of an inner product, which it would have to learn otherwise.
    """

    def __init__(self, dim: int, hidden: int, match: bool = True):
        checks.whole(dim=dim, hidden=hidden)
        super().__init__()
        self.match = match
        self.layers = nn.Sequential(
            linear(3 * dim if match else dim, hidden), nn.SiLU(), linear(hidden, 1)
        )

    def forward(
        self, z: Float[Tensor, "*rows D"], e: Float[Tensor, "*rows D"]
    ) -> Float[Tensor, "*rows"]:
        x = torch.cat([z, e, z * e], -1) if self.match else z
        return self.layers(x).squeeze(-1)
