"""Losses on preference pairs: Rafailov et al., "Direct Preference Optimization", NeurIPS 2023
(arXiv 2305.18290), and the family that grew from it.

A batch has 2B rows, the chosen responses first and their rejected ones after them. Three steps:

    logps = token_logps(logits, ids, mask)                      # one number per completion token
    s = sequence_logratio(logps, reference_logps, mask[:, 1:])  # one number per response
    loss = preference_loss("sigmoid", *s.chunk(2), beta=0.1)    # mean over pairs

s is the SUM over the completion of log pi - log pi_ref. Losses that average over tokens divide by
the lengths themselves, so that callers never normalise. With token weights s is a weighted sum, and
a mean over tokens divides it by the sum of the weights.

The formulas, each with its paper, are in `paperlab.align.formulas`, their names in TRL in
`paperlab.align.names`. Where published code disagrees (label smoothing, IPO's lengths), each variant
is a kind of its own.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import checks
from .formulas import LOSSES, RANKED, f_score

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

SIDES = ("chosen", "rejected")


# From logits to one number a response --------------------------------------------------------------


def sequence_logratio(
    policy_logps: Float[Tensor, "N T"],
    reference_logps: Float[Tensor, "N T"] | None,
    mask: Bool[Tensor, "N T"],
    weights: Float[Tensor, "N T"] | None = None,
    ld_alpha: float | None = None,
    average: bool = False,
) -> Float[Tensor, " N"]:
    """s = sum_t w_t (log pi_t - log pi_ref,t) over the tokens of ``mask``, in float32 or float64.

    reference_logps: None for losses without a reference (SimPO).
    weights: w >= 0; None is 1 everywhere (DPO). See `sampo_weights`, `otpo.uniform_weights`,
        `otpo.token_weights`.
    ld_alpha: in [0, 1]; multiplies w by `ld_weights`; N must then be 2B, chosen first.
    average: divide by sum_t w_t, the number of tokens without weights; 0 for an empty response.
    Raises ValueError when ld_alpha is out of range or N is odd with it.
    """
    dtype = torch.promote_types(policy_logps.dtype, torch.float32)
    w = mask.to(dtype)
    if weights is not None:
        w = w * weights
    if ld_alpha is not None:
        w = w * ld_weights(mask, ld_alpha, dtype)
    q = policy_logps.to(dtype)
    if reference_logps is not None:
        q = q - reference_logps.to(dtype)
    total, n = (w * q.masked_fill(~mask.bool(), 0)).sum(1), w.sum(1)
    return total / n.where(n > 0, 1) if average else total


def ld_weights(
    mask: Bool[Tensor, "2B T"], alpha: float, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "2B T"]:
    """LD-DPO (arXiv 2409.06411): 1 on a response's first n* = min(n_w, n_l) tokens, alpha after.

    alpha: in [0, 1]; 1 is DPO, 0 cuts both responses to the shorter one's length. Raises ValueError.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"ld_alpha must be in 0..1, got {alpha}")
    shared = _shorter(mask)
    tail = mask.bool() & (mask.cumsum(1) > shared)
    return mask.to(dtype).masked_fill(tail, alpha)


def sampo_weights(
    mask: Bool[Tensor, "2B T"], generator: torch.Generator | None = None
) -> Float[Tensor, "2B T"]:
    """SamPO (arXiv 2406.10957): 1 on n* = min(n_w, n_l) random tokens of each response, 0 elsewhere.

    Tokens are drawn without replacement; the shorter response keeps all of its own. Policy and
    reference share the draw. (The released code draws again for the reference, which adds variance;
    for that, call `sequence_logratio` once for each with its own weights and subtract.)
    """
    draw = torch.rand(mask.shape, generator=generator, device=mask.device)
    rank = draw.masked_fill(~mask.bool(), 2).argsort(1).argsort(1)
    return ((rank < _shorter(mask)) & mask.bool()).float()


def wpo_weight(
    logits: Float[Tensor, "2B T V"],
    logps: Float[Tensor, "2B T-1"],
    mask: Bool[Tensor, "2B T"],
) -> Float[Tensor, " B"]:
    """WPO's weight of a pair (arXiv 2406.11827, eq. 2 with aligned weights), without gradient.

    exp of the sum over both responses of mean_t (log p_t - log sum_v p_v^2): small for pairs that are
    unlikely under the policy. logits, mask: as for `token_logps`; logps: its result.
    """
    with torch.no_grad():
        logits = logits[:, :-1].to(logps.dtype)
        collision = (2 * logits).logsumexp(-1) - 2 * logits.logsumexp(-1)  # log sum_v p_v^2
        mean = sequence_logratio(logps, collision, mask[:, 1:], average=True)
        return sum(mean.chunk(2)).exp()


def _shorter(mask: Bool[Tensor, "2B T"]) -> Int[Tensor, "2B 1"]:
    """n* = min(n_w, n_l) for each of the 2B rows."""
    if len(mask) % 2:
        raise ValueError(f"mask must have 2B rows, chosen first, got {len(mask)}")
    chosen, rejected = mask.sum(1, keepdim=True).chunk(2)
    return torch.minimum(chosen, rejected).repeat(2, 1)


# From two numbers to the loss of a pair -------------------------------------------------------------


