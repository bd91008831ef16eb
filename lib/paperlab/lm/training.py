"""Tuning of causal language models, as `paperlab.loop.fit` trains it; likelihood before preferences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning as L
import torch
from torch import Tensor, nn

from .. import checks
from ..data.batches import Batches
from .logprobs import token_logps
from .preferences import PairBatch, Preferences

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

EVALUATED = 32  # pairs of a batch that is only scored


class Tuning(L.LightningModule):
    """What supervised and preference tuning share: AdamW, a warm-up and a cosine to zero.

    A subclass defines ``measure``: the mean loss of a batch, and its metrics.

    lr > 0. warmup: share of all steps, in [0, 1); the paper takes 0.1. clip: largest norm of the
    gradient, above 0, unless the trainer is given another (the authors run 20 at beta 0.01).
    Raises ValueError for values out of range.
    """

    select = ("loss", "lower")

    def __init__(self, policy: nn.Module, lr: float, warmup: float, clip: float = 1.0):
        checks.positive(lr=lr, clip=clip)
        checks.inside("[0, 1)", warmup=warmup)
        super().__init__()
        self.policy, self.lr, self.warmup, self.clip = policy, lr, warmup, clip

    def measure(
        self, batch: PairBatch, tokens: bool = True
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss to descend, and metrics; with ``tokens`` also those that cost a softmax more."""
        raise NotImplementedError

    def training_step(self, batch: PairBatch, batch_idx: int) -> dict:
        """Metrics of tokens are taken where there is a logger, as in evaluation."""
        loss, metrics = self.measure(batch, tokens=bool(self.trainer.loggers))
        if self.trainer.loggers:
            self.log_dict({"loss": loss.detach(), **metrics})
        return {"loss": loss, "metrics": metrics}

    def configure_optimizers(self) -> dict:
        trainable = [p for p in self.policy.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, self.lr, weight_decay=0.0)
        total = self.trainer.estimated_stepping_batches
        rise = max(1, round(self.warmup * total))
        schedule = torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (rise + 1), 1.0, rise),
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, total - rise)),
            ],
            [rise],
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None
    ) -> None:
        limit = self.clip if gradient_clip_val is None else gradient_clip_val
        self.clip_gradients(optimizer, limit, gradient_clip_algorithm or "norm")

    # see `paperlab.loop.Trainable` ----------------------------------------------------------------

    def check(self, data: Preferences) -> None:
        """Refuse parts without a pair, and pairs with an empty response.

        data: `Preferences`, or `paperlab.loop.Parts` of them.
        """
        for part in ("train", "valid", "test"):
            pairs = getattr(data, part, data if part == "train" else None)
            if pairs is None:
                continue
            if not len(pairs):
                raise ValueError(f"{part} must hold at least one pair")
            rows = getattr(pairs, "pairs", ())
            rows = getattr(rows, "pairs", rows)  # the pairs behind log-probs of a reference
            empty = [k for k, pair in enumerate(rows) if not (pair.chosen and pair.rejected)]
            if empty:
                raise ValueError(
                    f"{part}: pair {empty[0]} has an empty response: no token to score"
                )

    def batches(self, pairs: Preferences, batch_size: int, seed: int) -> Batches:
        return Batches(pairs, batch_size, seed)

    def count(self, batch: PairBatch) -> int:
        return len(batch.index)

    def evaluate(self, data: Preferences, part: str) -> dict[str, float]:
        """Means over a part of the loss and of all metrics."""
        pairs, device = getattr(data, part), next(self.parameters()).device
        sums, items = {}, 0
        for index in torch.arange(len(pairs)).split(EVALUATED):
            batch = moved(pairs.take(index), device)
            loss, metrics = self.measure(batch)
            n = self.count(batch)
            items += n
            for name, value in {"loss": loss, **metrics}.items():
                sums[name] = sums.get(name, 0) + n * value.item()
        return {name: total / items for name, total in sums.items()}

    def count_parameters(self) -> dict[str, int]:
        """Weights that training moves."""
        return {"dense": sum(p.numel() for p in self.policy.parameters() if p.requires_grad)}


class SupervisedTuning(Tuning):
    """Next-token likelihood on the chosen responses, or on both: what comes before preferences.

    Loss: mean negative log-likelihood of a completion token, in nats, over the batch's tokens.
    """

    def __init__(
        self,
        policy: nn.Module,
        *,
        both: bool = False,
        lr: float = 1e-3,
        warmup: float = 0.1,
        clip: float = 1.0,
    ):
        super().__init__(policy, lr, warmup, clip)
        self.both = both

    def measure(
        self, batch: PairBatch, tokens: bool = True
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        rows = self._rows(batch)
        ids, attention, mask = batch.ids[rows], batch.attention[rows], batch.mask[rows]
        logits = self.policy(ids, padding(attention)).logits
        return -token_logps(logits, ids, mask).sum() / mask[:, 1:].sum().clamp(min=1), {}

    def count(self, batch: PairBatch) -> int:
        """Scored tokens."""
        return int(batch.mask[self._rows(batch), 1:].sum())

    def _rows(self, batch: PairBatch) -> slice:
        return slice(None) if self.both else slice(len(batch.ids) // 2)


def padding(attention: Bool[Tensor, "N T"]) -> Tensor | None:
    """The attention mask where it is needed: a causal model never sees padding on the right."""
    return None if attention[:, 0].all() else attention


def moved(batch: tuple, device: torch.device) -> tuple:
    """A named tuple of tensors, None and such tuples on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    return None if batch is None else type(batch)(*(moved(part, device) for part in batch))
