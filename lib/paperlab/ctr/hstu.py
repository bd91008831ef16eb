"""HSTU: Zhai et al., "Actions Speak Louder than Words", ICML 2024 (arXiv 2402.17152).

A layer has one matrix for gate, values, queries and keys, pointwise attention in place of a softmax,
a relative bias of positions and times, and a LayerNorm between attention and gate:

    [U, V, Q, K] = silu(LN(X) W)                     (1)
    A = silu(Q K^T + r) / n,  masked                 (2)
    X <- X + (LN(A V) * U) W_o + b_o                 (3)

Initial values, bias and the LayerNorms without learned scales follow the released code
(meta-recsys/generative-recommenders). Departures, each a switch: softmax attention is masked before
it is normalised (the released variant masks after) and its bias is not divided by sqrt(d_qk); the
mean of valid positions is unweighted; negatives are drawn for a sequence, not for each position.
Stochastic Length and the fused kernels are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from ..nn.transformer import attention_weights, candidate_mask, causal_mask

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    Cache = tuple[Float[Tensor, "B H T d_qk"], Float[Tensor, "B H T d_v"]]
    Times = tuple[Int[Tensor, "B Q"], Int[Tensor, "B K"]]

EPS = 1e-6
BUCKETS = 129  # of times
KINDS = ("silu", "softmax", "sink")


# pure functions --------------------------------------------------------------------------------


def time_bucket(seconds: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """floor(ln(max(|seconds|, 1)) / .301), at most 128: a bucket for each factor of 1.35."""
    log = seconds.abs().clamp(min=1).double().log()
    return (log / 0.301).floor().long().clamp(max=BUCKETS - 1)


def positions_apart(positions: Int[Tensor, " K"], queries: int, length: int) -> Int[Tensor, "Q K"]:
    """Index j - i + length - 1 into 2 length - 1 biases, for the last ``queries`` positions i."""
    return positions - positions[-queries:, None] + length - 1


def sampled_softmax(
    states: Float[Tensor, "B T D"],
    table: Float[Tensor, "V D"],
    target: Int[Tensor, "B T"],
    negatives: Int[Tensor, "B R"],
    temperature: float = 0.05,
) -> Float[Tensor, ""]:
    """Mean -ln of the target's softmax among itself and its sequence's negatives; 0 without any.

    Scores are cosines over the temperature. A negative that is the position's target is left out.
    target: 0 where a position does not count. NaN where none counts.
    """
    z, e = F.normalize(states, dim=-1), F.normalize(table, dim=-1)
    right = (z * F.embedding(target, e)).sum(-1, keepdim=True)
    wrong = z @ F.embedding(negatives, e).transpose(1, 2)
    wrong = wrong.masked_fill(negatives[:, None] == target[:, :, None], -torch.inf)
    logits = torch.cat([right, wrong], -1) / temperature
    return -logits.log_softmax(-1)[..., 0][target > 0].mean()


def mean_length(n: int, most: int, alpha: float) -> float:
    """Expected tokens that Stochastic Length keeps of a history of ``n`` (section 3.2).

    A history above most^(alpha / 2) is kept whole with probability most^alpha / n^2, else that many
    of its tokens are. most: the longest history, >= n. alpha: in (1, 2].
    """
    checks.whole(n=n, most=most)
    checks.inside("(1, 2]", alpha=alpha)
    short = most ** (alpha / 2)
    if n <= short:
        return float(n)
    whole = min(1.0, most**alpha / n**2)
    return whole * n + (1 - whole) * short


# modules ---------------------------------------------------------------------------------------


class HSTULayer(nn.Module):
    """One layer, equations (1) to (3), with a switch for each mechanism.

    length: N, positions that the bias tells apart, and the constant n of equation (2).
    d_qk, d_v: widths of a head; None: dim / heads.
    kind: ``silu``; ``softmax`` of the scores over sqrt(d_qk); ``sink``: a softmax with a learned
        logit a head that takes weight and gives nothing.
    norm: the LayerNorm of equation (3). eps: what it adds to the variance. divisor: another n.
    gate: U. position, time: the biases.
    Raises ValueError for numbers out of range and an unknown kind.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        length: int,
        *,
        d_qk: int | None = None,
        d_v: int | None = None,
        kind: Literal["silu", "softmax", "sink"] = "silu",
        divisor: int | None = None,
        norm: bool = True,
        eps: float = EPS,
        gate: bool = True,
        position: bool = True,
        time: bool = False,
        dropout: float = 0.0,
    ):
        checks.whole(dim=dim, heads=heads, length=length)
        d_qk, d_v = (dim // heads if d is None else d for d in (d_qk, d_v))
        divisor = length if divisor is None else divisor
        checks.whole(d_qk=d_qk, d_v=d_v, divisor=divisor)
        checks.one_of(KINDS, kind=kind)
        checks.positive(eps=eps)
        checks.inside("[0, 1)", dropout=dropout)
        super().__init__()
        self.heads, self.length, self.divisor, self.kind = heads, length, divisor, kind
        self.norm, self.eps, self.dropout = norm, eps, dropout
        self.sizes = [heads * d for d in (d_v * gate, d_v, d_qk, d_qk)]  # of u, v, q and k
        self.uvqk = nn.Parameter(0.02 * torch.randn(dim, sum(self.sizes)))
        self.out = nn.Linear(heads * d_v, dim)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        biases = ((position, 2 * length - 1), (time, BUCKETS))
        self.position, self.time = (
            nn.Parameter(0.02 * torch.randn(size)) if used else None for used, size in biases
        )
        self.sink = nn.Parameter(torch.zeros(heads)) if kind == "sink" else None

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "#B Q K"],
        positions: Int[Tensor, " K"],
        times: Times | None = None,
        cache: Cache | None = None,
    ) -> tuple[Float[Tensor, "B Q D"], Cache]:
        """The last Q tokens one layer on, and all keys and values so far.

        mask: who reads whom. Keys, and positions, are the cached tokens, then those of x.
        times: seconds: when each query is asked, and when each key happened.
        """
        queries = mask.shape[-2]
        y, u, cache = self.mix(x, mask, positions, times, cache)
        if self.norm:
            y = F.layer_norm(y, y.shape[-1:], eps=self.eps)
        if self.sizes[0]:
            y = y * u
        y = self.out(F.dropout(y, self.dropout, self.training))  # (3)
        return x[:, -queries:] + y, cache

    def mix(
        self,
        x: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "#B Q K"],
        positions: Int[Tensor, " K"],
        times: Times | None = None,
        cache: Cache | None = None,
    ) -> tuple[Float[Tensor, "B Q Hd_v"], Float[Tensor, "B Q Hd_v"], Cache]:
        """A V of the last Q tokens, their U, and all keys and values: equations (1) and (2)."""
        queries = mask.shape[-2]
        parts = F.silu(F.layer_norm(x, x.shape[-1:], eps=EPS) @ self.uvqk)  # (1)
        u, v, q, k = parts.split(self.sizes, -1)
        q = q[:, -queries:]
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        if cache is not None:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        scores = q @ k.transpose(2, 3)
        if self.kind != "silu":
            scores = scores / math.sqrt(k.shape[3])
        scores = scores + self.bias(positions, queries, times)
        kind = "silu" if self.kind == "silu" else "softmax"
        a = attention_weights(scores, mask[:, None], kind, length=self.divisor, sink=self.sink)
        return (a @ v).transpose(1, 2).flatten(2), u[:, -queries:], (k, v)  # (2)

    def bias(
        self, positions: Int[Tensor, " K"], queries: int, times: Times | None = None
    ) -> Float[Tensor, "#B 1 Q K"] | float:
        """r, the same for all heads."""
        r = 0.0
        if self.position is not None:
            r = self.position[positions_apart(positions, queries, self.length)]
        if self.time is not None:
            asked, happened = times
            apart = time_bucket(asked[:, :, None] - happened[:, None])
            r = r + F.embedding(apart, self.time[:, None]).squeeze(-1)[:, None]
        return r


