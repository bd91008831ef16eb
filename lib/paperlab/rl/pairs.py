"""From a log of user-author pairs to what learners read, and two learners that need no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from .offline import Lookup
from .worlds import tabular

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float, Int
    from torch import Tensor

NEXT_STATES = ("exact", "previous", "next_request", "post_update", "stale")
NEEDED = ("state", "action", "mu", "click", "follow", "gift", "reward", "exact", "done", "gap")


class States(Lookup):
    """A `Lookup` that stays one in a batch, so that a network computes every distinct state once."""

    def __getitem__(self, rows: Int[Tensor, " B"]) -> States:
        return States(self.table, self.index[rows])

    def to(self, device: torch.device) -> States:
        return States(self.table.to(device), self.index.to(device))


def rows_of(obs: Float[Tensor, "B d"] | States) -> tuple[Float[Tensor, "U d"], Int[Tensor, " B"]]:
    """Observations to compute, and which of them each of the B samples has."""
    if isinstance(obs, States):
        return obs.table, obs.index.long()
    return obs, torch.arange(len(obs), device=obs.device)


class Distinct(torch.nn.Module):
    """A network that reads `States`, each distinct one once: exact, and much faster on large batches.

    Its weights are those of ``net``, which must treat every row by itself.
    """

    def __init__(self, net: torch.nn.Module):
        super().__init__()
        self.net = net

    def forward(self, obs: Float[Tensor, "B d"] | States) -> Float[Tensor, "B A"]:
        table, row = rows_of(obs)
        return self.net(table).index_select(0, row)


def features() -> Float[Tensor, "16 8"]:
    """One-hot of k, then of z, for each state 4 k + z."""
    k, z = np.divmod(np.arange(16), 4)
    return torch.tensor(np.concatenate([np.eye(4)[k], np.eye(4)[z]], 1), dtype=torch.float32)


def next_states(log: Mapping[str, np.ndarray], next_state: str):
    """Rows that have a next state, that state, and whether the pair is known to be lost.

    ``exact``: the state at the pair's next exposure, which no log has at training time.
    ``previous``: the same, by joining each row with the pair's next one in this log, as a cache of
    one entry a pair would; the last row of every pair has none. ``next_request``, ``post_update``
    and ``stale`` are there at once, for every row, and never know that a pair is lost.
    Raises ValueError for another name.
    """
    if next_state not in NEXT_STATES:
        raise ValueError(f"next_state must be one of {', '.join(NEXT_STATES)}, not {next_state!r}")
    n = len(log["state"])
    if next_state == "previous":
        order = np.argsort(log["pair"], kind="stable")
        follows = np.flatnonzero(log["pair"][order[1:]] == log["pair"][order[:-1]])
        rows = order[follows]
        return rows, log["state"][order[follows + 1]], np.zeros(len(rows), bool)
    rows = np.arange(n)
    if next_state == "exact":
        return rows, log["exact"], log["done"]
    name = "state" if next_state == "stale" else next_state
    return rows, log[name], np.zeros(n, bool)


def columns(
    log: Mapping[str, np.ndarray],
    next_state: str = "exact",
    time_discount: float | None = None,
    kind: type[Lookup] = States,
) -> dict[str, Tensor | Lookup]:
    """A funnel's log as `offline.fit` wants it; states stay numbers until a batch is drawn.

    next_state: see `next_states`. time_discount: per request, in (0, 1): adds ``discount``, of the
        gap that followed. kind: of the observations; `Lookup` for networks that are not `Distinct`.
    Raises ValueError for a log that lacks a column.
    """
    _complete(log)
    rows, after, done = next_states(log, next_state)
    table, whole = features(), len(rows) == len(log["state"])

    def take(name: str) -> Tensor:
        return torch.from_numpy(log[name] if whole else log[name][rows])

    found = {
        "obs": kind(table, take("state")),
        "next_obs": kind(table, torch.from_numpy(np.ascontiguousarray(after))),
        "done": torch.from_numpy(done).float(),
        "lost": take("done").float(),
    }
    if time_discount is not None:
        if not 0 < time_discount < 1:
            raise ValueError(f"time_discount must be in (0, 1), got {time_discount}")
        found["discount"] = time_discount ** take("gap").float()
    found["action"] = take("action").long()
    return found | {name: take(name) for name in ("click", "follow", "gift", "reward")}


def realised_returns(
    log: Mapping[str, np.ndarray], discount: float, days: float
) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Rows whose next ``days`` the log covers, and the discounted reward collected in them.

    This is what a supervised model of pair value regresses on, and why it has to wait. discount:
    per exposure, [0, 1). A pair's log ends at its last row; rows closer to that than ``days`` are
    left out. Raises ValueError for values out of range.
    """
    if not 0 <= discount < 1 or days <= 0:
        raise ValueError(f"discount must be in [0, 1) and days above 0, got {discount}, {days}")
    order = np.argsort(log["pair"], kind="stable")
    pair, time = log["pair"][order], log["time"][order].astype(np.float64)
    reward = log["reward"][order].astype(np.float64)
    n = len(order)
    # one key sorted over all rows: pairs one after the other, far apart in time
    apart = (pair.astype(np.float64) - pair[0]) * (time.max() + 2 * days)
    key = np.maximum.accumulate(apart + time)
    end = np.searchsorted(key, key + days, side="right")  # first row outside the window
    last = np.searchsorted(pair, pair, side="right") - 1
    position = np.arange(n)
    # sum_{i >= t} discount^(i - t) r_i over one pair, backwards, all pairs at once
    tail = np.zeros(n + 1)
    steps = position - np.searchsorted(pair, pair, side="left")
    for step in range(steps.max(), -1, -1):
        at = np.flatnonzero(steps == step)
        tail[at] = reward[at] + discount * np.where(at < last[at], tail[at + 1], 0)
    inside = np.minimum(end, last + 1)
    beyond = np.where(inside <= last, tail[np.minimum(inside, n - 1)], 0)
    returns = tail[:-1] - discount ** (inside - position) * beyond
    covered = time[last] - time >= days
    return order[covered], returns[covered].astype(np.float32)


