"""Losses on preference pairs: Rafailov et al., "Direct Preference Optimization", NeurIPS 2023
(arXiv 2305.18290), and the family that grew from it.

A batch has 2B rows, the chosen responses first and their rejected ones after them. Three steps:

    logps = token_logps(logits, ids, mask)                    # one number a completion token
    s = sequence_logratio(logps, reference_logps, mask[:, 1:])  # one number a response
    loss = preference_loss("sigmoid", *s.chunk(2), beta=0.1)  # one number a pair, then their mean

s is the SUM over the completion of log pi - log pi_ref; what averages over tokens divides by the
lengths itself, so that no loss depends on how its caller reduced. Each function of `LOSSES` gives
one value a pair. The formulas are those of the papers named beside them; where releases of a
public trainer disagree (label smoothing, IPO's lengths) the two readings are two kinds. Ours: f-DPO's
scores written with expm1, RPO's likelihood term averaged by response, KTO applied to pairs.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

LARGEST_EXPONENT = 80.0  # exp(80) is still a float32


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

    reference_logps: None leaves the reference out (SimPO). weights: w, 1 when None; they stand for
    DPO (1), SamPO (`sampo_weights`), a uniform budget or OTPO. ld_alpha: in [0, 1], `ld_weights` on
    top; N must then be 2B, chosen first. average: divide by the number of tokens, at least 1.
    Raises ValueError when ld_alpha is out of range or N is odd with it.
    """
    dtype = torch.promote_types(policy_logps.dtype, torch.float32)
    q = policy_logps.to(dtype)
    if reference_logps is not None:
        q = q - reference_logps.to(dtype)
    if weights is not None:
        q = q * weights
    if ld_alpha is not None:
        q = q * ld_weights(mask, ld_alpha, dtype)
    total = q.masked_fill(~mask.bool(), 0).sum(1)
    return total / mask.sum(1).clamp(min=1) if average else total


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
    """SamPO: 1 on n* = min(n_w, n_l) tokens of each response, drawn without replacement; 0 elsewhere.

    The shorter response keeps all its tokens. The same draw serves policy and reference. (The
    released code draws again for the reference, which adds variance; to get that, call
    `sequence_logratio` once for each with its own weights and subtract.)
    """
    draw = torch.rand(mask.shape, generator=generator, device=mask.device)
    rank = draw.masked_fill(~mask.bool(), 2).argsort(1).argsort(1)
    return ((rank < _shorter(mask)) & mask.bool()).float()


def wpo_weight(
    logits: Float[Tensor, "2B T V"],
    logps: Float[Tensor, "2B T-1"],
    mask: Bool[Tensor, "2B T"],
) -> Float[Tensor, " B"]:
    """WPO's weight of a pair (arXiv 2406.11827, eq. 2 aligned), a constant for the gradient.

    exp of the sum over both responses of mean_t (log p_t - log sum_v p_v^2). Usually below 1, where
    the pair is unlikely under the policy. logits, mask: as for `token_logps`; logps: its result.
    """
    with torch.no_grad():
        logits = logits[:, :-1].to(logps.dtype)
        collision = (2 * logits).logsumexp(-1) - 2 * logits.logsumexp(-1)  # log sum_v p_v^2
        mean = sequence_logratio(logps, collision, mask[:, 1:], average=True)
        return sum(mean.chunk(2)).exp()


def _shorter(mask: Bool[Tensor, "2B T"]) -> Int[Tensor, "2B 1"]:
    """n* of each pair, once for its chosen and once for its rejected row."""
    if len(mask) % 2:
        raise ValueError(f"mask must have 2B rows, chosen first, got {len(mask)}")
    chosen, rejected = mask.sum(1, keepdim=True).chunk(2)
    return torch.minimum(chosen, rejected).repeat(2, 1)


# One value a pair ----------------------------------------------------------------------------------


