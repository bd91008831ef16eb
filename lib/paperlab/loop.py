"""The training loop of all models, on Lightning's trainer; it is independent of the task."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from . import checks
from .checkpoints import data_hash, model_hash, resumable
from .feed import Feed
from .hardware import best_precision, keep_freed_memory, resident
from .nn.optim import RowAdam

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

# Options of Lightning's trainer that decide what `fit` decides.
OWN = ("max_epochs", "max_steps", "min_epochs", "min_steps", "overfit_batches", "fast_dev_run")


class Trainable(Protocol):
    """What `fit` needs of a LightningModule beside ``configure_optimizers`` and ``training_step``.

    The step returns the mean loss of a batch, or ``{"loss": ..., "metrics": {name: scalar}}``.

    lr: the learning rate that ``configure_optimizers`` reads.
    select: the metric of ``evaluate`` that chooses the weights, and which way is better:
        ``("auc", "higher")``. None keeps the last weights.
    """

    lr: float
    select: tuple[str, str] | None

    def check(self, data: object) -> None:
        """Raise ValueError, in one line, for data that cannot train or evaluate this model."""

    def batches(self, part: object, batch_size: int, seed: int | Sequence[int]) -> Iterable:
        """Batches of a part, drawn by the seed alone; `paperlab.data.Batches` is one such.

        ``len`` is a pass's number of batches; without one the batches have no end. After
        ``load_state_dict({"epoch": e, "start": s})`` the next iteration is pass e from batch s on.
        """

    def count(self, batch: object) -> int:
        """Items that a batch's mean loss is over: rows, pairs or tokens."""

    def evaluate(self, data: object, part: str) -> dict[str, float]:
        """Metrics of ``valid`` or ``test``; called in eval mode and without gradients."""

    def count_parameters(self) -> dict[str, int]:
        """Trainable weights by kind: ``dense``, ``embedding``."""


class Parts(NamedTuple):
    """Data in parts, for `fit`: any object with these attributes will do."""

    train: object
    valid: object = None
    test: object = None


@dataclass
class Fit:
    """The results of a training run.

    test, valid: `Trainable.evaluate` of the best weights; empty where there is no such part.
    history: one row a check: step, epoch, seconds, train_loss, lr (up to it), train_NAME (means of
        the step's metrics since the last check), validation metrics, and the values of ``watch``.
    seconds: training time, checks left out. samples_per_second: `Trainable.count` per such second.
    steps: optimiser steps. parameters: `Trainable.count_parameters`. interrupted: by Ctrl-C.
    """

    test: dict[str, float]
    valid: dict[str, float]
    history: list[dict]
    seconds: float
    samples_per_second: float
    steps: int
    parameters: dict[str, int]
    interrupted: bool


