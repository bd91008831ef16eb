"""A softmax policy over K responses, trained on labelled pairs; the optimal policy is known.

    r*          reward of each response, N(0, 1)
    p(i > j)    = sigma(r*_i - r*_j), Bradley-Terry; labels may be flipped at a given rate
    pi*         ~ pi_ref exp(r* / beta), the maximiser of E r* - beta KL(pi || pi_ref)
    regret      = the objective's shortfall from its maximum = beta KL(pi || pi*), in nats of reward

All problems and conditions are trained together, as rows of one tensor.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import checks
from .formulas import GOLD, LOSSES, RANKED, REFERENCE_FREE
from .losses import preference_loss

if TYPE_CHECKING:
    from jaxtyping import Float

KINDS = tuple(k for k in LOSSES if k not in (*RANKED, *GOLD, "kto"))  # these need pairs alone
MARGIN = ("sigmoid", "cdpo", "robust", "hinge", "ipo_sum", "exo_pair", "discopop")
LABELS = 2**31  # added to seeds of labels, which must not repeat the rewards' random numbers
OWN_BETA = ("simpo", "alphapo")  # their beta is not the strength of a KL penalty


@dataclass(frozen=True)
class Choices:
    """S independent problems with K responses each.

    reward: true rewards r*. reference: log pi_ref. length: tokens of each response, for losses that
    average over tokens.
    """

    reward: Float[Tensor, "S K"]
    reference: Float[Tensor, "S K"]
    length: Float[Tensor, "S K"]

    @property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """Indices i < j of the P = K (K - 1) / 2 pairs."""
        return tuple(torch.triu_indices(self.reward.shape[1], self.reward.shape[1], 1))

    def optimum(self, beta: float) -> Float[Tensor, "S K"]:
        """log pi*. beta > 0."""
        checks.positive(beta=beta)
        return (self.reference + self.reward / beta).log_softmax(1)

    def regret(self, logp: Float[Tensor, "*C S K"], beta: float) -> Float[Tensor, "*C S"]:
        """beta KL(pi || pi*), at least 0; 0 at pi* alone. beta > 0."""
        return beta * (logp.exp() * (logp - self.optimum(beta))).sum(-1)

    def labels(
        self, each: int | None, flips: float = 0.0, seeds: Sequence[int] | None = None
    ) -> Float[Tensor, "S P"]:
        """Share of labels that prefer i in each pair (i, j).

        each: labels per pair, at least 1; None: infinitely many, so the exact probability.
        flips: share of flipped labels, in [0, .5].
        seeds: one per problem, which may be those of `choices`; needed unless each is None.
        """
        checks.inside("[0, 0.5]", flips=flips)
        i, j = self.pairs
        p = torch.sigmoid(self.reward[:, i] - self.reward[:, j])
        p = p * (1 - flips) + (1 - p) * flips
        if each is None:
            return p
        checks.whole(each=each)
        draws = [torch.Generator().manual_seed(LABELS + s) for s in seeds]
        ways = zip(draws, p, strict=True)
        return torch.stack(
            [
                torch.rand(each, len(q), generator=g, dtype=q.dtype).lt(q).double().mean(0)
                for g, q in ways
            ]
        )


def choices(seeds: Sequence[int], responses: int = 8) -> Choices:
    """One problem per seed: rewards and reference logits from N(0, 1), lengths 5 to 39 tokens.

    responses: K, at least 2.
    """
    checks.whole(2, responses=responses)
    drawn = []
    for seed in seeds:
        draw = torch.Generator().manual_seed(seed)
        normal = torch.randn(2, responses, generator=draw, dtype=torch.float64)
        length = torch.randint(5, 40, (responses,), generator=draw).double()
        drawn.append((normal[0], normal[1].log_softmax(0), length))
    return Choices(*(torch.stack(part) for part in zip(*drawn, strict=True)))


def fit(
    kind: str,
    world: Choices,
    labels: Float[Tensor, "*C S P"],
    beta: float,
    steps: int = 400,
    **options,
) -> Float[Tensor, "*C S K"]:
    """log pi after Adam steps from pi_ref on the mean loss over labelled pairs.

    kind: one of `KINDS`. labels: as from `Choices.labels`; leading dimensions C are conditions.
    beta: above 0; SimPO and AlphaPO keep their own default.
    steps: at least 1; the learning rate falls linearly from .1 nats of reward to 0. A loss without a
        minimum is stopped early by them.
    options: the loss's settings.
    """
    checks.one_of(KINDS, kind=kind)
    checks.whole(steps=steps)
    checks.positive(beta=beta)
    i, j = world.pairs
    won, lost = torch.cat([i, j]), torch.cat([j, i])
    share = torch.cat([labels, 1 - labels], -1)
    takes = inspect.signature(LOSSES[kind]).parameters
    if "beta" in takes and kind not in OWN_BETA:
        options = {"beta": beta, **options}
    n = world.length.expand(*labels.shape[:-1], -1)
    fixed = {"n_chosen": n[..., won].flatten(), "n_rejected": n[..., lost].flatten()}
    tilt = torch.zeros_like(n, requires_grad=True)  # r of pi ~ pi_ref exp(r / beta)
    adam = torch.optim.Adam([tilt], lr=0.1)
    for step in range(steps):
        adam.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
        logp = (world.reference + tilt / beta).log_softmax(-1)
        s = logp if kind in REFERENCE_FREE else logp - world.reference
        given = fixed | {"logp_chosen": logp[..., won].flatten()}
        given = {k: v for k, v in given.items() if k in takes} | options
        each = preference_loss(
            kind, s[..., won].flatten(), s[..., lost].flatten(), reduction="none", **given
        )
        (tilt.grad,) = torch.autograd.grad((each * share.flatten()).sum(), tilt)
        adam.step()
    return (world.reference + tilt.detach() / beta).log_softmax(-1)


def at_best_beta(
    world: Choices, logp: Float[Tensor, "*C S K"], beta: float, scales: Float[Tensor, " M"]
) -> tuple[Float[Tensor, "*C S"], Float[Tensor, "*C"]]:
    """Regret at ``beta`` of a loss whose own beta' = scale * beta is tuned, and the best scale.

    A loss of beta' s_w and beta' s_l alone reaches the same rewards beta' s at every beta', so one
    fit gives all: log pi' = log pi_ref + (log pi - log pi_ref) / scale, up to a constant.

    logp: a fit at ``beta`` with a loss of the margin (`MARGIN`). scales: candidates, above 0. The
    chosen scale has the lowest mean regret over the S problems: an oracle, since regret needs r*.
    """
    s = logp - world.reference
    regret = torch.stack(
        [world.regret((world.reference + s / c).log_softmax(-1), beta) for c in scales.tolist()]
    )
    best = regret.mean(-1).argmin(0)
    return regret.take_along_dim(best[None, ..., None], 0)[0], scales[best]


def settle(kind: str, right: Float[Tensor, " N"], **options) -> Float[Tensor, " N"]:
    """beta Delta that minimises the expected loss when a share ``right`` of labels is right, at beta .1.

    Both responses move by equal amounts, s_w = -s_l. Bisection of the slope within [-12, 12]; a
    result at an end means that there is no minimum inside. kind: a loss of s_w and s_l alone.
    """
    low, high = torch.full_like(right, -12.0), torch.full_like(right, 12.0)
    for _ in range(50):
        u = ((low + high) / 2).requires_grad_()
        won = preference_loss(kind, 5 * u, -5 * u, reduction="none", beta=0.1, **options)
        lost = preference_loss(kind, -5 * u, 5 * u, reduction="none", beta=0.1, **options)
        (slope,) = torch.autograd.grad((right * won + (1 - right) * lost).sum(), u)
        low = torch.where(slope < 0, u, low).detach()
        high = torch.where(slope < 0, high, u).detach()
    return (low + high) / 2
