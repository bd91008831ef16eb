"""Sequences: interactions of users with items, as a next-item log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from .. import next_items
from ..interactions import Interactions
from ..next_items import LENGTH
from ..sources import Source, moments
from ..store import Log
from . import infer

TICKS = ((1e14, 1_000_000), (1e11, 1000))  # from this number on a time is in microseconds, in ms


@dataclass(frozen=True)
class Plan:
    """The columns of the interactions, and the sample from which the clock was inferred."""

    what: Interactions
    seed: int
    columns: list[infer.Column]
    sample: pl.DataFrame


def plan(
    source: Source,
    *,
    user: str = "user",
    item: str = "item",
    time: str = "time",
    category: str | None = None,
    behaviour: str | None = None,
    seed: int = 0,
) -> Plan:
    """Check the columns and infer the unit of time.

    user, item, category: their columns; an item has the category of its first event.
    time: a column of numbers (seconds, or milliseconds or microseconds where they are that large) or
        ISO dates; "" where the rows are in order of time and hold none.
    behaviour: COLUMN=VALUE of the events that count; all of them without.
    seed: of ties in time and of negatives.
    Raises ValueError for columns that are not there.
    """
    only = None
    if behaviour is not None:
        column, mark, value = behaviour.partition("=")
        if not mark:
            raise ValueError(f"--behaviour {behaviour}: write COLUMN=VALUE")
        only = (column, value)
    roles = {"user": user, "item": item, "time": time or None, "category": category}
    infer.named(source.columns, **roles, behaviour=only and only[0])
    sample = infer.sample(source)
    if only and only[1] not in set(sample[only[0]]):
        known = ", ".join(sample[only[0]].unique().sort().head(10))
        raise ValueError(f"--behaviour {behaviour}: {only[0]} holds {known}")
    ticks = 1
    if time:
        if (middle := moments(sample[time]).median()) is None:
            raise ValueError(f"--time {time} holds neither numbers nor ISO dates")
        ticks = next((t for least, t in TICKS if middle > least), 1)
    kinds = {c: role for role, c in roles.items() if c} | ({only[0]: "behaviour"} if only else {})
    unused = tuple(c for c in source.columns if c not in kinds)
    columns = infer.columns(sample, kinds, drop=unused)
    return Plan(
        Interactions(user, item, time or None, category, ticks, only=only), seed, columns, sample
    )


def make(plan: Plan, source: Source, folder: Path, notes: dict) -> None:
    """Write the log's store at ``folder``."""
    notes = notes | {"split": "each user's last items"}
    next_items.prepare(source, plan.what, folder, notes, plan.seed)


def read(
    folder: Path,
    name: str,
    *,
    length: int = LENGTH,
    negatives: Literal["uniform", "popular"] = "uniform",
) -> Log:
    """The next-item log.

    length: most recent events of a history that a row uses.
    negatives: how those of the test part are drawn.
    """
    return next_items.open_next_items(folder, name, length=length, negatives=negatives)