class TargetReader(nn.Module):
    """A number for each candidate of a history, from the candidate's own place in the sequence.

    Candidates are tokens after the history. They share one position and do not read each other.
    layers: of `HSTULayer` or others with its call, with ``length`` at least the history's + 1.
    vocabulary: ids of tokens, from 0, which is padding. own: whether a candidate reads its own key.
    """

    def __init__(self, vocabulary: int, dim: int, layers: Iterable[nn.Module], own: bool = True):
        checks.whole(2, vocabulary=vocabulary)
        super().__init__()
        self.table = nn.Embedding(vocabulary, dim)
        nn.init.normal_(self.table.weight, 0, 1 / math.sqrt(dim))
        self.layers, self.own = nn.ModuleList(layers), own
        self.head = nn.Linear(dim, 1)
        nn.init.zeros_(self.head.bias)

    def embed(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Tokens: sqrt(D) E[id]."""
        return self.table(ids) * math.sqrt(self.table.embedding_dim)

    def mask(
        self, history: Int[Tensor, "B T"], candidates: int
    ) -> tuple[Bool[Tensor, "B K K"], Int[Tensor, " K"]]:
        """Who reads whom, and positions."""
        t = history.shape[1]
        mask = candidate_mask(causal_mask(t), candidates)
        if not self.own:
            mask[t:, t:] = False
        there = F.pad(history > 0, (0, candidates), value=True)
        at = torch.cat([torch.arange(t), torch.full((candidates,), t)])
        return mask.to(history.device) & there[:, None], at.to(history.device)

    def forward(
        self, history: Int[Tensor, "B T"], candidates: Int[Tensor, "B C"]
    ) -> Float[Tensor, "B C"]:
        """All candidates in one pass over the history and them."""
        mask, at = self.mask(history, candidates.shape[1])
        x = self.embed(torch.cat([history, candidates], 1))
        for k, layer in enumerate(self.layers):
            last = k == len(self.layers) - 1  # of the last layer the candidates alone
            x, _ = layer(x, mask[:, -candidates.shape[1] :] if last else mask, at)
        return self.head(x).squeeze(-1)

    def in_microbatches(
        self, history: Int[Tensor, "B T"], candidates: Int[Tensor, "B C"], at_once: int
    ) -> Float[Tensor, "B C"]:
        """M-FALCON: the history's keys and values once, then ``at_once`` candidates a pass."""
        checks.whole(at_once=at_once)
        mask, at = self.mask(history, 0)
        x, caches = self.embed(history), []
        for layer in self.layers:
            x, cache = layer(x, mask, at)
            caches.append(cache)
        scores = []
        for some in candidates.split(at_once, 1):
            mask, at = self.mask(history, some.shape[1])
            y = self.embed(some)
            for layer, cache in zip(self.layers, caches, strict=True):
                y, _ = layer(y, mask[:, -some.shape[1] :], at, cache=cache)
            scores.append(self.head(y).squeeze(-1))
        return torch.cat(scores, 1)