def sigmoid(chosen: Float[Tensor, " B"], rejected: Float[Tensor, " B"], beta: float = 0.1):
    """DPO, eq. 7: -log sigma(beta Delta), Delta = s_w - s_l."""
    return -F.logsigmoid(beta * (chosen - rejected))


def cdpo(chosen, rejected, beta: float = 0.1, epsilon: float | Tensor = 0.1):
    """Conservative DPO: cross-entropy to a label that is wrong with probability epsilon.

    Least where sigma(beta Delta) = 1 - epsilon. epsilon: in [0, .5), or a tensor (B,) in [0, 1]: then
    1 - epsilon is a pair's own probability of its label (soft labels).
    """
    logit = beta * (chosen - rejected)
    return -(1 - epsilon) * F.logsigmoid(logit) - epsilon * F.logsigmoid(-logit)


def robust(chosen, rejected, beta: float = 0.1, epsilon: float = 0.1):
    """Robust DPO (arXiv 2403.00409): unbiased for DPO's loss under labels flipped at rate epsilon.

    epsilon: in [0, .5). Negative for large margins.
    """
    logit = beta * (chosen - rejected)
    both = (1 - epsilon) * F.logsigmoid(logit) - epsilon * F.logsigmoid(-logit)
    return -both / (1 - 2 * epsilon)


def hinge(chosen, rejected, beta: float = 0.1):
    """SLiC (arXiv 2305.10425) on log-ratios: max(0, 1 - beta Delta)."""
    return (1 - beta * (chosen - rejected)).relu()


def ipo(chosen, rejected, n_chosen, n_rejected, beta: float = 0.1):
    """IPO (arXiv 2310.12036), the mean over tokens: (s_w / n_w - s_l / n_l - 1 / (2 beta))^2."""
    return ipo_sum(chosen / n_chosen, rejected / n_rejected, beta)


def ipo_sum(chosen, rejected, beta: float = 0.1):
    """IPO on sums: (Delta - 1 / (2 beta))^2. Its optimum is a length's factor away from `ipo`'s."""
    return (chosen - rejected - 1 / (2 * beta)).square()


def sigmoid_norm(chosen, rejected, n_chosen, n_rejected, beta: float = 0.1):
    """DPO on means over tokens: -log sigma(beta (s_w / n_w - s_l / n_l))."""
    return sigmoid(chosen / n_chosen, rejected / n_rejected, beta)


def simpo(chosen, rejected, n_chosen, n_rejected, beta: float = 2.0, gamma: float = 1.0):
    """SimPO (arXiv 2405.14734, eq. 6): no reference, mean log-likelihoods, a margin gamma >= 0.

    chosen, rejected: sums of log pi alone. The released code's ``gamma_beta_ratio`` is gamma / beta.
    """
    return -F.logsigmoid(beta * (chosen / n_chosen - rejected / n_rejected) - gamma)


def apo_zero(chosen, rejected, beta: float = 0.1):
    """APO-zero (arXiv 2408.06266, eq. 7): each response against the reference, not the other."""
    return torch.sigmoid(-beta * chosen) + torch.sigmoid(beta * rejected)


def nca(chosen, rejected, beta: float = 0.1):
    """NCA for a pair (arXiv 2402.05369): raises the chosen log-ratio, pulls both back to 0."""
    pull = F.logsigmoid(-beta * chosen) + F.logsigmoid(-beta * rejected)
    return -F.logsigmoid(beta * chosen) - pull / 2


def bco(chosen, rejected, beta: float = 0.1, delta: float = 0.0):
    """BCO (arXiv 2404.04656): a classifier of chosen against rejected with threshold delta.

    delta: the mean reward so far, in units of beta s; 0 is what TRL does since 0.29.
    """
    return -F.logsigmoid(beta * chosen - delta) - F.logsigmoid(delta - beta * rejected)


