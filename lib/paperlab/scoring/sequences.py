"""Sequence models on a next-item log: which of two items comes next, judged user by user."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import checks
from ..data.store import SPLITS
from .clicks import JUDGED, Builder, at_edges, sample, told, trained
from .scores import Scores

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from ..data.store import Log, Split


def score(
    data: Log,
    contenders: Mapping[str, Builder],
    *,
    seeds: Sequence[int],
    tell: Callable[[str], None],
    length: int = 20,
    budget: int = 30_000,
    rates: Sequence[float] = (0.001, 0.003, 0.01),
    epochs: int = 20,
    patience: int = 3,
    batch_size: int = 0,
) -> Scores:
    """Train every contender until validation stops improving; GAUC beside that of popularity.

    data: a log as `paperlab.data.next_items` writes it: in the test part a user has one item that came
        next and one that did not. length: the most recent events of a history that models see.
    Other arguments: see `paperlab.scoring.clicks.score`.
    Raises ValueError for another test part.
    """
    checks.whole(length=length)
    data = recent(data, length)
    popular = wins(popularity(data), data.test)
    picked = sample(len(popular), JUDGED)
    rows, units = [], {}
    terms = {"rates": rates, "epochs": epochs, "patience": patience, "batch_size": batch_size}
    for row, model in trained(data, contenders, budget, seeds, **terms):
        right = wins(model.predict(data.test), data.test)
        rows.append(row | {"gauc": float(right.mean())})
        units[row["model"], row["seed"]] = right[picked]
        tell(told(row, "GAUC", right.mean()))
    for seed in seeds:
        units["popularity", seed] = popular[picked]
        rows.append({"model": "popularity", "seed": seed, "log": data.name, "lr": None, "dense": 0})
        rows[-1] |= {"gauc": float(popular.mean()), "seconds": 0.0, "edge": False}
    return Scores(
        rows,
        "gauc",
        units,
        "two-level",
        [0.5, "popularity"],
        columns=("dense", "lr", "seconds"),
        notes=at_edges(rows),
    )


def recent(log: Log, length: int) -> Log:
    """The log with at most the last ``length`` events of each history."""
    short = min(length, log.schema.length)
    fields = tuple(replace(f, length=short) if f.length else f for f in log.schema.fields)
    parts = {part: replace(getattr(log, part), length=short) for part in SPLITS}
    return replace(log, schema=replace(log.schema, fields=fields), **parts)


def popularity(log: Log) -> Float[Tensor, " n"]:
    """How often each test row's item came next in the training part."""
    train = log.train.take(slice(None))
    items = train.ids[train.labels[:, 0] > 0, 0].long()
    times = items.bincount(minlength=log.schema.categorical[0].size)
    return times[log.test.take(slice(None)).ids[:, 0].long()].float()


def wins(scores: Float[Tensor, " n"], test: Split) -> Float[np.ndarray, " users"]:
    """1 for each user whose next item scores higher than the other, 1/2 for a tie, else 0.

    Users in the order of their keys. Raises ValueError where a user has other rows than these two.
    """
    order = test.users.argsort(stable=True) if test.users is not None else None
    labels = test.labels[:, 0]
    if order is None or 2 * int(labels.sum()) != len(labels):
        raise ValueError("the test part must hold one next item and one other for each user")
    ahead, behind = (scores[order][labels[order] == k] for k in (1, 0))
    users = [test.users[order][labels[order] == k] for k in (1, 0)]
    if not torch.equal(*users):
        raise ValueError("the test part must hold one next item and one other for each user")
    return ((ahead > behind).double() + 0.5 * (ahead == behind)).numpy()