def preference_loss(
    kind: str,
    chosen: Float[Tensor, " B"],
    rejected: Float[Tensor, " B"],
    *,
    weight: Float[Tensor, " B"] | None = None,
    reduction: str = "mean",
    **options,
) -> Float[Tensor, "*B"]:
    """The loss ``kind`` of `formulas.LOSSES` on sums s_w = ``chosen`` and s_l = ``rejected``.

    weight: multiplies each pair's loss (`wpo_weight`); not for `formulas.RANKED`, whose values
        belong to ranks.
    reduction: "none", "mean" or "sum" over pairs.
    options: the loss's settings, see `check_options`, and the tensors (B,) that it needs.
    Raises ValueError for an unknown kind, reduction or option, a missing option, or one out of range.
    """
    takes = check_options(kind, **options)
    checks.one_of(("none", "mean", "sum"), reduction=reduction)
    if chosen.shape != rejected.shape or chosen.ndim != 1:
        raise ValueError(
            f"chosen and rejected must be (B,), got {tuple(chosen.shape)}, {tuple(rejected.shape)}"
        )
    if weight is not None and kind in RANKED:
        raise ValueError(
            f"weight must be None for {kind}: its values belong to ranks, not to pairs"
        )
    if missing := [n for n, p in takes.items() if p.default is p.empty and n not in options]:
        raise ValueError(f"options of {kind} are {', '.join(takes)}: missing {', '.join(missing)}")
    for name in (n for n in ("n_chosen", "n_rejected", "n_gold") if n in options):
        if (options[name] <= 0).any():
            raise ValueError(f"{name} must be above 0: a response without tokens has no mean")
    loss = LOSSES[kind](chosen, rejected, **options)
    if weight is not None:
        loss = loss * weight
    return loss if reduction == "none" else getattr(loss, reduction)()


def check_options(kind: str, **options) -> dict[str, inspect.Parameter]:
    """Check the options of the loss ``kind``; return its parameters after chosen and rejected.

    beta and tau must be above 0; gamma, lam, lambda_d and lambda_u at least 0; epsilon in [0, .5), in
    (0, .5) for exo_pair, or a tensor for cdpo; alpha and delta finite; divergence and alpha as in
    `formulas.f_score`. Values of tensors are not checked.
    Raises ValueError for an unknown kind or option, or one out of range.
    """
    checks.one_of(LOSSES, kind=kind)
    takes = dict(list(inspect.signature(LOSSES[kind]).parameters.items())[2:])
    if unknown := [name for name in options if name not in takes]:
        raise ValueError(f"options of {kind} are {', '.join(takes)}: unknown {', '.join(unknown)}")
    for name, value in options.items():
        if name in ("beta", "tau"):
            checks.positive(**{name: value})
        elif name in ("gamma", "lam", "lambda_d", "lambda_u"):
            checks.at_least(0, **{name: value})
        elif name == "epsilon" and not (kind == "cdpo" and isinstance(value, Tensor)):
            checks.inside("(0, 0.5)" if kind == "exo_pair" else "[0, 0.5)", epsilon=value)
        elif (name == "alpha" and value is not None) or name == "delta":
            checks.inside("(-inf, inf)", **{name: value})
    if kind == "fdpo":
        given = {k: v for k, v in options.items() if k in ("divergence", "alpha")}
        f_score(torch.zeros(1), **{"divergence": "forward_kl", **given})
    return takes


# What to log ---------------------------------------------------------------------------------------


@torch.no_grad()
def preference_metrics(
    chosen: Float[Tensor, " B"],
    rejected: Float[Tensor, " B"],
    beta: float,
    logps: Float[Tensor, " 2B"] | None = None,
) -> dict[str, Tensor]:
    """Means over the batch under TRL's names: rewards/chosen, /rejected, /margins, /accuracies.

    A reward is beta s. A tie counts as wrong, so accuracy is 0 while policy and reference are equal.
    logps: sums of log pi, chosen first, for logps/chosen and logps/rejected.
    """
    good, bad = beta * chosen, beta * rejected
    found = {
        "rewards/chosen": good.mean(),
        "rewards/rejected": bad.mean(),
        "rewards/margins": (good - bad).mean(),
        "rewards/accuracies": (good > bad).float().mean(),
    }
    if logps is not None:
        found |= {f"logps/{n}": p.mean() for n, p in zip(SIDES, logps.chunk(2), strict=True)}
    return found


@torch.no_grad()
def token_metrics(
    logits: Float[Tensor, "2B T V"], ids: Int[Tensor, "2B T"], mask: Bool[Tensor, "2B T"]
) -> dict[str, Tensor]:
    """Means over completion tokens under TRL's names; arguments as for `token_logps`.

    logits/chosen, logits/rejected: over the whole vocabulary. entropy: of the next-token distribution,
    in nats, over both sides. mean_token_accuracy: share of chosen tokens that are the most likely one.
    """
    logits, ids, mask = logits[:, :-1], ids[:, 1:], mask[:, 1:].bool()
    mean = logits.mean(-1, dtype=torch.float32)
    sides = zip(SIDES, mean.chunk(2), mask.chunk(2), strict=True)
    found = {f"logits/{n}": z[m].mean() for n, z, m in sides}
    entropy = 0.0
    for part in logits[mask].split(4096):  # the softmax over a large vocabulary takes memory
        logp = part.float().log_softmax(-1)
        entropy = entropy - (logp.exp() * logp).sum()
    found["entropy"] = entropy / mask.sum()
    first = len(ids) // 2
    right = logits[:first].argmax(-1) == ids[:first]
    return found | {"mean_token_accuracy": right[mask[:first]].float().mean()}
