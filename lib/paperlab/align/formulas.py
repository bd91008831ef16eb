"""Formulas of the losses on preference pairs. `losses.preference_loss` checks their arguments.

Arguments shared by all functions:

chosen, rejected: (B,) sums over a response's tokens of log pi - log pi_ref; for the kinds in
    `REFERENCE_FREE`, of log pi.
n_chosen, n_rejected, n_gold: (B,) numbers of tokens; where chosen and rejected are weighted sums,
    the sums of the weights. Above 0: an empty response has no mean.
logp_chosen, logp_rejected, logp_gold: (B,) sums of log pi.
beta: above 0, the strength of the KL penalty.
epsilon: assumed share of wrong labels.

Each function returns (B,) values, one per pair (`aot`, `aot_unpaired`: one per rank). `names.TRL`
says where TRL's trainers differ. Choices that the papers leave open: f-DPO's scores use expm1;
likelihood terms are averaged within each response, so that accumulated micro-batches add up to the
whole batch; KTO is applied to pairs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

LARGEST_EXPONENT = 80.0  # exp(80) is still a float32


# Of the margin -------------------------------------------------------------------------------------


def sigmoid(chosen: Float[Tensor, " B"], rejected: Float[Tensor, " B"], beta: float = 0.1):
    """DPO (arXiv 2305.18290, eq. 7): -log sigma(beta Delta), Delta = s_w - s_l."""
    return -F.logsigmoid(beta * (chosen - rejected))


def cdpo(chosen, rejected, beta: float = 0.1, epsilon: float | Tensor = 0.1):
    """cDPO (Mitchell 2023): cross-entropy to a label that is wrong with probability epsilon.

    Minimal at sigma(beta Delta) = 1 - epsilon. epsilon: in [0, .5), or a tensor (B,) in [0, 1], one
    per pair (soft labels).
    """
    return _smoothed(beta * (chosen - rejected), epsilon)


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


def ipo_sum(chosen, rejected, beta: float = 0.1):
    """IPO (arXiv 2310.12036, eq. 17) on sums: (Delta - 1 / (2 beta))^2."""
    return (chosen - rejected - 1 / (2 * beta)).square()


def exo_pair(chosen, rejected, beta: float = 0.1, epsilon: float = 1e-3):
    """EXO for a pair (arXiv 2402.00856, eq. 16): reverse KL from sigma(beta Delta) to its label.

    epsilon: in (0, .5), label smoothing; the loss is infinite at 0.
    """
    logit = beta * (chosen - rejected)
    won = torch.sigmoid(logit) * (F.logsigmoid(logit) - math.log1p(-epsilon))
    return won + torch.sigmoid(-logit) * (F.logsigmoid(-logit) - math.log(epsilon))


def discopop(chosen, rejected, beta: float = 0.1, tau: float = 0.05):
    """DiscoPOP (arXiv 2406.08414, eq. 5): logistic loss at negative margins, exponential at positive.

    tau: above 0, width of the transition, in units of beta Delta.
    """
    logit = beta * (chosen - rejected)
    share = F.logsigmoid(logit / tau)  # log of the exponential part's share
    exponential = (share - logit).clamp(max=LARGEST_EXPONENT).exp()
    return exponential - torch.sigmoid(-logit / tau) * F.logsigmoid(logit)


def fdpo(
    chosen, rejected, beta: float = 0.1, divergence: str = "forward_kl", alpha: float | None = None
):
    """f-DPO (arXiv 2309.16240): DPO with f'(pi / pi_ref) in place of s = log(pi / pi_ref).

    divergence, alpha: see `f_score`.
    """
    scores = (f_score(s, divergence, alpha) for s in (chosen, rejected))
    return sigmoid(*scores, beta)


def f_score(
    s: Float[Tensor, " B"], divergence: str, alpha: float | None = None
) -> Float[Tensor, " B"]:
    """f'(e^s), up to a constant that cancels in a pair.

    ``forward_kl``: -e^-s. ``js``: log sigma(s). ``alpha``: (1 - e^(-alpha s)) / alpha, the paper's
    alpha-divergence: reverse KL (s itself, DPO) at 0, forward KL at 1. Exponents are clamped at 80.
    Raises ValueError for another divergence, and for alpha given where it is not used or missing
    where it is.
    """
    if divergence == "alpha" and alpha is not None:
        return s if alpha == 0 else -(-alpha * s).clamp(max=LARGEST_EXPONENT).expm1() / alpha
    if divergence in ("forward_kl", "js") and alpha is None:
        return -(-s).clamp(max=LARGEST_EXPONENT).exp() if divergence != "js" else F.logsigmoid(s)
    raise ValueError(
        f"divergence must be forward_kl, js, or alpha with a number alpha, got {divergence!r}, {alpha}"
    )


# Of means over tokens ------------------------------------------------------------------------------


def ipo(chosen, rejected, n_chosen, n_rejected, beta: float = 0.1):
    """IPO on means over tokens: (s_w / n_w - s_l / n_l - 1 / (2 beta))^2.

    At equal lengths n, the target margin of the sums is n times that of `ipo_sum`.
    """
    return ipo_sum(_mean(chosen, n_chosen), _mean(rejected, n_rejected), beta)


def sigmoid_norm(chosen, rejected, n_chosen, n_rejected, beta: float = 0.1):
    """DPO on means over tokens: -log sigma(beta (s_w / n_w - s_l / n_l))."""
    return sigmoid(_mean(chosen, n_chosen), _mean(rejected, n_rejected), beta)


def simpo(chosen, rejected, n_chosen, n_rejected, beta: float = 2.0, gamma: float = 1.0):
    """SimPO (arXiv 2405.14734, eq. 6): mean log-likelihoods, no reference, a margin gamma >= 0.

    The released code's ``gamma_beta_ratio`` is gamma / beta.
    """
    margin = _mean(chosen, n_chosen) - _mean(rejected, n_rejected)
    return -F.logsigmoid(beta * margin - gamma)


def alphapo(
    chosen,
    rejected,
    n_chosen,
    n_rejected,
    beta: float = 2.0,
    gamma: float = 1.0,
    alpha: float = 0.25,
):
    """AlphaPO (arXiv 2501.03884): SimPO with reward (1 - e^(-alpha m)) / alpha, m the mean log pi.

    alpha: any number; 0 is SimPO. gamma: at least 0. Exponents are clamped at 80.
    """
    good, bad = _mean(chosen, n_chosen), _mean(rejected, n_rejected)
    good, bad = (f_score(m, "alpha", alpha) for m in (good, bad))
    return -F.logsigmoid(beta * (good - bad) - gamma)


def orpo(chosen, rejected, n_chosen, n_rejected, lam: float = 0.1):
    """ORPO (arXiv 2403.07691, eq. 6): mean NLL of the chosen plus lam >= 0 times an odds-ratio loss.

    Odds are p / (1 - p), with p the geometric mean of the token probabilities, clamped at 1 - 1e-6.
    """
    good, bad = (_mean(chosen, n_chosen), _mean(rejected, n_rejected))
    odds = [m - torch.log(-torch.expm1(m.clamp(max=-1e-6))) for m in (good, bad)]
    return -good - lam * F.logsigmoid(odds[0] - odds[1])


# Of each response by itself ------------------------------------------------------------------------


def apo_zero(chosen, rejected, beta: float = 0.1):
    """APO-zero (arXiv 2408.06266, eq. 7): raises the chosen, lowers the rejected log-ratio."""
    return torch.sigmoid(-beta * chosen) + torch.sigmoid(beta * rejected)


def apo_down(chosen, rejected, beta: float = 0.1):
    """APO-down (arXiv 2408.06266, eq. 8): lowers both log-ratios, the rejected one more."""
    return torch.sigmoid(beta * chosen) + torch.sigmoid(-beta * (chosen - rejected))


def nca(chosen, rejected, beta: float = 0.1):
    """NCA for a pair (arXiv 2402.05369): raises the chosen log-ratio and penalises both."""
    pull = F.logsigmoid(-beta * chosen) + F.logsigmoid(-beta * rejected)
    return -F.logsigmoid(beta * chosen) - pull / 2


def bco(chosen, rejected, beta: float = 0.1, delta: float = 0.0):
    """BCO (arXiv 2404.04656): binary classification of the responses with reward threshold delta.

    delta: in units of beta s; in the paper, a running mean of the rewards.
    """
    return -F.logsigmoid(beta * chosen - delta) - F.logsigmoid(delta - beta * rejected)


def sppo_hard(chosen, rejected, beta: float = 0.1):
    """SPPO (arXiv 2405.00675, eq. 4.7), hard labels: squared errors to 1 / (2 beta), -1 / (2 beta)."""
    return (chosen - 0.5 / beta).square() + (rejected + 0.5 / beta).square()


def kto(
    chosen,
    rejected,
    z: float | Tensor = 0.0,
    beta: float = 0.1,
    lambda_d: float = 1.0,
    lambda_u: float = 1.0,
):
    """KTO (arXiv 2402.01306) on pairs: mean of `kto_unpaired` over the two responses."""
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
    """KTO (arXiv 2402.01306, eq. 8): a sigmoid loss per response, desirable or not, around z.

    lambda_D (1 - sigma(beta (s - z))) if desirable, else lambda_U (1 - sigma(beta (z - s))).
    score: (N,) log-ratios s. z: `kto_baseline`; at 0, with both lambdas 1, this is APO-zero for
    unpaired responses. lambda_d, lambda_u: at least 0.
    """
    sign = torch.where(desirable, 1.0, -1.0).to(score.dtype)
    scale = torch.where(desirable, lambda_d, lambda_u).to(score.dtype)
    return scale * torch.sigmoid(-sign * beta * (score - z))


def kto_baseline(mismatched: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    """KTO's reference point z = max(0, mean s), detached.

    mismatched: log-ratios of responses to other prompts of the batch, N >= 2.
    Raises ValueError for N < 2.
    """
    if len(mismatched) < 2:
        raise ValueError(f"mismatched must hold at least 2 log-ratios, got {len(mismatched)}")
    return mismatched.detach().mean().clamp(min=0)


# With a likelihood term ----------------------------------------------------------------------------


def sft(chosen, rejected, logp_chosen, n_chosen):
    """Supervised fine-tuning on the chosen responses: their mean NLL per token. A baseline."""
    return -_mean(logp_chosen, n_chosen) + 0 * (chosen + rejected)  # keeps both in the graph


def rpo(chosen, rejected, logp_chosen, n_chosen, beta: float = 0.1, lam: float = 1.0):
    """RPO (arXiv 2404.19733): DPO plus lam >= 0 times the chosen response's mean NLL."""
    return sigmoid(chosen, rejected, beta) - lam * _mean(logp_chosen, n_chosen)