def rpo(chosen, rejected, logp_chosen, n_chosen, beta: float = 0.1, lam: float = 1.0):
    """RPO (arXiv 2404.19733): DPO plus lam >= 0 times the chosen response's mean NLL a token.

    logp_chosen: sum of log pi over the chosen response. The mean is taken in each response, so that
    accumulated micro-batches add up (a mean over all the batch's tokens does not).
    """
    return sigmoid(chosen, rejected, beta) - lam * logp_chosen / n_chosen


def fdpo(
    chosen, rejected, beta: float = 0.1, divergence: str = "forward_kl", alpha: float | None = None
):
    """f-DPO (arXiv 2309.16240): DPO on f'(pi / pi_ref) in place of s = log(pi / pi_ref).

    divergence: see `f_score`.
    """
    scores = (f_score(s, divergence, alpha) for s in (chosen, rejected))
    return sigmoid(*scores, beta)


def kto(
    chosen,
    rejected,
    z: float | Tensor = 0.0,
    beta: float = 0.1,
    lambda_d: float = 1.0,
    lambda_u: float = 1.0,
):
    """KTO (arXiv 2402.01306) on pairs: the mean of the chosen's and the rejected's `kto_unpaired`."""
    good = kto_unpaired(chosen, torch.ones_like(chosen).bool(), z, beta, lambda_d, lambda_u)
    bad = kto_unpaired(rejected, torch.zeros_like(rejected).bool(), z, beta, lambda_d, lambda_u)
    return (good + bad) / 2


def kto_unpaired(
    score: Float[Tensor, " N"],
    desirable: Bool[Tensor, " N"],
    z: float | Tensor = 0.0,
    beta: float = 0.1,
    lambda_d: float = 1.0,
    lambda_u: float = 1.0,
) -> Float[Tensor, " N"]:
    """KTO, eq. 8: lambda_D (1 - sigma(beta (s - z))), or lambda_U (1 - sigma(beta (z - s))).

    z: `kto_baseline`. lambda_d, lambda_u >= 0.
    """
    sign = torch.where(desirable, 1.0, -1.0).to(score.dtype)
    scale = torch.where(desirable, lambda_d, lambda_u).to(score.dtype)
    return scale * torch.sigmoid(-sign * beta * (score - z))


