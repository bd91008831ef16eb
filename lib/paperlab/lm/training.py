"""Train a causal language model on Lightning's trainer: the loop, and likelihood before preferences."""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .logprobs import token_logps
from .preferences import PairBatch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


class Tuning(L.LightningModule):
    """What supervised and preference tuning share: AdamW, a warm-up and a cosine to zero.

    lr > 0. warmup: share of all steps, in [0, 1); the paper takes 0.1.
    """

    def __init__(self, policy: nn.Module, lr: float, warmup: float):
        if not lr > 0 or not 0 <= warmup < 1:
            raise ValueError(f"lr must be above 0 and warmup in [0, 1), got {lr} and {warmup}")
        super().__init__()
        self.policy, self.lr, self.warmup = policy, lr, warmup

    def configure_optimizers(self):
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

    def report(self, loss: Float[Tensor, ""], seen: dict[str, Tensor]) -> dict:
        """What a training step returns: the loss to descend, and all metrics for `tune`'s history.

        They go to a logger where there is one. Lightning's bookkeeping of a dozen metrics takes as
        long as a step of a small model, so that it is not asked without need.
        """
        seen = {"loss": loss.detach(), **seen}
        if self.trainer.loggers:
            self.log_dict(seen)
        return {"loss": loss, "seen": seen}


class SupervisedTuning(Tuning):
    """Next-token likelihood on the chosen responses, or on both: what comes before preferences.

    Loss: mean negative log-likelihood of a completion token, in nats, over the batch's tokens.
    """

    def __init__(
        self, policy: nn.Module, *, both: bool = False, lr: float = 1e-3, warmup: float = 0.1
    ):
        super().__init__(policy, lr, warmup)
        self.both = both

    def training_step(self, batch: PairBatch, batch_idx: int) -> dict:
        rows = slice(None) if self.both else slice(len(batch.ids) // 2)
        ids, attention, mask = batch.ids[rows], batch.attention[rows], batch.mask[rows]
        logits = self.policy(ids, padding(attention)).logits
        nll = -token_logps(logits, ids, mask).sum() / mask[:, 1:].sum()
        return self.report(nll, {})


@dataclass
class Tuned:
    """history: the metrics of each step. valid: those of the last pass over validation pairs.

    tokens_per_second: tokens trained on, padding left out.
    """

    history: list[dict[str, float]]
    valid: dict[str, float]
    seconds: float
    tokens_per_second: float


def tune(
    module: Tuning,
    loader: DataLoader,
    *,
    epochs: int = 1,
    clip: float = 1.0,
    precision: str = "32-true",
    accelerator: str = "auto",
    valid: DataLoader | None = None,
    **trainer,
) -> Tuned:
    """Train on a loader's batches; the module's policy holds the last weights afterwards.

    clip: largest gradient norm (the authors run 20 at beta 0.01). trainer: anything else that
    ``lightning.Trainer`` takes; a logger gets the metrics, too. The module stays on the device that
    trained it. Raises FloatingPointError when the loss is not finite.
    """
    watch = _Watch()
    with warnings.catch_warnings():
        # A frozen reference is in eval mode on purpose, and validation is the caller's choice.
        warnings.filterwarnings("ignore", ".*num_workers.*|.*GPU available.*|.*LeafSpec.*")
        warnings.filterwarnings("ignore", ".*in eval mode.*|.*no `val_dataloader`.*")
        runner = L.Trainer(
            max_epochs=epochs,
            gradient_clip_val=clip,
            precision=precision,
            accelerator=accelerator,
            callbacks=[watch],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **{"devices": 1, "logger": False, **trainer},
        )
        runner.fit(module, loader, valid)
    module.to(runner.strategy.root_device)  # Lightning moves it to the CPU
    history = [{k: v.item() for k, v in row.items()} for row in watch.history]
    seen = {k: v.item() for k, v in runner.callback_metrics.items()}
    return Tuned(history, seen, watch.seconds, watch.tokens / max(watch.seconds, 1e-9))


class _Watch(Callback):
    """Keeps each step's metrics, counts tokens, and stops at a loss that is not finite."""

    def __init__(self):
        self.history: list[dict[str, Tensor]] = []
        self.seconds, self.tokens = 0.0, 0

    def on_train_start(self, trainer, module):
        self._began = time.perf_counter()

    def on_before_backward(self, trainer, module, loss):
        if not loss.isfinite():
            raise FloatingPointError(f"loss is {loss.item()} at step {trainer.global_step}")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.history.append(outputs["seen"])
        self.tokens += int(getattr(batch, "pairs", batch).attention.sum())
        self.seconds = time.perf_counter() - self._began


def padding(attention: Bool[Tensor, "N T"]) -> Tensor | None:
    """The attention mask where it is needed: a causal model never sees padding on the right."""
    return None if attention[:, 0].all() else attention
