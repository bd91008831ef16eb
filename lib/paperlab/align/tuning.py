"""Tune a causal language model on preference pairs, with any weighting of tokens and any loss.

The policy is a `TinyLM` or a checkpoint from `paperlab.lm.hub`: a module that maps (ids, attention)
to ``logits`` and last ``hidden`` states. One step is

    logps = token_logps(policy(ids).logits, ids, mask)
    w = 1, or uniform, SamPO's, LD-DPO's, OTPO's weights        (no gradient)
    s = sum_t w_t (logps_t - reference_logps_t)
    loss = mean over pairs of preference_loss(kind, s_chosen, s_rejected)

The reference is the policy at construction: a frozen copy, the same model with its LoRA adapter
disabled, or, cheapest, log-probabilities computed once (`PreferenceTuning.refer`).
`paperlab.loop.fit` trains the module on `Preferences`, or on the output of ``refer``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from .. import checks
from ..lm.logprobs import token_logps
from ..lm.preferences import PairBatch, Preferences
from ..lm.training import EVALUATED, Tuning, moved, padding
from . import losses, otpo
from .formulas import GOLD, LOSSES, REFERENCE_FREE

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

WEIGHTINGS = ("dpo", "uniform", "sampo", "ld", "otpo")


class Referred(NamedTuple):
    """A batch, the reference's log-probs, and token weights if the reference sets them."""

    pairs: PairBatch
    logps: Float[Tensor, "2B T-1"]
    weights: Float[Tensor, "2B T-1"] | None

    @property
    def index(self) -> Int[Tensor, " B"]:
        return self.pairs.index


@dataclass(frozen=True)
class ReferredPairs:
    """Pairs with log-probs of the reference, computed once; a training set like `Preferences`.

    logps, weights: one vector per response over its completion tokens, chosen responses first.
    """

    pairs: Preferences
    logps: list[Tensor] | None
    weights: list[Tensor] | None

    def __len__(self) -> int:
        return len(self.pairs)

    def take(self, index: Iterable[int]) -> Referred:
        batch = self.pairs.take(index)
        rows = [*batch.index.tolist(), *(batch.index + len(self)).tolist()]

        def gather(store: list[Tensor] | None) -> Tensor | None:
            if store is None:
                return None
            whole = torch.zeros(batch.mask[:, 1:].shape)
            whole[batch.mask[:, 1:]] = torch.cat([store[row] for row in rows]).float()
            return whole

        logps = torch.zeros(()) if self.logps is None else gather(self.logps)
        return Referred(batch, logps, gather(self.weights))


class Sums(NamedTuple):
    """Sums over each response's tokens, chosen first.

    own: of weighted log-ratios (of log pi without a reference). plain: the same without weights.
    logp: of log pi. n: of 1, or of the weights where the loss divides ``own`` by it.
    seen: metrics of the weights.
    """

    own: Float[Tensor, " 2B"]
    plain: Float[Tensor, " 2B"]
    logp: Float[Tensor, " 2B"]
    n: Float[Tensor, " 2B"]
    logits: Float[Tensor, "2B T V"]
    seen: dict[str, Tensor]


