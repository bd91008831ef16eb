"""Learning from a log of transitions: what every offline agent shares. `loop.fit` trains them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING

import lightning as L
import torch
from torch import Tensor, nn

from .. import checks

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Batch = Log = Mapping[str, Tensor | "Lookup"]


class OfflineAgent(L.LightningModule):
    """An agent that learns from logged transitions.

    Subclasses define ``loss(batch, step)``, which the optimiser lowers, and ``policy(batch)``, the
    probability of every action (B, A); both may read more than this class does.
    A log maps names to columns of equal length, tensors or `Lookup`s; a batch maps them to B rows:
    ``obs`` (B, d), ``action`` (B,) from 0, ``reward`` (B,), ``next_obs`` (B, d), ``done`` (B,) 1
    where nothing follows.

    gamma: discount per step, in [0, 1). lr: Adam's first rate, above 0; it falls to 0 in a straight
        line over the run.
    Raises ValueError for values out of range.
    """

    columns: tuple[str, ...] = ("obs", "action", "reward", "next_obs", "done")  # of the log
    select = None  # no validation part: the last weights stay

    def __init__(self, gamma: float = 0.9, lr: float = 1e-3):
        super().__init__()
        checks.inside("[0, 1)", gamma=gamma)
        checks.positive(lr=lr)
        self.gamma, self.lr = gamma, lr

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        return self.loss(batch, batch_idx)

    def configure_optimizers(self) -> dict:
        adam = torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)
        steps = self.trainer.estimated_stepping_batches
        falls = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / steps)
        return {"optimizer": adam, "lr_scheduler": {"scheduler": falls, "interval": "step"}}

    def check(self, log: Log) -> None:
        """Raise ValueError for a log that lacks a column, is empty or ragged, or is not finite."""
        if missing := [name for name in self.columns if name not in log]:
            raise ValueError(
                f"log must have the columns {', '.join(self.columns)}, lacks {missing}"
            )
        lengths = {name: len(column) for name, column in log.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise ValueError(f"log must have columns of one length, at least 1, got {lengths}")
        tables = {n: c.table if isinstance(c, Lookup) else c for n, c in log.items()}
        checks.finite(**{f"log[{n!r}]": t for n, t in tables.items() if t.is_floating_point()})

    def batches(self, log: Log, batch_size: int, seed: int) -> Draws:
        return Draws(log, batch_size, seed)

    def count(self, batch: Batch) -> int:
        return len(batch["action"])

    def evaluate(self, log: Log, part: str) -> dict[str, float]:
        return {}

    def count_parameters(self) -> dict[str, int]:
        """Weights that training moves; there are no embedding tables."""
        return {"dense": sum(p.numel() for p in self.parameters() if p.requires_grad)}


class Draws:
    """Batches without end of rows drawn with replacement, straight from the columns."""

    def __init__(self, log: Log, batch_size: int, seed: int):
        self.log, self.batch_size, self.seed, self.start = log, batch_size, seed, 0

    def load_state_dict(self, state: dict) -> None:
        """The next iteration goes on from batch ``state["start"]``."""
        self.start = state["start"]

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed)
        rows, first, self.start = len(next(iter(self.log.values()))), self.start, 0
        for step in count():
            drawn = torch.randint(rows, (self.batch_size,), generator=generator)
            if step >= first:
                yield {name: column[drawn] for name, column in self.log.items()}


class Lookup:
    """A column that is kept as row numbers of a small table: features of numbered states."""

    def __init__(self, table: Float[Tensor, "S d"], index: Int[Tensor, " n"]):
        self.table, self.index = table, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Int[Tensor, " B"]) -> Float[Tensor, "B d"]:
        return self.table[self.index[rows].long()]


class States(Lookup):
    """A `Lookup` that stays one in a batch, so that a network computes a distinct state once."""

    def __getitem__(self, rows: Int[Tensor, " B"]) -> States:
        return States(self.table, self.index[rows])

    def to(self, device: torch.device) -> States:
        return States(self.table.to(device), self.index.to(device))


def rows_of(obs: Float[Tensor, "B d"] | States) -> tuple[Float[Tensor, "U d"], Int[Tensor, " B"]]:
    """Observations to compute, and which of them each of the B samples has."""
    if isinstance(obs, States):
        return obs.table, obs.index.long()
    return obs, torch.arange(len(obs), device=obs.device)


class Distinct(nn.Module):
    """A network that reads `States`, each distinct one once: exact, and faster on large batches.

    Its weights are those of ``net``, which must treat every row by itself.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, obs: Float[Tensor, "B d"] | States) -> Float[Tensor, "B A"]:
        table, row = rows_of(obs)
        return self.net(table).index_select(0, row)


class TargetNetwork(nn.Module):
    """A frozen copy of a module; `update` moves it a share ``tau``, in (0, 1], towards it."""

    def __init__(self, module: nn.Module, tau: float):
        super().__init__()
        checks.inside("(0, 1]", tau=tau)
        self.copy, self.tau = copy.deepcopy(module).requires_grad_(False), tau

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.copy(*inputs)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        torch._foreach_lerp_(list(self.copy.parameters()), list(module.parameters()), self.tau)


def q_of_action(
    values: Float[Tensor, "*k B A"], action: Int[Tensor, " B"]
) -> Float[Tensor, "*k B"]:
    """The value of the action that was taken, for every leading copy."""
    index = action.expand(values.shape[:-1]).unsqueeze(-1)
    return values.gather(-1, index).squeeze(-1)