def fit(
    model: Trainable,
    data: object,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 1024,
    checks_per_epoch: int = 1,
    patience: int | None = None,
    decay: float = 1.0,
    seed: int | Sequence[int] = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    watch: Callable[[Trainable], dict] | None = None,
    precision: str | None = None,
    accelerator: str = "auto",
    **trainer,
) -> Fit:
    """Train on ``data.train``, keep the weights that are best on ``data.valid``, score ``data.test``.

    data: without an attribute ``train``, all of it is trained on, and the last weights are kept.
    epochs: passes over the training part; 1 without ``steps``.
    steps: optimiser steps, instead of epochs; all of them count as one epoch.
    batch_size: rows of a batch over all processes, >= 1. checks_per_epoch >= 1.
    patience: checks without a better validation metric (NaN does not count) before stopping.
    decay: in (0, 1], the learning rate's factor at each check that is not the best so far (BARS: 0.1
        with patience 2).
    seed: of the batches; a sequence goes to `Trainable.batches` as it is.
    checkpoint: a file, written every ``checkpoint_every`` steps and at every check. If it exists,
        training resumes from it; a finished run is not trained again.
    watch: model -> numbers for the row of each check; the model is in eval mode.
    precision: Lightning's; None takes bf16-mixed where the hardware multiplies faster in bf16.
    trainer: anything else that ``lightning.Trainer`` takes. ``accumulate_grad_batches`` weighs
        batches by `Trainable.count`, so that k small batches make the step of a large one.

    The test part is scored once, at the end. The model returns to its own device.
    Raises ValueError for values out of range, data that the model refuses, and a checkpoint that is
    broken, contains code or belongs to another run; FloatingPointError for a loss that is not finite.
    """
    if epochs is not None and steps is not None:
        raise ValueError("epochs or steps must be given, not both")
    epochs = 1 if epochs is None else epochs
    checks.whole(epochs=epochs, batch_size=batch_size, checks_per_epoch=checks_per_epoch)
    checks.whole(checkpoint_every=checkpoint_every)
    checks.whole(steps=1 if steps is None else steps, patience=1 if patience is None else patience)
    checks.inside("(0, 1]", decay=decay)
    for one in seed if isinstance(seed, Sequence) else (seed,):
        checks.whole(0, seed=one)
    if checkpoint is not None and (Path(checkpoint).suffix != ".ckpt" or Path(checkpoint).is_dir()):
        raise ValueError(f"checkpoint must be a file that ends in .ckpt, got {checkpoint}")
    if own := [name for name in OWN if name in trainer]:
        raise ValueError(f"{own[0]} must not be given: epochs, steps or patience decide the length")
    judged = getattr(data, "valid", None) is not None and model.select is not None
    if not judged and (patience is not None or decay < 1):
        raise ValueError("patience and decay need a validation part and a metric to select by")
    model.check(data)
    keep_freed_memory()
    torch.manual_seed(seed[0] if isinstance(seed, Sequence) else seed)
    limit = trainer.pop("limit_train_batches", None)
    accumulate = trainer.get("accumulate_grad_batches", 1)
    checks.whole(accumulate_grad_batches=accumulate)
    own = _Checks(model, data, judged, checks_per_epoch, patience, decay, accumulate, watch)
    callbacks = trainer.pop("callbacks", None) or []
    callbacks = [callbacks] if isinstance(callbacks, Callback) else callbacks
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    with warnings.catch_warnings():
        # Rows are gathered by index in this process: no worker could make that faster. A frozen
        # part is in eval mode on purpose, and validation is this loop's.
        warnings.filterwarnings("ignore", ".*num_workers.*|.*GPU available.*|.*LeafSpec.*")
        warnings.filterwarnings("ignore", ".*in eval mode.*|.*no `val_dataloader`.*")
        runner = L.Trainer(
            max_epochs=epochs,
            accelerator=accelerator,
            precision=precision or best_precision(accelerator),
            callbacks=[*callbacks, own],
            use_distributed_sampler=False,
            **{"devices": 1, "num_sanity_val_steps": 0, **quiet, **trainer},
        )
        train = resident(getattr(data, "train", data), runner)
        feed = Feed(model.batches(train, batch_size, seed), steps and steps * accumulate, limit)
        resume = None
        if checkpoint is not None:
            run = {"batch_size": batch_size, "seed": str(seed), "steps": steps}
            run |= {"accumulate_grad_batches": accumulate, "limit_train_batches": limit}
            run |= {"model": model_hash(model), "data": data_hash(data, feed.first())}
            own.saves(Path(checkpoint), checkpoint_every, feed, run)
            resume = resumable(Path(checkpoint), run, epochs)
        home = next(model.parameters()).device
        try:
            runner.fit(model, feed, ckpt_path=resume, weights_only=True)
        except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C into either
            own.interrupted = True
    own.restore_best(runner, model)
    model.to(runner.strategy.root_device)  # Lightning moved it to the CPU
    scores = {}
    with _evaluating(model):
        for part in ("valid", "test"):
            missing = getattr(data, part, None) is None
            scores[part] = {} if missing else model.evaluate(data, part)
    model.to(home)
    return Fit(
        **scores,
        history=own.history,
        seconds=own.seconds,
        samples_per_second=own.items / max(own.seconds, 1e-9),
        steps=own.step,
        parameters=model.count_parameters(),
        interrupted=own.interrupted,
    )