class PreferenceTuning(Tuning):
    """Preference tuning of a causal language model; the given policy, copied, is the reference.

    weighting: ``dpo`` (1), ``uniform`` (equal budgets), ``sampo``, ``ld`` or ``otpo``.
    kind: one of `formulas.LOSSES`; those in `formulas.REFERENCE_FREE` have no reference. Not ``kto``
        (needs mismatched pairs) nor those in `formulas.GOLD` (need a third response). A kind that
        averages over tokens divides by the sum of their weights; the likelihood term of ``rpo`` and
        ``sft`` has no weights.
    beta, options: settings of the kind; options are all but beta (epsilon, gamma, lam, ...).
    ld_alpha: LD-DPO's weight in [0, 1] beyond the shorter length.
    reg, reg_m, cost_norm, representation: OTPO's, see `paperlab.align.otpo`.
    budget: total weight of a response for ``uniform`` and ``otpo``, see `otpo.rescale`.
    weights_from: ``policy`` (the paper: weights follow the training) or ``reference`` (fixed).
    lr, warmup, clip: see `Tuning`.
    Raises ValueError for unknown names and numbers out of range.
    """

    def __init__(
        self,
        policy: nn.Module,
        weighting: str = "dpo",
        kind: str = "sigmoid",
        *,
        beta: float = 0.1,
        options: dict | None = None,
        ld_alpha: float = 0.5,
        reg: float = 0.1,
        reg_m: float = 0.2,
        cost_norm: str = "valid_max",
        budget: str = "min",
        representation: str = "predictor",
        weights_from: str = "policy",
        lr: float = 1e-4,
        warmup: float = 0.1,
        clip: float = 1.0,
    ):
        checks.one_of(WEIGHTINGS, weighting=weighting)
        checks.one_of((k for k in LOSSES if k not in ("kto", *GOLD)), kind=kind)
        checks.one_of(("policy", "reference"), weights_from=weights_from)
        checks.one_of(("predictor", "token"), representation=representation)
        checks.one_of(otpo.COST_NORMS, cost_norm=cost_norm)
        checks.one_of(otpo.BUDGETS, budget=budget)
        checks.positive(beta=beta, reg=reg, reg_m=reg_m)
        checks.inside("[0, 1]", ld_alpha=ld_alpha)
        self.referenced = kind not in REFERENCE_FREE
        if weights_from == "reference" and not self.referenced:
            raise ValueError(f"weights_from must be policy for {kind}, which has no reference")
        options = dict(options or {})
        takes = losses.check_options(kind, **options)
        own = [k for k, p in takes.items() if p.default is not p.empty and k != "beta"]
        if unknown := [k for k in options if k not in own]:
            names = ", ".join(own) or "none"
            raise ValueError(f"options of {kind} are {names}, not {', '.join(unknown)}")
        super().__init__(policy, lr, warmup, clip)
        self.weighting, self.kind, self.beta = weighting, kind, beta
        self.options = options | ({"beta": beta} if "beta" in takes else {})
        self.takes, self.ld_alpha, self.budget = tuple(takes), ld_alpha, budget
        self.transport = dict(reg=reg, reg_m=reg_m, cost_norm=cost_norm, budget=budget)
        self.representation, self.weights_from = representation, weights_from
        self.adapted = hasattr(policy, "disable_adapter")  # peft: the reference is inside
        self.reference, self._tokens_seen = None, 0
        if not self.adapted and self.referenced:
            self.reference = copy.deepcopy(policy).requires_grad_(False).eval()

    # one step ------------------------------------------------------------------------------------

    def compare(
        self, batch: PairBatch | Referred, tokens: bool = False
    ) -> tuple[Float[Tensor, " B"], dict[str, Tensor]]:
        """Each pair's loss, and metrics of the batch.

        Metrics have TRL's names and use the weighted sums, as in the authors' code. Those under
        ``unweighted/`` use the plain sums, so that weightings can be compared. The reward of SimPO,
        AlphaPO and ORPO is beta times the mean log pi. ``scaled_coeff``: the plan's mass / min(m, n).
        tokens: add `losses.token_metrics`, at the cost of one more softmax over all logits.
        """
        own, plain, total, n, logits, seen = self.sums(batch)
        if tokens:
            pairs = getattr(batch, "pairs", batch)
            seen |= losses.token_metrics(logits, pairs.ids, pairs.mask)
        extra = {"n_chosen": n.chunk(2)[0], "n_rejected": n.chunk(2)[1]}
        extra |= {"logp_chosen": total.chunk(2)[0], "logp_rejected": total.chunk(2)[1]}
        extra = {k: v for k, v in extra.items() if k in self.takes} | self.options
        pair = losses.preference_loss(self.kind, *own.chunk(2), reduction="none", **extra)
        score = self._score(own, n)
        seen |= losses.preference_metrics(*score.chunk(2), self.beta, total)
        unweighted = losses.preference_metrics(*plain.chunk(2), self.beta)
        return pair, seen | {f"unweighted/{k}": v for k, v in unweighted.items()}

    def sums(self, batch: PairBatch | Referred, expected: bool = False) -> Sums:
        """One forward pass: the sums of each response, with and without weights.

        expected: for SamPO, the expectation over its draws, which is that of the uniform budget.
        """
        referred = batch if isinstance(batch, Referred) else self._refer(batch)
        ids, attention, mask, _ = referred.pairs
        out = self.policy(ids, padding(attention))
        logps, mask = token_logps(out.logits, ids, mask), mask[:, 1:]
        if not mask.any(1).all():
            raise ValueError("every response must have a token to score, after another token")
        weights, seen = referred.weights, {}
        if weights is None:
            weights, seen = self.weigh(out.hidden, mask)
        if expected and self.weighting == "sampo":
            weights = torch.cat(otpo.uniform_weights(*mask.chunk(2)))
        reference = referred.logps if self.referenced else None
        own = losses.sequence_logratio(logps, reference, mask, weights)
        plain = losses.sequence_logratio(logps.detach(), reference, mask)
        total = losses.sequence_logratio(logps, None, mask)
        averages = "n_chosen" in self.takes and "logp_chosen" not in self.takes  # over ``own``
        counted = weights * mask if averages and weights is not None else mask
        return Sums(own, plain, total, counted.sum(1).to(own.dtype), out.logits, seen)

    def _score(self, own: Float[Tensor, " 2B"], n: Float[Tensor, " 2B"]) -> Float[Tensor, " 2B"]:
        """The score whose beta multiple is the reward: a mean for SimPO, AlphaPO and ORPO."""
        return own if self.referenced or "n_rejected" not in self.takes else own / n

    @torch.no_grad()
    def weigh(
        self, hidden: Float[Tensor, "2B T D"], mask: Bool[Tensor, "2B T-1"]
    ) -> tuple[Float[Tensor, "2B T-1"] | None, dict[str, Tensor]]:
        """The weights of a batch's target tokens (None: all 1), and metrics of them."""
        sides = mask.chunk(2)
        if self.weighting == "uniform":
            return torch.cat(otpo.uniform_weights(*sides, self.budget)), {}
        if self.weighting == "sampo":
            return losses.sampo_weights(mask), {}
        if self.weighting == "ld":
            return losses.ld_weights(mask, self.ld_alpha), {}
        if self.weighting == "otpo":
            states = otpo.token_states(hidden, self.representation).chunk(2)
            plan = otpo.token_weights(*states, *sides, **self.transport)
            shorter = torch.minimum(*(m.sum(1) for m in sides))
            seen = {"scaled_coeff": (plan.mass / shorter).mean()}
            return torch.cat([plan.chosen, plan.rejected]), seen
        return None, {}

    def measure(
        self, batch: PairBatch | Referred, tokens: bool = True
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        loss, seen = self.compare(batch, tokens)
        return loss.mean(), seen

    def training_step(self, batch: PairBatch | Referred, batch_idx: int) -> dict:
        """Also log ``num_tokens``: tokens trained on so far without padding, as TRL counts them."""
        if self.trainer.loggers:
            self._tokens_seen += int(getattr(batch, "pairs", batch).attention.sum())
            self.log("num_tokens", float(self._tokens_seen))
        return super().training_step(batch, batch_idx)

    # the reference -------------------------------------------------------------------------------

    @torch.no_grad()
    def _refer(self, pairs: PairBatch) -> Referred:
        """The batch with the reference's log-probs, and its token weights if the reference sets them."""
        if not self.referenced:
            return Referred(pairs, torch.zeros(()), None)
        model = self.policy if self.adapted else self.reference
        training = model.training
        model.eval()
        with self.policy.disable_adapter() if self.adapted else nullcontext():
            out = model(pairs.ids, padding(pairs.attention))
        model.train(training)
        weights = None
        if self.weights_from == "reference":
            weights, _ = self.weigh(out.hidden, pairs.mask[:, 1:])
        return Referred(pairs, token_logps(out.logits, pairs.ids, pairs.mask), weights)

    def refer(
        self, pairs: Preferences, batch_size: int = EVALUATED, precision: str = "32-true"
    ) -> ReferredPairs:
        """The pairs with the reference's log-probs, computed once, so that a step needs one forward pass.

        batch_size: pairs per forward pass of the reference.
        precision: that of the training, so that policy and reference start equal.
        """
        n, logps, weights = len(pairs), [None] * 2 * len(pairs), [None] * 2 * len(pairs)
        device = next(self.policy.parameters()).device
        half = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
        for index in torch.arange(n).split(batch_size):
            batch = moved(pairs.take(index), device)
            with half:
                referred = self._refer(batch)
            rows = [*batch.index.tolist(), *(batch.index + n).tolist()]
            for k, (row, mask) in enumerate(zip(rows, batch.mask[:, 1:], strict=True)):
                if self.referenced:
                    logps[row] = referred.logps[k][mask].cpu()
                if referred.weights is not None:
                    weights[row] = referred.weights[k][mask].cpu()
        given = self.weights_from == "reference"
        return ReferredPairs(pairs, logps if self.referenced else None, weights if given else None)

    @torch.no_grad()
    def rewards(
        self, pairs: Preferences | ReferredPairs, batch_size: int = EVALUATED
    ) -> dict[str, Float[Tensor, " N"]]:
        """Scores of every pair, in the pairs' order, on the CPU.

        ``chosen``, ``rejected``: sums s of plain log-ratios (of log pi without a reference). The
        implicit reward is beta s; s itself is comparable between betas.
        ``own_chosen``, ``own_rejected``: the score that the method trains, with its weights (SimPO,
        AlphaPO, ORPO: the mean; SamPO: the expectation over its draws).
        ``logp_chosen``, ``logp_rejected``: sums of log pi.
        """
        parts, training = [], self.policy.training
        self.policy.eval()
        device = next(self.policy.parameters()).device
        for index in torch.arange(len(pairs)).split(batch_size):
            batch = moved(pairs.take(index), device)
            own, plain, total, n, *_ = self.sums(batch, expected=True)
            own = self._score(own, n)
            parts.append(torch.stack([x for t in (plain, own, total) for x in t.chunk(2)]).cpu())
        self.policy.train(training)
        names = [f"{what}{side}" for what in ("", "own_", "logp_") for side in losses.SIDES]
        return dict(zip(names, torch.cat(parts, 1), strict=True))
