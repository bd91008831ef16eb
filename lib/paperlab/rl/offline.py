"""Learning from a log of transitions: what every agent shares, and one training call."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import lightning as L
import torch
from torch import Tensor, nn

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Transitions = Mapping[str, Tensor | Lookup]


class OfflineAgent(L.LightningModule):
    """An agent that learns from logged transitions; subclasses define ``loss`` and ``policy``.

    A batch maps names to tensors of B rows: ``obs`` (B, d), ``action`` (B,) from 0, ``reward``
    (B,), ``next_obs`` (B, d), ``done`` (B,) 1 where nothing follows; some agents read more.

    gamma: discount per step, in [0, 1). lr: Adam's rate, above 0.
    copies: independent agents that train side by side, each on rows of its own; a batch holds B
        rows for the first, then B for the second, and so on.
    Raises ValueError for values out of range.
    """

    def __init__(self, gamma: float = 0.9, lr: float = 1e-3, copies: int = 1):
        super().__init__()
        if copies < 1:
            raise ValueError(f"copies must be at least 1, got {copies}")
        self.copies = copies
        if not 0 <= gamma < 1:
            raise ValueError(f"gamma must be in [0, 1), got {gamma}")
        if lr <= 0:
            raise ValueError(f"lr must be above 0, got {lr}")
        self.gamma, self.lr = gamma, lr

    def loss(self, batch: Transitions, step: int) -> Float[Tensor, ""]:
        """What one optimiser step at step ``step`` = 0, 1, ... goes down on."""
        raise NotImplementedError

    def policy(self, batch: Transitions) -> Float[Tensor, "B A"]:
        """Probability of every action; reads ``obs`` and what else the agent needs."""
        raise NotImplementedError

    def training_step(self, batch: Transitions, batch_idx: int) -> Float[Tensor, ""]:
        return self.loss(batch, batch_idx)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)

    def count_parameters(self) -> dict[str, int]:
        """Weights that training moves, of one copy; there are no embedding tables."""
        total = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return {"dense": total // self.copies}


class Lookup:
    """A column that is kept as row numbers of a small table: features of numbered states."""

    def __init__(self, table: Float[Tensor, "S d"], index: Int[Tensor, " n"]):
        self.table, self.index = table, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Int[Tensor, " B"]) -> Float[Tensor, "B d"]:
        return self.table[self.index[rows].long()]


class Draws:
    """``steps`` batches of rows drawn with replacement, straight from the columns.

    seeds: one a copy of the agent; each draws ``batch_size`` rows, as it would alone.
    """

    def __init__(self, log: Transitions, steps: int, batch_size: int, seeds: Sequence[int]):
        self.log, self.steps, self.batch_size, self.seeds = log, steps, batch_size, seeds

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        rows = len(next(iter(self.log.values())))
        for _ in range(self.steps):
            drawn = torch.cat(
                [torch.randint(rows, (self.batch_size,), generator=g) for g in generators]
            )
            yield {name: column[drawn] for name, column in self.log.items()}


class _Watch(L.Callback):
    def __init__(self, look: Callable[[OfflineAgent], dict] | None, every: int, decay: bool):
        self.look, self.every, self.decay, self.rows = look, every, decay, []

    def on_train_batch_start(self, trainer, agent, batch, batch_idx):
        if self.decay:
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = agent.lr * (1 - batch_idx / trainer.num_training_batches)

    def on_before_backward(self, trainer, agent, loss):
        if not loss.isfinite():  # before the step would spread it to every weight
            raise FloatingPointError(f"loss is {loss.item()} at step {trainer.global_step}")

    def on_train_batch_end(self, trainer, agent, outputs, batch, batch_idx):
        if self.look and (batch_idx + 1) % self.every == 0:
            training = agent.training
            agent.eval()
            with torch.no_grad():
                self.rows.append({"step": batch_idx + 1, **self.look(agent)})
            agent.train(training)


def fit(
    agent: OfflineAgent,
    log: Transitions,
    *,
    steps: int,
    batch_size: int = 512,
    seed: int | Sequence[int] = 0,
    decay: bool = False,
    watch: Callable[[OfflineAgent], dict] | None = None,
    every: int = 100,
    accelerator: str = "cpu",
    **trainer,
) -> list[dict]:
    """Train ``agent`` in place for ``steps`` batches drawn from ``log``; return what was watched.

    log: columns of equal length, tensors or `Lookup`s, see `OfflineAgent`. steps, batch_size, every >= 1.
    seed: of the rows drawn; a sequence for an agent of several copies, one each.
    decay: let the learning rate fall to 0 in a straight line.
    watch: numbers about the agent, asked for after every ``every`` steps.
    trainer: anything else that ``lightning.Trainer`` takes.
    Raises ValueError for an empty or ragged log and values out of range, FloatingPointError when
    the loss is not finite.
    """
    for name, value in (("steps", steps), ("batch_size", batch_size), ("every", every)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    lengths = {name: len(column) for name, column in log.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"log must have columns of one length, at least 1, got {lengths}")
    seeds = (seed,) if isinstance(seed, int) else tuple(seed)
    if len(seeds) != agent.copies:
        raise ValueError(f"seed must hold one for each of {agent.copies} copies, got {seed}")
    seen = _Watch(watch, every, decay)
    with warnings.catch_warnings():
        # Rows are gathered by index in this process: no worker could make that faster.
        warnings.filterwarnings("ignore", ".*num_workers.*|.*GPU available.*|.*LeafSpec.*")
        runner = L.Trainer(
            max_epochs=1,
            accelerator=accelerator,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            callbacks=[seen],
            **{"devices": 1, "precision": "32-true", **trainer},
        )
        runner.fit(agent, Draws(log, steps, batch_size, seeds))
    return seen.rows


class Follower(nn.Module):
    """A frozen copy of a module that moves a share ``tau`` of the way after it at each `follow`."""

    def __init__(self, module: nn.Module, tau: float):
        super().__init__()
        if not 0 < tau <= 1:
            raise ValueError(f"tau must be in (0, 1], got {tau}")
        self.copy, self.tau = copy.deepcopy(module).requires_grad_(False), tau

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.copy(*inputs)

    @torch.no_grad()
    def follow(self, module: nn.Module) -> None:
        mine, theirs = list(self.copy.parameters()), list(module.parameters())
        torch._foreach_lerp_(mine, theirs, self.tau)


def chosen(values: Float[Tensor, "*k B A"], action: Int[Tensor, " B"]) -> Float[Tensor, "*k B"]:
    """The value of the action that was taken, for every leading copy."""
    index = action.expand(values.shape[:-1]).unsqueeze(-1)
    return values.gather(-1, index).squeeze(-1)
