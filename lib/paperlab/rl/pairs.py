"""Logs of user-author pairs as columns for agents, realised returns, and a counted model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import checks, mdp
from .offline import States
from .worlds.funnel import NEXT_STATES, ONE_HOT, K, Z

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    Log = Mapping[str, np.ndarray]  # as `FunnelModel.log_dataset` makes it


def features() -> Float[Tensor, "16 8"]:
    """One-hot of k, then of z, for each state 4 k + z."""
    return torch.tensor(ONE_HOT)


def next_states(log: Log, next_state: str) -> Int[np.ndarray, " n"]:
    """The state at the pair's next exposure, which no log has at training time, or a stand-in.

    next_state: ``exact``, or a stand-in that is known at once: ``next_request``, ``post_update``,
        ``stale`` (the state itself).
    Raises ValueError for another name.
    """
    checks.one_of(NEXT_STATES, next_state=next_state)
    return log["state" if next_state == "stale" else next_state]


def columns(log: Log, next_state: str = "exact") -> dict[str, Tensor | States]:
    """A funnel's log as agents read it; states stay numbers, see `offline.Distinct`."""
    table, take = features(), lambda name: torch.from_numpy(log[name])
    data = {
        "obs": States(table, take("state")),
        "next_obs": States(table, torch.from_numpy(next_states(log, next_state))),
        "done": torch.zeros(len(log["state"])),
        "action": take("action").long(),
    }
    return data | {name: take(name) for name in ("click", "follow", "gift", "reward")}


def realised_returns(
    log: Log, discount: float, days: float
) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Rows whose next ``days`` the log covers, and the discounted reward collected in them.

    A supervised model of pair value regresses on this, so it has to wait ``days``. discount:
    per exposure, [0, 1). days: above 0. A pair's log ends at its last row; rows closer to that than
    ``days`` are left out.
    """
    checks.inside("[0, 1)", discount=discount)
    checks.positive(days=days)
    order = np.argsort(log["pair"], kind="stable")
    pair, time, reward = (log[k][order].astype(np.float64) for k in ("pair", "time", "reward"))
    position = np.arange(len(order))
    step = position - np.searchsorted(pair, pair, side="left")
    last = np.searchsorted(pair, pair, side="right") - 1
    # sum_{i >= t} discount^(i - t) r_i over one pair, backwards, all pairs at once
    tail = np.append(reward, 0)
    for s in range(step.max() - 1, -1, -1):
        at = np.flatnonzero((step == s) & (position < last))
        tail[at] += discount * tail[at + 1]
    # one key sorted over all rows: pairs one after the other, far apart in time
    key = np.maximum.accumulate((pair - pair[0]) * (time.max() + 2 * days) + time)
    end = np.minimum(np.searchsorted(key, key + days, side="right"), last + 1)  # of the window
    beyond = np.where(end <= last, tail[end], 0)
    returns = tail[:-1] - discount ** (end - position) * beyond
    covered = time[last] - time >= days
    return order[covered], returns[covered].astype(np.float32)


def certainty_equivalent(
    log: Log, next_state: str = "exact", *, discount: float = 0.95, n_actions: int = 3
) -> tuple[Int[np.ndarray, "4 4"], Float[np.ndarray, "A 4 4"]]:
    """Count transitions, average rewards, and solve the counted model exactly.

    Returns its best actions [k][z] and its Q [a][k][z]. An action that was never logged in a state
    has reward 0 there and ends the pair.
    """
    state, action, reward = (log[name] for name in ("state", "action", "reward"))
    after, going = next_states(log, next_state), np.zeros(len(state), bool)
    P, R, _ = mdp.count(state, action, reward, after, going, K * Z, n_actions)
    P = discount * P
    actions = mdp.policy_iteration(P, R)
    V = mdp.policy_values(P, R, np.eye(n_actions)[actions])
    return actions.reshape(K, Z), mdp.action_values(P, R, V).reshape(n_actions, K, Z)