def cpo(chosen, rejected, n_chosen, beta: float = 0.1, lam: float = 1.0):
    """CPO (arXiv 2401.08417): DPO without a reference plus lam >= 0 times the chosen's mean NLL.

    The paper sums the NLL over tokens; this follows its released code and averages.
    """
    return sigmoid(chosen, rejected, beta) - lam * _mean(chosen, n_chosen)


def tpo(chosen, rejected, logp_gold, n_gold, beta: float = 0.1, lam: float = 1.0):
    """TPO (arXiv 2405.16681): CPO with the NLL of a third, gold response. lam >= 0."""
    return sigmoid(chosen, rejected, beta) - lam * _mean(logp_gold, n_gold)


def tpo_l(
    chosen,
    rejected,
    n_chosen,
    n_rejected,
    logp_gold,
    n_gold,
    beta: float = 2.0,
    gamma: float = 1.0,
    lam: float = 1.0,
):
    """TPO-L (arXiv 2405.16681): SimPO plus lam >= 0 times a gold response's mean NLL."""
    return simpo(chosen, rejected, n_chosen, n_rejected, beta, gamma) - lam * _mean(
        logp_gold, n_gold
    )


# Of a batch's distributions ------------------------------------------------------------------------


def aot(chosen, rejected, logp_chosen, logp_rejected, beta: float = 0.1, epsilon: float = 0.0):
    """AOT (arXiv 2406.05882), paired: sorted policy margins against sorted reference margins.

    One value per rank of the batch, not per pair: micro-batches do not add up to the whole batch.
    epsilon: in [0, .5), label smoothing.
    """
    policy = logp_chosen - logp_rejected
    reference = policy - (chosen - rejected)
    return _smoothed(beta * (policy.sort().values - reference.sort().values), epsilon)


