"""RLIV-UA and its rivals on one log of user-author pairs, on equal terms.

All read the same columns, take the same steps and batches, and choose boosts by the averaged copy
of their network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from .. import checks, loop
from ..nn.mlp import MLP
from . import pairs
from .baselines.cql import CQL
from .baselines.dqn import DQN
from .offline import Distinct, OfflineAgent, TargetNetwork
from .rliv_ua import RLIVUA

if TYPE_CHECKING:
    from jaxtyping import Int

    from .pairs import Log

STATES = pairs.features()  # (16, 8)
TAU = 0.25  # share by which averaged copies move each step
NAMES = (
    *("RLIV-UA", "Myopic", "Return regression", "DQN, same parts", "RLIV-UA none"),
    *("RLIV-UA auxiliary", "DQN", "CQL"),
)

rliv = partial(RLIVUA, 8, bottom=(64, 64), heads=(32,), follower=(6, 7), tau=TAU)


def rival(kind: type[DQN] = DQN, *, matched: bool = False, **options) -> DQN:
    """A baseline that computes each distinct state of a batch once, as RLIV-UA does.

    matched: with what RLIV-UA has besides its mechanism: as many weights, ELU and LayerNorm.
    options: of ``kind``.
    """
    agent = kind(8, 3, **{"widths": (64, 64), "gamma": 0.95, **options})
    if matched:
        width = 212
        top = nn.LayerNorm(width), nn.Linear(width, 3)
        agent.net = nn.Sequential(MLP(8, (width, width), activation=nn.ELU), *top)
    agent.net = Distinct(agent.net)
    agent.slow = TargetNetwork(agent.net, TAU)
    return agent


def contenders(
    log: Log, names: Sequence[str] = NAMES, *, discount: float = 0.95, days: float = 30.0
) -> dict[str, tuple[Callable[..., OfflineAgent], Mapping]]:
    """Name -> how to make the agent, which takes ``lr``, and the columns that it learns from.

    Myopic regresses the reward on state and action; Return regression the pair's discounted reward
    of the next ``days``, so that it learns from rows that have them. RLIV-UA none and auxiliary:
    `RLIVUA`'s supervision. Raises ValueError for an unknown name.
    """
    for name in names:
        checks.one_of(NAMES, name=name)
    data = pairs.columns(log)
    kept, later = pairs.realised_returns(log, discount, days)
    waited = pairs.columns({k: v[kept] for k, v in log.items()}) | {
        "reward": torch.from_numpy(later)
    }
    arms = {
        "RLIV-UA": (rliv, data),
        "Myopic": (partial(rival, gamma=0.0), data),
        "Return regression": (partial(rival, gamma=0.0), waited),
        "DQN, same parts": (partial(rival, matched=True), data),
        "RLIV-UA none": (partial(rliv, supervision="none"), data),
        "RLIV-UA auxiliary": (partial(rliv, supervision="auxiliary"), data),
        "DQN": (rival, data),
        "CQL": (partial(rival, CQL), data),
    }
    return {name: arms[name] for name in names}


def boosts(agent: OfflineAgent) -> Int[np.ndarray, " 16"]:
    """The best boost in each state by the averaged copy of the network."""
    critics = isinstance(agent, RLIVUA)
    return (agent.q({"obs": STATES}) if critics else agent.slow(STATES)).argmax(1).numpy()


def train(
    make: Callable[[], OfflineAgent],
    columns: Mapping,
    seed: int,
    *,
    steps: int,
    batch_size: int,
    share: Callable | None = None,
) -> tuple[OfflineAgent, Int[np.ndarray, " 16"], list[dict]]:
    """A trained agent, its boosts by state, and a row for each of 20 checks.

    share: worth of boosts by state, which the checks record as "share".
    """
    torch.manual_seed(seed)
    how = {"accelerator": "cpu", "precision": "32-true", "gradient_clip_val": 1.0}
    if share:
        how |= {"watch": lambda agent: {"share": share(boosts(agent))}, "checks_per_epoch": 20}
    fit = loop.fit(agent := make(), columns, steps=steps, seed=seed, batch_size=batch_size, **how)
    return agent.eval(), boosts(agent), fit.history


def settled(history: Sequence[Mapping], level: float) -> dict[str, int | bool]:
    """The first check from which on the share stays at ``level`` or above.

    Returns steps and reached; a run whose last check is below is censored there (reached False).
    """
    below = [n for n, row in enumerate(history) if row["share"] < level]
    first = below[-1] + 1 if below else 0
    reached = first < len(history)
    return {"steps": history[min(first, len(history) - 1)]["step"], "reached": reached}