def certainty_equivalent(
    log: Mapping[str, np.ndarray],
    next_state: str = "exact",
    *,
    discount: float = 0.95,
    time_discount: float | None = None,
    n_actions: int = 3,
) -> tuple[Int[np.ndarray, "4 4"], Float[np.ndarray, "A 4 4"]]:
    """Count transitions, average rewards, solve: what the data alone can tell a table.

    Returns the best actions [k][z] and Q [a][k][z] of the counted model. An action that a state
    never saw is worth nothing at once and ends the pair. Raises ValueError for a log that lacks a
    column.
    """
    _complete(log)
    rows, after, done = next_states(log, next_state)
    cell = log["state"][rows].astype(np.intp) * n_actions + log["action"][rows]
    size, shape = 16 * n_actions, (16, n_actions)
    count = np.maximum(np.bincount(cell, minlength=size), 1)
    reward = np.bincount(cell, log["reward"][rows], size) / count
    weight = ~done * (discount if time_discount is None else time_discount ** log["gap"][rows])
    flow = np.bincount(cell * 16 + after, weight, size * 16) / np.repeat(count, 16)
    P = flow.reshape(*shape, 16).transpose(1, 0, 2)
    R = reward.reshape(shape).T
    actions = tabular.policy_iteration(P, R)
    V = tabular.policy_values(P, R, np.eye(n_actions)[actions])
    return actions.reshape(4, 4), tabular.action_values(P, R, V).reshape(n_actions, 4, 4)


def _complete(log: Mapping[str, np.ndarray]) -> None:
    missing = [name for name in NEEDED if name not in log]
    if missing:
        raise ValueError(f"log must have the columns {', '.join(NEEDED)}; missing: {missing}")
    mu = log["mu"]
    if not np.all((mu > 0) & (mu <= 1)):
        raise ValueError("log's mu, the probability of the action taken, must be in (0, 1]")