def aot_unpaired(chosen, rejected, beta: float = 0.1, epsilon: float = 0.0):
    """AOT (arXiv 2406.05882), unpaired: sorted chosen against sorted rejected log-ratios.

    epsilon, and one value per rank: as in `aot`.
    """
    return _smoothed(beta * (chosen.sort().values - rejected.sort().values), epsilon)


def _smoothed(logit: Tensor, epsilon: float | Tensor) -> Tensor:
    """Cross-entropy of sigma(logit) to a label that is wrong with probability epsilon."""
    return -(1 - epsilon) * F.logsigmoid(logit) - epsilon * F.logsigmoid(-logit)


def _mean(total: Float[Tensor, " B"], n: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Means from sums over tokens."""
    return total / n


LOSSES = {
    f.__name__: f
    for f in (
        *(sigmoid, cdpo, robust, hinge, ipo_sum, exo_pair, discopop, fdpo),
        *(ipo, sigmoid_norm, simpo, alphapo, orpo),
        *(apo_zero, apo_down, nca, bco, sppo_hard, kto),
        *(sft, rpo, cpo, tpo, tpo_l, aot, aot_unpaired),
    )
}
REFERENCE_FREE = ("simpo", "alphapo", "orpo", "cpo", "tpo", "tpo_l")
RANKED = ("aot", "aot_unpaired")  # one value per rank of the batch
GOLD = ("tpo", "tpo_l")  # a third response beside the pair