def kto_baseline(mismatched: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    """z = max(0, mean s), detached, over responses to OTHER prompts of the batch (N >= 2).

    Raises ValueError for N = 1, where a response has no other prompt.
    """
    if len(mismatched) < 2:
        raise ValueError(f"mismatched must hold at least 2 log-ratios, got {len(mismatched)}")
    return mismatched.detach().mean().clamp(min=0)


def f_score(
    s: Float[Tensor, " B"], divergence: str, alpha: float | None = None
) -> Float[Tensor, " B"]:
    """f'(e^s), up to a constant that cancels in a pair.

    ``forward_kl``: -e^-s. ``js``: log sigma(s). ``alpha``: (e^((alpha - 1) s) - 1) / (alpha - 1), which
    is s at alpha = 1. Exponents stop at 80. Raises ValueError for another name, or alpha without it.
    """
    if divergence == "alpha" and alpha is not None:
        power = alpha - 1
        return s if power == 0 else (power * s).clamp(max=LARGEST_EXPONENT).expm1() / power
    if divergence in ("forward_kl", "js") and alpha is None:
        return -(-s).clamp(max=LARGEST_EXPONENT).exp() if divergence != "js" else F.logsigmoid(s)
    raise ValueError(
        f"divergence must be forward_kl, js, or alpha with a number alpha, got {divergence!r}, {alpha}"
    )


LOSSES = {
    f.__name__: f
    for f in (
        *(sigmoid, cdpo, robust, hinge, ipo, ipo_sum, sigmoid_norm, simpo),
        *(apo_zero, nca, bco, rpo, fdpo, kto),
    )
}
POSITIVE, AT_LEAST_0 = ("beta",), ("gamma", "lam", "lambda_d", "lambda_u")


def preference_loss(
    kind: str,
    chosen: Float[Tensor, " B"],
    rejected: Float[Tensor, " B"],
    *,
    weight: Float[Tensor, " B"] | None = None,
    reduction: str = "mean",
    **options,
) -> Float[Tensor, "*B"]:
    """The loss ``kind`` of `LOSSES` on sums s_w = ``chosen`` and s_l = ``rejected``.

    weight: multiplies each pair's loss (`wpo_weight`). reduction: "none", "mean" or "sum" over pairs.
    options: the loss's own: beta > 0 for all; epsilon in [0, .5); gamma, lam, lambda_d, lambda_u >= 0;
    n_chosen, n_rejected (B,) token counts for what averages; logp_chosen, z: see there.
    Raises ValueError for an unknown kind, reduction or option, a missing one, or one out of range.
    """
    if kind not in LOSSES:
        raise ValueError(f"kind must be one of {', '.join(LOSSES)}, not {kind!r}")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be none, mean or sum, not {reduction!r}")
    if chosen.shape != rejected.shape or chosen.ndim != 1:
        raise ValueError(
            f"chosen and rejected must be (B,), got {tuple(chosen.shape)}, {tuple(rejected.shape)}"
        )
    takes = dict(list(inspect.signature(LOSSES[kind]).parameters.items())[2:])
    unknown = [name for name in options if name not in takes]
    missing = [n for n, p in takes.items() if p.default is p.empty and n not in options]
    if unknown or missing:
        told = f"unknown {', '.join(unknown)}" if unknown else f"missing {', '.join(missing)}"
        raise ValueError(f"options of {kind} are {', '.join(takes)}: {told}")
    for name, value in options.items():
        if name in POSITIVE and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
        if name in AT_LEAST_0 and not value >= 0:
            raise ValueError(f"{name} must be at least 0, got {value}")
        if name == "epsilon" and not isinstance(value, Tensor) and not 0 <= value < 0.5:
            raise ValueError(f"epsilon must be in [0, 0.5), got {value}")
    loss = LOSSES[kind](chosen, rejected, **options)
    if weight is not None:
        loss = loss * weight
    return loss if reduction == "none" else getattr(loss, reduction)()


# What to log ---------------------------------------------------------------------------------------


@torch.no_grad()
def preference_metrics(
    chosen: Float[Tensor, " B"],
    rejected: Float[Tensor, " B"],
    beta: float,
    logps: Float[Tensor, " 2B"] | None = None,
) -> dict[str, Tensor]:
    """Means over the batch under TRL's names: rewards/chosen, /rejected, /margins, /accuracies.

    A reward is beta s; a tie counts as wrong, so that accuracy starts at 0 where policy and reference
    are one. logps: sums of log pi by response, for logps/chosen and logps/rejected.
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

    logits/chosen and logits/rejected: of all logits there. entropy: of the next-token distribution,
    in nats, both sides together. mean_token_accuracy: chosen tokens that are the most likely one.
    """
    logits, ids, mask = logits[:, :-1], ids[:, 1:], mask[:, 1:].bool()
    mean = logits.mean(-1, dtype=torch.float32)
    sides = zip(SIDES, mean.chunk(2), mask.chunk(2), strict=True)
    found = {f"logits/{n}": z[m].mean() for n, z, m in sides}
    entropy = 0.0
    for part in logits[mask].split(4096):  # a large vocabulary's softmax need not stand whole
        logp = part.float().log_softmax(-1)
        entropy = entropy - (logp.exp() * logp).sum()
    found["entropy"] = entropy / mask.sum()
    first = len(ids) // 2
    right = logits[:first].argmax(-1) == ids[:first]
    return found | {"mean_token_accuracy": right[mask[:first]].float().mean()}


SIDES = ("chosen", "rejected")
