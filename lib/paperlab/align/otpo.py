"""OTPO: Li et al., "Optimal Transport-Based Token Weighting scheme for Enhanced Preference
Optimization", ACL 2025 (arXiv 2505.18720).

DPO sums the log-ratios q of all tokens with weight 1. OTPO weighs them: both responses have the same
total weight, and tokens with a counterpart of similar meaning in the other response count for more:

    Gamma = argmin_{G >= 0} <G, C> + reg sum G (log G - 1) + reg_m [KL(G 1 | a) + KL(G^T 1 | b)]
    w_c = tau Gamma 1 / |Gamma|,   w_r = tau Gamma^T 1 / |Gamma|,   tau = min(m, n)
    Delta = sum_i w_c,i q_c,i - sum_j w_r,j q_r,j            (the loss: DPO's, with this Delta)

with a = b = 1 on the m and n tokens, C the Euclidean distances of their last hidden states divided
by the largest, KL generalised to unequal masses. No gradient flows through the weights.

The paper's full text was not available: constants, solver and stop-gradients follow the authors'
released trainer, reimplemented here. Not in that trainer: the batched solver, the number of rounds
from the contraction rate, ``cost_norm`` other than ``released`` (in which prompt and padding enter
the largest distance as zero vectors), ``representation="token"``, and the default reg of 0.1 (the
authors use 1.0 for Llama-3-8B, which makes the weights of random states nearly uniform).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

COST_NORMS = ("valid_max", "released", "median")
BUDGETS = ("min", "mean", "max", "own", "none")
SMALLEST = 1e-6  # reg
CHECK_EVERY = 5  # rounds between convergence checks, on a CPU
# Largest C / reg of the scaling form: exp(-C / reg), its sums and powers must not underflow.
DEEPEST = {torch.float32: 40.0, torch.float64: 300.0}


class TokenWeights(NamedTuple):
    """Weights of both responses' tokens, zero where masked; the plan and its total mass.

    A mass too small for its dtype is 0. The weights stay right: they are relative, but for the
    budget ``none``, which leaves the masses as they are.
    """

    chosen: Float[Tensor, "B m"]
    rejected: Float[Tensor, "B n"]
    plan: Float[Tensor, "B m n"]
    mass: Float[Tensor, " B"]


def token_weights(
    hidden_chosen: Float[Tensor, "B m D"],
    hidden_rejected: Float[Tensor, "B n D"],
    mask_chosen: Bool[Tensor, "B m"],
    mask_rejected: Bool[Tensor, "B n"],
    reg: float = 0.1,
    reg_m: float = 0.2,
    cost_norm: str = "valid_max",
    budget: str = "min",
) -> TokenWeights:
    """OTPO's weights of the tokens where the masks are True, without gradient.

    Computed in float32 or float64 even under autocast: a plan is a fixed point of many products.

    hidden: the state that stands for each token, see `token_states`. reg, reg_m > 0: weights of the
        entropy and of the marginals' KL, in units of the normalised cost.
    cost_norm: divisor of the distances: the largest between two tokens of the pair (``valid_max``),
        their ``median``, or that of the authors' code (``released``: the largest with masked
        positions as zero vectors, if above 1).
    budget: total weight of each response, see `rescale`.
    Raises ValueError for unknown names, numbers out of range, and a response without tokens.
    """
    if not (mask_chosen.any(1).all() and mask_rejected.any(1).all()):
        raise ValueError("mask_chosen and mask_rejected need a token in every response")
    with torch.no_grad(), torch.autocast(hidden_chosen.device.type, enabled=False):
        part_c, part_r = _used(mask_chosen), _used(mask_rejected)
        a, b = mask_chosen[:, part_c], mask_rejected[:, part_r]
        cost = transport_cost(
            hidden_chosen[:, part_c],
            hidden_rejected[:, part_r],
            a,
            b,
            cost_norm,
            padded=(not mask_chosen.all(), not mask_rejected.all()),
        )
        part, peak = _solve(cost, a.to(cost), b.to(cost), reg, reg_m)
        shape = part.new_zeros(len(part), mask_chosen.shape[1], mask_rejected.shape[1])
        shape[:, part_c, part_r] = part
        plan = shape * peak
        shape = plan if budget == "none" else shape
        chosen, rejected = rescale(shape.sum(2), shape.sum(1), mask_chosen, mask_rejected, budget)
        return TokenWeights(chosen, rejected, plan, plan.sum((1, 2)))


def uniform_weights(
    mask_chosen: Bool[Tensor, "B m"], mask_rejected: Bool[Tensor, "B n"], budget: str = "min"
) -> tuple[Float[Tensor, "B m"], Float[Tensor, "B n"]]:
    """Equal weights with OTPO's budget: min(m, n) / m per chosen token, min(m, n) / n per rejected.

    The paper's ablation "OT -> uniform". ``budget="own"`` gives 1 everywhere, which is DPO.
    """
    return rescale(mask_chosen.float(), mask_rejected.float(), mask_chosen, mask_rejected, budget)


def rescale(
    chosen: Float[Tensor, "B m"],
    rejected: Float[Tensor, "B n"],
    mask_chosen: Bool[Tensor, "B m"],
    mask_rejected: Bool[Tensor, "B n"],
    budget: str,
) -> tuple[Float[Tensor, "B m"], Float[Tensor, "B n"]]:
    """Scale non-negative weights to the total tau of each response.

    budget: tau is the ``min`` (the paper), ``mean`` or ``max`` of both lengths, or each response's
        ``own`` length; ``none`` leaves the weights as they are.
    """
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {', '.join(BUDGETS)}, not {budget!r}")
    if budget == "none":
        return chosen, rejected
    m, n = mask_chosen.sum(1, keepdim=True), mask_rejected.sum(1, keepdim=True)
    if budget != "own":
        m = n = {"min": torch.minimum, "max": torch.maximum, "mean": _mean}[budget](m, n)
    return m * chosen / chosen.sum(1, keepdim=True), n * rejected / rejected.sum(1, keepdim=True)


def token_states(
    hidden: Float[Tensor, "B S D"], representation: str = "predictor"
) -> Float[Tensor, "B S-1 D"]:
    """The hidden state that represents each target token 1..S-1 of a sequence.

    ``predictor``: the state one position before, which predicts the token (the authors' code);
    ``token``: the state at the token's own position.
    """
    if representation not in ("predictor", "token"):
        raise ValueError(f"representation must be predictor or token, not {representation!r}")
    return hidden[:, :-1] if representation == "predictor" else hidden[:, 1:]


def transport_cost(
    hidden_chosen: Float[Tensor, "B m D"],
    hidden_rejected: Float[Tensor, "B n D"],
    mask_chosen: Bool[Tensor, "B m"],
    mask_rejected: Bool[Tensor, "B n"],
    cost_norm: str = "valid_max",
    padded: tuple[bool, bool] = (False, False),
) -> Float[Tensor, "B m n"]:
    """Euclidean distances, normalised over the tokens where both masks are True; 0 elsewhere.

    padded: whether chosen and rejected sequences have masked positions; used by ``released`` only.
    """
    if cost_norm not in COST_NORMS:
        raise ValueError(f"cost_norm must be one of {', '.join(COST_NORMS)}, not {cost_norm!r}")
    precise = torch.promote_types(hidden_chosen.dtype, torch.float32)
    h_c, h_r = hidden_chosen.to(precise), hidden_rejected.to(precise)
    # Squares of states above 1e15 would overflow; at that size no normalisation sees a factor.
    unit = torch.maximum(h_c.abs().amax((1, 2)), h_r.abs().amax((1, 2))).clamp_min(1e15) / 1e15
    h_c, h_r = h_c / unit[:, None, None], h_r / unit[:, None, None]
    valid = mask_chosen[:, :, None] & mask_rejected[:, None]
    cost = torch.cdist(h_c, h_r).masked_fill(~valid, 0.0)
    if cost_norm == "median":
        scale = cost.masked_fill(~valid, math.nan).flatten(1).nanmedian(1).values
        scale = torch.maximum(scale, 1e-6 * cost.amax((1, 2)))  # it is 0 if most tokens are equal
    else:
        scale = cost.amax((1, 2))
    if cost_norm == "released":
        # A zero vector on one side leaves the norm of a state on the other side as a distance.
        for there, h, mask in ((padded[1], h_c, mask_chosen), (padded[0], h_r, mask_rejected)):
            if there:
                scale = torch.maximum(scale, (h.norm(dim=2) * mask).amax(1))
        cost, scale = (cost + 1e-6).masked_fill(~valid, 0.0), (scale + 1e-6).clamp_min(1.0)
    return cost / scale.clamp_min(torch.finfo(precise).tiny)[:, None, None]


def unbalanced_sinkhorn(
    cost: Float[Tensor, "B m n"],
    a: Float[Tensor, "B m"],
    b: Float[Tensor, "B n"],
    reg: float,
    reg_m: float,
    *,
    tolerance: float = 1e-6,
    domain: str = "auto",
) -> Float[Tensor, "B m n"]:
    """Plans of a batch of unbalanced, entropic transport problems (first equation above).

    With K = exp(-cost / reg) and f = reg_m / (reg_m + reg), from u = v = 1:

        u <- (a / K v)^f,   v <- (b / K^T u)^f,   Gamma = u K v;   0 where a or b is 0.

    Each round multiplies the largest error of log u by at most f^2, whatever the cost, which gives the
    number of rounds to ``tolerance``. On a CPU the loop also checks every few rounds whether u
    has converged; on a GPU that would wait for the device.

    cost: >= 0, finite, float32 or float64. a, b: masses >= 0, whose sums may differ.
    reg: at least 1e-6, below which rounding decides. reg_m, tolerance: above 0; reg_m at most 1000
        reg, since the rounds grow with it.
    domain: ``scaling`` as written; ``log`` the same in logarithms, several times slower; ``auto``
        scaling in the dtype of cost, or in float64 if exp(-cost / reg) needs its range, or log.
    Raises ValueError for numbers out of range and shapes that do not fit.
    """
    plan, peak = _solve(cost, a, b, reg, reg_m, tolerance, domain)
    return plan * peak


def _solve(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    reg: float,
    reg_m: float,
    tolerance: float = 1e-6,
    domain: str = "auto",
) -> tuple[Float[Tensor, "B m n"], Float[Tensor, "B 1 1"]]:
    """`unbalanced_sinkhorn`'s plans over their largest entries, and those, which may underflow."""
    for name, value in (("reg", reg), ("reg_m", reg_m), ("tolerance", tolerance)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0 and finite, got {value}")
    if reg < SMALLEST:
        raise ValueError(f"reg must be at least {SMALLEST}, got {reg}")
    if reg_m > 1000 * reg:
        raise ValueError(f"reg_m must be at most 1000 times reg, got {reg_m} and {reg}")
    if domain not in ("auto", "scaling", "log"):
        raise ValueError(f"domain must be auto, scaling or log, not {domain!r}")
    if cost.shape != (len(a), a.shape[-1], b.shape[-1]) or len(a) != len(b):
        raise ValueError(
            f"cost must be (B, m, n) for a (B, m) and b (B, n), got {tuple(cost.shape)}, "
            f"{tuple(a.shape)}, {tuple(b.shape)}"
        )
    f = reg_m / (reg_m + reg)  # the error of u is at most f^2 / (1 - f^2) times its last change
    stop = max(tolerance * (1 - f**2), 4 * torch.finfo(cost.dtype).eps)
    rounds = 2 + math.ceil(math.log(tolerance / 100) / (2 * math.log(f)))
    valid = (a > 0)[:, :, None] & (b > 0)[:, None]
    dtype = cost.dtype
    if domain == "auto":
        # Unequal masses make u and v differ in scale, by up to this power of their ratio.
        apart = reg_m * (a.sum(1) / b.sum(1)).log().abs()
        depth = (cost.amax() + apart.amax()).item() / reg
        fits = [d for d in (dtype, torch.float64) if depth <= DEEPEST[d]]
        domain, dtype = ("scaling", fits[0]) if fits else ("log", torch.float64)
    scaled, a, b = -cost.to(dtype) / reg, a.to(dtype), b.to(dtype)
    if domain == "scaling":
        plan = scaling_form(scaled.exp() * valid, a, b, f, rounds, stop)
        peak = plan.amax((1, 2), keepdim=True)
        shape = plan / peak.clamp_min(torch.finfo(dtype).tiny)
    else:
        scaled = scaled.masked_fill(~valid, -math.inf)
        logs = log_form(scaled, a.log(), b.log(), f, rounds, stop)
        top = logs.amax((1, 2), keepdim=True)
        shape = (logs - top.masked_fill(top == -math.inf, 0.0)).exp()
        peak = top.exp()
    return shape.to(cost.dtype), peak.to(cost.dtype)


def scaling_form(
    kernel: Tensor, a: Tensor, b: Tensor, f: float, rounds: int, stop: float
) -> Tensor:
    tiny = torch.finfo(kernel.dtype).tiny  # an empty row divides zero by it, not by zero
    a, b = a.unsqueeze(2), b.unsqueeze(1)
    u, v = torch.ones_like(a), torch.ones_like(b)
    for k in range(rounds):
        before = u
        u = (a / (kernel @ v.mT).clamp_min_(tiny)).pow_(f)
        v = (b / (u.mT @ kernel).clamp_min_(tiny)).pow_(f)
        if _still(k, u) and torch.allclose(u, before, rtol=stop, atol=0.0):
            break
    return u * kernel * v


def log_form(kernel: Tensor, a: Tensor, b: Tensor, f: float, rounds: int, stop: float) -> Tensor:
    """The logarithm of the plan, from those of the kernel and the masses."""
    dead_a, dead_b = a.isinf(), b.isinf()
    least = torch.finfo(kernel.dtype).min  # of a sum over nothing: no mass on the other side
    u, v = torch.zeros_like(a), torch.zeros_like(b)
    for k in range(rounds):
        before = u
        u = f * (a - torch.logsumexp(kernel + v[:, None], 2).clamp_min(least)).masked_fill(
            dead_a, -math.inf
        )
        v = f * (b - torch.logsumexp(kernel + u[:, :, None], 1).clamp_min(least)).masked_fill(
            dead_b, -math.inf
        )
        if _still(k, u) and torch.allclose(u, before, rtol=0.0, atol=stop):
            break
    return u[:, :, None] + kernel + v[:, None]


def _still(k: int, u: Tensor) -> bool:
    """Whether to check convergence after round k."""
    return u.device.type == "cpu" and k % CHECK_EVERY == CHECK_EVERY - 1


def _used(mask: Tensor) -> slice:
    """The columns from the first to the last with a True; the others need no work."""
    columns = mask.any(0).nonzero()
    return slice(columns[0].item(), columns[-1].item() + 1)


def _mean(m: Tensor, n: Tensor) -> Tensor:
    return (m + n) / 2


def contenders() -> dict[str, dict]:
    """What `paperlab.tryout` compares: arguments of `PreferenceTuning`; one beta for all but SimPO."""
    return {
        "OTPO": {"weighting": "otpo"},
        "uniform budget": {"weighting": "uniform"},
        "DPO": {},
        "SimPO": {"kind": "simpo", "beta": 2.0, "options": {"gamma": 1.0}},
    }
