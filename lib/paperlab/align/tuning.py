"""Tune a causal language model on preference pairs, with any weighting of tokens and any loss.

The policy is a `TinyLM`, or a checkpoint through `paperlab.lm.hub`: whatever maps (ids, attention)
to ``logits`` and last ``hidden`` states. One step is

    logps = token_logps(policy(ids).logits, ids, mask)
    w = 1, or uniform, SamPO's, LD-DPO's, OTPO's weights        (constants to the gradient)
    s = sum_t w_t (logps_t - reference_logps_t)
    loss = mean over pairs of preference_loss(kind, s_chosen, s_rejected)

The reference is the policy as it is when the module is made: a frozen copy, or the same model with
its LoRA adapter off, or, cheapest, log-probabilities computed once (`PreferenceTuning.refer`).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..lm.logprobs import token_logps
from ..lm.preferences import PairBatch, Preferences
from ..lm.training import Tuning, padding
from . import losses, otpo

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

WEIGHTINGS = ("dpo", "uniform", "sampo", "ld", "otpo")


class Referred(NamedTuple):
    """A batch with what the reference says of it: log-probs, and weights where it gives them."""

    pairs: PairBatch
    logps: Float[Tensor, "2B T-1"]
    weights: Float[Tensor, "2B T-1"] | None


class Sums(NamedTuple):
    """Sums over the responses of a batch, chosen first: of weighted log-ratios (or of log pi, where
    there is no reference), of plain ones, of log pi, of tokens; the logits; what there is to log."""

    own: Float[Tensor, " 2B"]
    plain: Float[Tensor, " 2B"]
    logp: Float[Tensor, " 2B"]
    n: Float[Tensor, " 2B"]
    logits: Float[Tensor, "2B T V"]
    seen: dict[str, Tensor]


class PreferenceTuning(Tuning):
    """Preference tuning of a causal language model; the policy as given becomes the reference.

    weighting: ``dpo`` (1), ``uniform`` (equal budgets), ``sampo``, ``ld`` or ``otpo``.
    kind: of `losses.LOSSES`; ``simpo`` has no reference. beta and ``options`` (epsilon, gamma, lam,
        ...) go to it. ``kto`` needs mismatched pairs and is not offered; nor is WPO, a weight of the
        pair rather than of tokens (`losses.wpo_weight`).
    ld_alpha: LD-DPO's weight in [0, 1] beyond the shorter length.
    reg, reg_m, cost_norm, budget, representation: OTPO's, see `paperlab.align.otpo`; budget is the
        uniform weighting's, too. weights_from: ``policy`` (the paper: weights move with it), or
        ``reference``, where they stay as they are.
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
    ):
        if weighting not in WEIGHTINGS:
            raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}, not {weighting!r}")
        if kind not in losses.LOSSES or kind == "kto":
            known = ", ".join(k for k in losses.LOSSES if k != "kto")
            raise ValueError(f"kind must be one of {known}, not {kind!r}")
        if weights_from not in ("policy", "reference"):
            raise ValueError(f"weights_from must be policy or reference, not {weights_from!r}")
        if weights_from == "reference" and kind == "simpo":
            raise ValueError("weights_from must be policy for simpo, which has no reference")
        super().__init__(policy, lr, warmup)
        self.weighting, self.kind, self.beta = weighting, kind, beta
        self.options, self.ld_alpha, self.budget = options or {}, ld_alpha, budget
        self.transport = dict(reg=reg, reg_m=reg_m, cost_norm=cost_norm, budget=budget)
        self.representation, self.weights_from = representation, weights_from
        self.adapted = hasattr(policy, "disable_adapter")  # peft: the reference is inside
        self.reference, self.tokens_seen = None, 0
        if not self.adapted and kind != "simpo":
            self.reference = copy.deepcopy(policy).requires_grad_(False).eval()

    # one step ------------------------------------------------------------------------------------

    def compare(
        self, batch: PairBatch | Referred, tokens: bool = False
    ) -> tuple[Float[Tensor, " B"], dict[str, Tensor]]:
        """Each pair's loss, and metrics of the batch.

        Metrics carry TRL's names and are of the weighted sums, as in the authors' code; those under
        ``unweighted/`` are of the plain sums, and comparable between weightings; SimPO's reward is
        beta times the mean log pi. ``scaled_coeff`` is the plan's mass over min(m, n).
        tokens: with those of `losses.token_metrics`, which cost one more softmax of all logits.
        """
        own, plain, total, n, logits, seen = self.sums(batch)
        if tokens:
            pairs = getattr(batch, "pairs", batch)
            seen |= losses.token_metrics(logits, pairs.ids, pairs.mask)
        extra = {"n_chosen": n.chunk(2)[0], "n_rejected": n.chunk(2)[1]}
        extra["logp_chosen"] = total.chunk(2)[0]
        takes = inspect.signature(losses.LOSSES[self.kind]).parameters
        extra = {k: v for k, v in extra.items() if k in takes} | self.options
        pair = losses.preference_loss(
            self.kind, *own.chunk(2), beta=self.beta, reduction="none", **extra
        )
        score = own / n if self.kind == "simpo" else own
        seen |= losses.preference_metrics(*score.chunk(2), self.beta, total)
        unweighted = losses.preference_metrics(*plain.chunk(2), self.beta)
        return pair, seen | {f"unweighted/{k}": v for k, v in unweighted.items()}

    def sums(self, batch: PairBatch | Referred, expected: bool = False) -> Sums:
        """One forward pass: what the loss compares, and what it would be without weights.

        expected: SamPO's sums in the mean over its draws, which is the uniform budget's.
        """
        referred = batch if isinstance(batch, Referred) else self._refer(batch)
        ids, attention, mask, _ = referred.pairs
        out = self.policy(ids, padding(attention))
        logps, mask = token_logps(out.logits, ids, mask), mask[:, 1:]
        weights, seen = referred.weights, {}
        if weights is None:
            weights, seen = self.weigh(out.hidden, mask)
        if expected and self.weighting == "sampo":
            weights = torch.cat(otpo.uniform_weights(*mask.chunk(2)))
        reference = None if self.kind == "simpo" else referred.logps
        own = losses.sequence_logratio(logps, reference, mask, weights)
        plain = losses.sequence_logratio(logps.detach(), reference, mask)
        total = losses.sequence_logratio(logps, None, mask)
        return Sums(own, plain, total, mask.sum(1).to(own.dtype), out.logits, seen)

    @torch.no_grad()
    def weigh(
        self, hidden: Float[Tensor, "2B T D"], mask: Bool[Tensor, "2B T-1"]
    ) -> tuple[Float[Tensor, "2B T-1"] | None, dict[str, Tensor]]:
        """The weights of a batch's target tokens (None: all 1), and what there is to log of them."""
        sides = mask.chunk(2)
        if self.weighting == "uniform":
            return torch.cat(otpo.uniform_weights(*sides, self.budget)), {}
        if self.weighting == "sampo":
            return losses.sampo_weights(mask), {}
        if self.weighting == "ld":
            return losses.ld_weights(mask, self.ld_alpha), {}
        if self.weighting == "otpo":
            states = otpo.token_states(hidden, self.representation).chunk(2)
            found = otpo.token_weights(*states, *sides, **self.transport)
            shorter = torch.minimum(*(m.sum(1) for m in sides))
            seen = {"scaled_coeff": (found.mass / shorter).mean()}
            return torch.cat([found.chosen, found.rejected]), seen
        return None, {}

    def training_step(self, batch: PairBatch | Referred, batch_idx: int) -> dict:
        """Its metrics add ``num_tokens``: real tokens trained on so far, as TRL counts them.

        Metrics of tokens are taken where there is a logger, as in validation.
        """
        loss, seen = self.compare(batch, tokens=bool(self.trainer.loggers))
        self.tokens_seen = self.tokens_seen + getattr(batch, "pairs", batch).attention.sum()
        return self.report(loss.mean(), seen | {"num_tokens": self.tokens_seen.float()})

    def validation_step(self, batch: PairBatch | Referred, batch_idx: int) -> None:
        loss, seen = self.compare(batch, tokens=bool(self.trainer.loggers))
        seen = {f"eval_{k}": v for k, v in {"loss": loss.mean(), **seen}.items()}
        self.log_dict(seen, batch_size=len(loss))

    # the reference -------------------------------------------------------------------------------

    @torch.no_grad()
    def _refer(self, pairs: PairBatch) -> Referred:
        """What the reference says of a batch."""
        if self.kind == "simpo":
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
        self,
        pairs: Preferences,
        batch_size: int,
        seed: int | None = None,
        precision: str = "32-true",
    ) -> DataLoader[Referred]:
        """A loader of batches that carry the reference's log-probs, computed here once a pair.

        A batch then costs one forward pass instead of two. seed: shuffles; None keeps the order.
        precision: compute in the one that training will use, so that both start equal.
        """
        n, logps, weights = len(pairs), [None] * 2 * len(pairs), [None] * 2 * len(pairs)
        device = next(self.policy.parameters()).device
        half = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
        for batch in pairs.loader(batch_size):
            batch = PairBatch(*(t.to(device) for t in batch))
            with half:
                referred = self._refer(batch)
            rows = [*batch.index.tolist(), *(batch.index + n).tolist()]
            for k, (row, mask) in enumerate(zip(rows, batch.mask[:, 1:], strict=True)):
                if self.kind != "simpo":
                    logps[row] = referred.logps[k][mask].cpu()
                if referred.weights is not None:
                    weights[row] = referred.weights[k][mask].cpu()

        def gather(store: list, rows: Sequence[int], mask: Tensor) -> Tensor:
            whole = torch.zeros(mask.shape)
            whole[mask] = torch.cat([store[r] for r in rows]).float()
            return whole

        def take(index: Sequence[int]) -> Referred:
            batch = pairs.take(index)
            rows, mask = [*index, *(i + n for i in index)], batch.mask[:, 1:]
            found = torch.zeros(()) if logps[0] is None else gather(logps, rows, mask)
            return Referred(
                batch, found, None if weights[0] is None else gather(weights, rows, mask)
            )

        draw = None if seed is None else torch.Generator().manual_seed(seed)
        return DataLoader(
            range(n), batch_size, shuffle=seed is not None, generator=draw, collate_fn=take
        )

    @torch.no_grad()
    def rewards(self, loader: DataLoader) -> dict[str, Float[Tensor, " N"]]:
        """Sums of plain log-ratios s (of log pi for SimPO) by pair, in the loader's order, on the CPU.

        Keys ``chosen`` and ``rejected``; ``own_chosen``, ``own_rejected``: with the method's weights
        (SimPO: the mean; SamPO: the mean over draws), what it was trained on; ``logp_chosen``,
        ``logp_rejected``: sums of log pi.
        The implicit reward is beta s; s itself compares models tuned with different betas.
        """
        found, training = [], self.policy.training
        self.policy.eval()
        device = next(self.policy.parameters()).device
        for batch in loader:
            own, plain, total, n, *_ = self.sums(_to(batch, device), expected=True)
            own = own / n if self.kind == "simpo" else own
            found.append(torch.stack([x for t in (plain, own, total) for x in t.chunk(2)]).cpu())
        self.policy.train(training)
        names = [f"{what}{side}" for what in ("", "own_", "logp_") for side in losses.SIDES]
        return dict(zip(names, torch.cat(found, 1), strict=True))


def _to(batch, device):
    if isinstance(batch, Tensor):
        return batch.to(device)
    return None if batch is None else type(batch)(*(_to(t, device) for t in batch))