@contextmanager
def _evaluating(model: L.LightningModule) -> Iterator[None]:
    """Eval mode without gradients; restores modes and random numbers at the end."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng([]):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


class _Checks(Callback):
    """Validates, keeps the best weights, stops early, saves checkpoints, and times training."""

    KEPT = ("history", "best", "best_metric", "since", "seconds", "items", "step", "sums", "weight")

    def __init__(self, model, data, judged, per_epoch, patience, decay, accumulate, watch):
        self.data, self.judged, self.watch, self.accumulate = data, judged, watch, accumulate
        self.metric, self.higher = model.select or (None, "higher")
        self.per_epoch, self.patience, self.decay = per_epoch, patience, decay
        self.history: list[dict] = []
        self.best: dict[str, Tensor] | None = None
        self.best_metric, self.since = -math.inf, 0  # the metric with its sign: higher is better
        self.seconds, self.items, self.step, self.interrupted = 0.0, 0, 0, False
        self.sums: Tensor | None = None  # of the loss and metrics since the last check, times items
        self.weight = self._accumulated = 0
        self.path: Path | None = None
        self._clock = time.perf_counter()  # what fails before training starts has a time too

    def saves(self, path: Path, every: int, feed: Feed, run: dict) -> None:
        self.path, self.every, self.feed, self.run = path, every, feed, run

    def on_train_start(self, trainer, model):
        steps = math.ceil(trainer.num_training_batches / self.accumulate)
        self._at = {round(steps * (k + 1) / self.per_epoch) for k in range(self.per_epoch)}
        if self.patience is not None and self.since >= self.patience:
            trainer.should_stop = True  # the run that is resumed had stopped
        self._weighs = self.accumulate > 1 or trainer.world_size > 1
        self._clock = time.perf_counter()

    def on_train_batch_start(self, trainer, model, batch, batch_idx):
        self._count = int(model.count(batch))

    def on_before_backward(self, trainer, model, loss):
        if not loss.isfinite():  # before the step would spread it to every weight
            raise FloatingPointError(_not_finite(trainer, model, loss * self.accumulate))
        if self._weighs:  # gradients of sums: `on_before_optimizer_step` divides them by all items
            scale = self._count * self.accumulate  # Lightning divided the loss by the latter
            loss.register_hook(lambda gradient: gradient * scale)
            self._accumulated += self._count

    def on_before_optimizer_step(self, trainer, model, optimizer):
        if self._weighs:
            items = torch.tensor(float(self._accumulated), device=model.device)
            items = trainer.strategy.reduce(items, reduce_op="mean")
            for group in optimizer.param_groups:
                for weight in (w for w in group["params"] if w.grad is not None):
                    weight.grad.div_(max(items.item(), 1.0))  # 0 where nothing was scored
            self._accumulated = 0

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        seen = {"loss": outputs["loss"] * self.accumulate, **outputs.get("metrics", {})}
        sums = torch.stack([v.detach().float() for v in seen.values()]).cpu() * self._count
        self.sums, self._names = sums if self.sums is None else self.sums + sums, [*seen]
        self.weight += self._count
        self.items += self._count * trainer.world_size
        done = batch_idx + 1
        if done % self.accumulate and done < trainer.num_training_batches:
            return
        self.step += 1
        if checked := math.ceil(done / self.accumulate) in self._at:
            self._check(trainer, model)
        if self.path is not None and (checked or self.step % self.every == 0):
            trainer.save_checkpoint(self.path)

    def _check(self, trainer, model):
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, RowAdam):
                optimizer.settle()  # deferred work of the steps so far: it is part of their time
        self.seconds += time.perf_counter() - self._clock
        row = {"step": self.step, "epoch": trainer.current_epoch, "seconds": self.seconds}
        row |= {"lr": trainer.optimizers[0].param_groups[0]["lr"]}
        means = (self.sums / self.weight).tolist()
        row |= {f"train_{name}": m for name, m in zip(self._names, means, strict=True)}
        self.sums, self.weight = None, 0
        if self.judged or self.watch:
            with _evaluating(model):
                row |= model.evaluate(self.data, "valid") if self.judged else {}
                row |= self.watch(model) if self.watch else {}
        self.history.append(row)
        if self.judged:
            self._judge(trainer, model, row[self.metric] * (1 if self.higher == "higher" else -1))
        self._clock = time.perf_counter()

    def _judge(self, trainer, model, metric: float) -> None:
        if math.isnan(metric):
            return
        if metric > self.best_metric:
            self.best_metric, self.since = metric, 0
            frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
            now = {k: v for k, v in model.state_dict().items() if k not in frozen}
            self.best = {k: v.detach().cpu().clone() for k, v in now.items()}
            return
        self.since += 1
        for group in (g for optimizer in trainer.optimizers for g in optimizer.param_groups):
            group["lr"] *= self.decay
        if self.patience is not None and self.since >= self.patience:
            trainer.should_stop = True

    def on_train_end(self, trainer, model):
        if self.sums is not None:  # a callback or `max_time` ended the run between two checks
            self._check(trainer, model)

    def on_exception(self, trainer, model, exception):
        self.seconds += time.perf_counter() - self._clock

    def restore_best(self, trainer, model) -> None:
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, RowAdam):
                optimizer.settle()  # or what is deferred would move the best weights
        if self.best is not None:
            model.load_state_dict(self.best, strict=False)  # it lacks frozen weights alone

    def state_dict(self):
        """What a resumed run needs besides Lightning's own: also where the random numbers are."""
        state = {name: getattr(self, name) for name in self.KEPT}
        state["seconds"] += time.perf_counter() - self._clock
        epochs = self.feed.epoch + (self.feed.start > 0)
        return state | {"run": self.run, "epochs": epochs, "random": torch.get_rng_state()}

    def load_state_dict(self, state):
        for name in self.KEPT:
            setattr(self, name, state[name])
        torch.set_rng_state(state["random"].cpu())


def _not_finite(trainer, model: L.LightningModule, loss: Tensor) -> str:
    bad = [n for n, p in model.named_parameters() if not p.isfinite().all()]
    return (
        f"loss is {loss.item()} at step {trainer.global_step} (batch "
        f"{trainer.fit_loop.epoch_loop.batch_idx} of epoch {trainer.current_epoch}); first parameter "
        f"that is not finite: {bad[0] if bad else 'none, so look at the inputs of this batch'}"
    )
