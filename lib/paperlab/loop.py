"""From a model and a log to metrics in one call, on Lightning's trainer."""

from __future__ import annotations

import ctypes
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from torch import Tensor

from . import metrics
from .data.batches import Batches
from .data.schema import Schema
from .data.store import Log, Split
from .nn.budget import width_for
from .nn.click import ClickModel
from .nn.optim import RowAdam

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


@dataclass
class Fit:
    """What a training run gives.

    test, valid: metrics of the best weights (auc, logloss, and gauc where the log has users).
    history: one row a check: step, epoch, seconds, train_loss, lr (up to it), auc, logloss.
    seconds: training time, checks left out. samples_per_second: rows trained on per such second.
    parameters: dense and embedding weights. interrupted: Ctrl-C ended it early.
    """

    test: dict[str, float]
    valid: dict[str, float]
    history: list[dict]
    seconds: float
    samples_per_second: float
    steps: int
    parameters: dict[str, int] = field(default_factory=dict)
    interrupted: bool = False


def fit(
    model: ClickModel,
    log: Log,
    *,
    epochs: int = 1,
    batch_size: int = 1024,
    checks_per_epoch: int = 1,
    patience: int | None = None,
    decay: float = 1.0,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    precision: str | None = None,
    accelerator: str = "auto",
    progress: bool = False,
    **trainer,
) -> Fit:
    """Train on ``log.train``, keep the weights that do best on ``log.valid``, score ``log.test``.

    epochs, batch_size (rows over all processes), checks_per_epoch >= 1.
    patience: checks without a better validation AUC before stopping; None trains to the end.
        The test part is scored once, at the end.
    decay: in (0, 1], the learning rate's factor at each check that is not the best so far (BARS: 0.1
        with patience 2).
    checkpoint: a file, written every ``checkpoint_every`` steps and at every check; when it is
        there already, training goes on from it.
    precision: Lightning's; None takes bf16-mixed where the hardware multiplies faster in bf16.
    trainer: anything else that ``lightning.Trainer`` takes: devices, num_nodes, strategy, ...

    Raises ValueError for values out of range and for a checkpoint that is broken or holds code,
    FloatingPointError when the loss is not finite.
    """
    for name, value in (("epochs", epochs), ("checks_per_epoch", checks_per_epoch)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be in (0, 1], got {decay}")
    _keep_freed_memory()
    torch.manual_seed(seed)
    checks = _Checks(log, checks_per_epoch, patience, decay)
    callbacks: list[Callback] = [checks]
    if checkpoint is not None:
        checkpoint = Path(checkpoint)
        callbacks.append(_every(checkpoint, checkpoint_every))
    if progress:
        callbacks.append(TQDMProgressBar())
    with warnings.catch_warnings():
        # A log is gathered by index in this process: no worker could make that faster.
        warnings.filterwarnings("ignore", ".*num_workers.*|.*GPU available.*|.*LeafSpec.*")
        runner = L.Trainer(
            max_epochs=epochs,
            accelerator=accelerator,
            precision=precision or best_precision(accelerator),
            logger=False,
            enable_checkpointing=checkpoint is not None,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            callbacks=callbacks,
            **{"devices": 1, **trainer},
        )
        batches = Batches(_resident(log.train, runner), batch_size, seed)
        resume = _resumable(checkpoint) if checkpoint and checkpoint.is_file() else None
        try:
            runner.fit(model, batches, ckpt_path=resume, weights_only=True)
        except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C into either
            checks.interrupted = True
    checks.restore_best(model)
    return Fit(
        test=evaluate(model, log, "test"),
        valid=evaluate(model, log, "valid"),
        history=checks.history,
        seconds=checks.seconds,
        samples_per_second=checks.rows / max(checks.seconds, 1e-9),
        steps=checks.step,
        parameters=model.count_parameters(),
        interrupted=checks.interrupted,
    )


def compare(
    builders: dict[str, Callable[[Schema, int], ClickModel]],
    log: Log,
    *,
    budget: int,
    seeds: Sequence[int],
    rates: Sequence[float] = (1e-3,),
    **options,
) -> Iterator[tuple[dict, ClickModel]]:
    """Train every model on one log on equal terms; yield a row of results and the trained model.

    builders: name -> function of a schema and a width. The width is chosen so that the model has
    ``budget`` dense parameters within 5 %. Of several learning rates the one with the best
    validation AUC at the first seed is taken: the same trials for every model. A seed draws the
    initial weights and the order of rows, so that rows of one seed are paired over models.
    options: passed to `fit`.
    """
    for name, build in builders.items():
        width = width_for(lambda w, build=build: build(log.schema, w), budget)
        tried: dict[float, tuple[Fit, ClickModel]] = {}
        for rate in rates:
            tried[rate] = _run(build, log, width, rate, seeds[0], options)
        best = max(rates, key=lambda r: tried[r][0].valid["auc"])
        for seed in seeds:
            run, model = (
                tried[best] if seed == seeds[0] else _run(build, log, width, best, seed, options)
            )
            yield (
                {
                    "log": log.name,
                    "model": name,
                    "seed": seed,
                    **run.test,
                    "valid_auc": run.valid["auc"],
                    **run.parameters,
                    "width": width,
                    "lr": best,
                    "seconds": run.seconds,
                    "samples_per_second": run.samples_per_second,
                },
                model,
            )


def _run(build, log: Log, width: int, rate: float, seed: int, options: dict):
    torch.manual_seed(seed)
    model = build(log.schema, width)
    model.lr = rate
    return fit(model, log, seed=seed, **options), model


def evaluate(model: ClickModel, log: Log, part: str = "test") -> dict[str, float]:
    """AUC, logloss and, where the log has users, GAUC of a model on a part of a log."""
    split: Split = getattr(log, part)
    logits, labels = predict(model, split), split.labels[:, 0]
    found = {"auc": metrics.auc(logits, labels), "logloss": metrics.logloss(logits, labels)}
    users = log.user(part)
    if users is not None:
        found["gauc"] = metrics.gauc(logits, labels, users)
    return found


@torch.no_grad()
def predict(model: ClickModel, split: Split, batch_size: int = 8192) -> Tensor:
    """Logits (n,) in float32 on the CPU, in the order of the split's rows.

    Rows with histories are scored by length, in smaller batches the longer they are, so that
    padding and memory stay bounded: at most 16 events for each of ``batch_size`` rows.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    scores = torch.empty(len(split))
    if split.spans is None:
        batches = [slice(i, i + batch_size) for i in range(0, len(split), batch_size)]
    else:
        order = split.lengths.argsort(stable=True)
        batches = order.split(max(1, batch_size * 16 // max(16, split.length)))
    for rows in batches:
        scores[rows] = model(split.take(rows).to(device)).float().cpu()
    model.train(training)
    return scores


def best_precision(accelerator: str = "auto") -> str:
    """``bf16-mixed`` where the device multiplies faster in bf16, else ``32-true``."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported()
    else:
        known = getattr(torch.cpu, "get_capabilities", dict)()
        # Of the processors with AVX-512's bf16 but no AMX, Intel's take twice as long as in float32.
        vector = known.get("avx512_bf16", False) and "Intel" not in known.get("cpu_name", "")
        fast = known.get("amx_bf16", False) or vector
    return "bf16-mixed" if fast else "32-true"


def _resident(split: Split, runner: L.Trainer) -> Split:
    """On one GPU, the whole split where it fits in half of the free memory: no batch is copied."""
    device = runner.strategy.root_device
    if device.type != "cuda" or runner.world_size > 1:
        return split
    free, _ = torch.cuda.mem_get_info(device)
    return split.to(device) if 2 * split.nbytes <= free else split


def _keep_freed_memory() -> None:
    """Let glibc keep the buffers of one step for the next.

    By default it hands blocks above a few MB back to the system at every free, and a step spends a
    third of its time on having them mapped and zeroed again. Elsewhere than on glibc: nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mmap_threshold, trim_threshold = -3, -1
        mallopt(mmap_threshold, 32 << 20)  # the most that it takes
        mallopt(trim_threshold, 2**31 - 1)


class _Checks(Callback):
    """Validates, keeps the best weights, stops early, and times what is left."""

    def __init__(self, log: Log, per_epoch: int, patience: int | None, decay: float):
        self.clicks, self.per_epoch, self.patience = log, per_epoch, patience
        self.decay = decay
        self.history: list[dict] = []
        self.best: dict[str, Tensor] | None = None
        self.seconds, self.rows, self.step, self.interrupted = 0.0, 0, 0, False
        self._loss, self._since = torch.zeros(()), 0
        self._clock = time.perf_counter()  # what fails before training starts has a time too

    def on_train_start(self, trainer, model):
        self._clock = time.perf_counter()
        steps = trainer.num_training_batches
        self._at = {round(steps * (k + 1) / self.per_epoch) - 1 for k in range(self.per_epoch)}

    def on_before_backward(self, trainer, model, loss):
        if not loss.isfinite():  # before the step would spread it to every weight
            raise FloatingPointError(_not_finite(trainer, model, loss))

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        self._loss, self._since = self._loss + outputs["loss"].detach().cpu(), self._since + 1
        self.rows += len(batch.labels) * trainer.world_size
        self.step += 1
        if batch_idx in self._at:
            self._check(trainer, model)

    def _check(self, trainer, model):
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, RowAdam):
                optimizer.settle()  # deferred work of the steps so far: it is part of their time
        self.seconds += time.perf_counter() - self._clock
        row = {
            "step": self.step,
            "epoch": trainer.current_epoch,
            "seconds": self.seconds,
            "train_loss": (self._loss / self._since).item(),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            **evaluate(model, self.clicks, "valid"),
        }
        self._loss, self._since = torch.zeros(()), 0
        best = max((r["auc"] for r in self.history), default=float("-inf"))
        self.history.append(row)
        if row["auc"] <= best and self.decay < 1:
            for group in (g for optimizer in trainer.optimizers for g in optimizer.param_groups):
                group["lr"] *= self.decay
        if row["auc"] > best:
            self.best = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        since = (
            len(self.history)
            - 1
            - max(range(len(self.history)), key=lambda i: self.history[i]["auc"])
        )
        if self.patience is not None and since >= self.patience:
            trainer.should_stop = True
        self._clock = time.perf_counter()

    def on_exception(self, trainer, model, exception):
        self.seconds += time.perf_counter() - self._clock

    def restore_best(self, model):
        if self.best is not None:
            model.load_state_dict(self.best)

    def state_dict(self):
        """What a resumed run needs besides Lightning's own: also where the random numbers are."""
        return {
            "history": self.history,
            "best": self.best,
            "seconds": self.seconds + time.perf_counter() - self._clock,
            "rows": self.rows,
            "step": self.step,
            "loss": self._loss,
            "since": self._since,
            "random": torch.get_rng_state(),
        }

    def load_state_dict(self, state):
        self.history, self.best = state["history"], state["best"]
        self.seconds, self.rows, self.step = state["seconds"], state["rows"], state["step"]
        self._loss, self._since = state["loss"], state["since"]
        torch.set_rng_state(state["random"].cpu())


def _resumable(path: Path) -> str:
    """The path, where the file is a checkpoint of tensors and plain values; else raises ValueError."""
    try:
        found = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        whole = {"state_dict", "optimizer_states", "callbacks"} <= set(found)
    except Exception:  # of pickle, zip files, torch: there is no common one
        whole = False
    if not whole:
        raise ValueError(f"{path} is no checkpoint to go on from: delete it, or name another file")
    return str(path)


def _every(path: Path, steps: int) -> ModelCheckpoint:
    """One file, overwritten every so many steps."""
    saver = ModelCheckpoint(
        dirpath=path.parent,
        filename=path.name.removesuffix(".ckpt"),
        every_n_train_steps=steps,
        enable_version_counter=False,
    )
    if path.suffix != ".ckpt":
        raise ValueError(f"checkpoint must end in .ckpt, got {path.name}")
    return saver


def _not_finite(trainer, model: ClickModel, loss: Tensor) -> str:
    bad = [n for n, p in model.named_parameters() if not p.isfinite().all()]
    return (
        f"loss is {loss.item()} at step {trainer.global_step} (batch "
        f"{trainer.fit_loop.epoch_loop.batch_idx} of epoch {trainer.current_epoch}); first parameter "
        f"that is not finite: {bad[0] if bad else 'none, so look at the inputs of this batch'}"
    )
