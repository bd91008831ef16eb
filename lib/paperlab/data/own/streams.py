"""Events of users and items in the order of time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ..sources import Source, aside, rejected_rows
from . import infer, outcomes
from . import labels as labels_of

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class EventStream:
    """Events, oldest first; those of one moment in the order of the file.

    pairs: ids of user and item, which start at 1 in the order of the texts. labels: 0 and 1; None where
    every row is an event.
    """

    name: str
    pairs: Int[np.ndarray, "n 2"]
    labels: Float[np.ndarray, " n"] | None = None

    def __repr__(self) -> str:
        users, items = (len(np.unique(column)) for column in self.pairs.T)
        what = "events" if self.labels is None else "rows with labels"
        return f"EventStream({self.name}: {len(self.pairs):,} {what}, {users:,} users, {items:,} items)"


@dataclass(frozen=True)
class Plan:
    """The columns by role, and the sample that was looked at."""

    roles: dict[str, str]
    columns: list[infer.Column]
    sample: pl.DataFrame

    @property
    def outcomes(self) -> outcomes.Outcomes:
        """Labels of rows of text, and a reason for each row that cannot be used."""
        names = [self.roles.get(role) for role in ("user", "item", "time", "label")]
        return partial(labels_of.event, *names)


def stream(
    source: Source,
    *,
    user: str = "user",
    item: str = "item",
    time: str = "time",
    label: str | None = None,
) -> Plan:
    """Plan a stream of events.

    user, item: columns. time: seconds, milliseconds or microseconds, or ISO dates.
    label: a column of 0 and 1; without one every row is an event, such as a purchase.
    Raises ValueError for columns that are not there, and where most rows cannot be used.
    """
    roles = {"user": user, "item": item, "time": time} | ({"label": label} if label else {})
    infer.named(source.columns, **roles)
    sample = infer.sample(source)
    kinds = {column: role for role, column in roles.items()}
    rest = tuple(c for c in source.columns if c not in kinds)
    plan = Plan(roles, infer.columns(sample, kinds, drop=rest), sample)
    outcomes.refuse_sample(sample.select(*kinds), plan.outcomes)
    return plan


def make(plan: Plan, source: Source, folder: Path, notes: dict) -> None:
    """Write stream.parquet, rejected.tsv and notes.json at ``folder``.

    Raises ValueError where no row can be used, and for labels of one value.
    """
    pieces, lost = [], []
    for chunk in source.chunks():
        frame = chunk.frame.with_columns(pl.all().fill_null(""))
        labels, reasons = plan.outcomes(frame)
        own = {role: frame[plan.roles[role]] for role in ("user", "item")}
        own |= {"time": labels_of.seconds(frame[plan.roles["time"]]), "line": chunk.lines}
        if "label" in plan.roles:
            own["label"] = labels.to_series()
        pieces.append(pl.DataFrame(own).filter(reasons == ""))
        lost += chunk.rejected + rejected_rows(frame, chunk.lines, reasons)
    rows = pl.concat(pieces).sort("time", "line")
    if not rows.height:
        raise ValueError(f"no row could be used: line {lost[0][0] + 1}: {lost[0][1]}")
    if "label" in plan.roles and rows["label"].n_unique() < 2:
        name = plan.roles["label"]
        raise ValueError(
            f"all {rows.height:,} rows have {name} {rows['label'][0]}: nothing can be measured; "
            "where every row is an event, leave --label out"
        )
    ids = (pl.col("user", "item").rank("dense").cast(pl.Int32), pl.col("^label$"))
    folder.mkdir(parents=True, exist_ok=True)
    rows.select(*ids).write_parquet(folder / "stream.parquet")
    if lost:
        (folder / "rejected.tsv").write_bytes(aside(sorted(lost)))
    notes = notes | {"rows": rows.height, "rejected": len(lost)}
    (folder / "notes.json").write_text(json.dumps(notes, indent=1))


def read(folder: Path, name: str) -> EventStream:
    """The stream that `make` wrote."""
    table = pl.read_parquet(folder / "stream.parquet")
    labels = table["label"].to_numpy().astype(np.float32) if "label" in table.columns else None
    return EventStream(name, table.select("user", "item").to_numpy().astype(np.int64), labels)
