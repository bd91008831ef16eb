"""Requests: what was shown to a user at one moment, a row a candidate."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ... import checks
from .. import recipe as recipes
from ..sources import Source, aside, rejected_rows
from ..store import SPLITS
from . import infer, outcomes
from . import labels as labels_of
from .infer import Names

if TYPE_CHECKING:
    from jaxtyping import Float, Int

WIDEST = 20  # values of a category that have a column each
OWN = ("request", "user", "item", "time", "label", "part")
LABEL, TIME, LINE, FIRST = "\0label", "\0time", "\0line", "\0first"  # beside a source's columns


@dataclass(frozen=True)
class ShownRequests:
    """Candidates, a row each: requests in the order of time, their candidates in that of the file.

    request: 0, 1, ... user: ids from 0. item: ids from 2; 1 is all items that are rare in training.
    time: of the request, its earliest row's, in seconds. label: 0 or 1. part: 0, 1, 2 for training,
    validation and test, one a request. features: of the candidate; columns: their names.
    """

    name: str
    request: Int[np.ndarray, " n"]
    user: Int[np.ndarray, " n"]
    item: Int[np.ndarray, " n"]
    time: Float[np.ndarray, " n"]
    label: Float[np.ndarray, " n"]
    part: Int[np.ndarray, " n"]
    features: Float[np.ndarray, "n k"]
    columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.request)

    def __repr__(self) -> str:
        sizes = np.bincount(self.request)
        none = (np.bincount(self.request, self.label) == 0).sum()
        return (
            f"ShownRequests({self.name}: {len(self):,} candidates in {len(sizes):,} requests of "
            f"{len(np.unique(self.user)):,} users; {(sizes == 1).sum():,} requests have one "
            f"candidate, {none:,} no positive)"
        )


@dataclass(frozen=True)
class Plan:
    """How each column is used, and the sample from which that was inferred."""

    roles: dict[str, str]
    min_count: int
    columns: list[infer.Column]
    sample: pl.DataFrame

    @property
    def outcomes(self) -> Callable[[pl.DataFrame], tuple[pl.DataFrame, pl.Series]]:
        """Labels of rows of text, and a reason for each row that cannot be used."""
        names = [self.roles[role] for role in ("request", "user", "item", "time", "label")]
        return partial(labels_of.candidate, *names)


def requests(
    source: Source,
    *,
    request: str = "request",
    user: str = "user",
    item: str = "item",
    time: str = "time",
    label: str = "label",
    numeric: Names = (),
    categorical: Names = (),
    drop: Names = (),
    min_count: int = 2,
) -> Plan:
    """Plan a log of requests; 8:1:1 of them by time, the latest last, are its parts.

    request, user, item: columns. time: seconds, milliseconds or microseconds, or ISO dates.
    label: a column of 0 and 1. All further columns are the candidate's features: numbers are
        standardised (0 where missing), of a category the 20 most frequent values are one-hot.
    min_count: training rows below which an item, and a category's value, counts as rare.
    Other options: see `paperlab.data.own.clicks.plan`.
    Raises ValueError for columns that are not there, and where most rows cannot be used.
    """
    checks.whole(min_count=min_count)
    roles = {"request": request, "user": user, "item": item, "time": time, "label": label}
    lists = {"numeric": numeric, "categorical": categorical, "drop": drop}
    lists = {option: infer.listed(names) for option, names in lists.items()}
    infer.named(source.columns, **roles, **lists)
    sample = infer.sample(source)
    kinds = {column: role for role, column in roles.items()}
    plan = Plan(roles, min_count, infer.columns(sample, kinds, **lists), sample)
    outcomes.refuse_sample(sample.select(*kinds), plan.outcomes)
    return plan


def make(plan: Plan, source: Source, folder: Path, notes: dict) -> None:
    """Write requests.parquet, rejected.tsv and notes.json at ``folder``.

    Set aside, besides rows that cannot be used: requests of several users, and an item's second row
    in a request.
    Raises ValueError for columns of text, for too few times, and where a part has labels of one value.
    """
    infer.refuse_text(plan.columns)
    pieces, lost = [], []
    for chunk in source.chunks():
        frame = chunk.frame.with_columns(pl.all().fill_null(""))
        labels, reasons = plan.outcomes(frame)
        times = labels_of.seconds(frame[plan.roles["time"]])
        lost += chunk.rejected + rejected_rows(frame, chunk.lines, reasons)
        own = {LABEL: labels.to_series(), TIME: times, LINE: pl.Series(chunk.lines)}
        pieces.append(frame.with_columns(**own).filter(reasons == ""))
    rows = pl.concat(pieces)
    reasons = _of_requests(rows, plan.roles)
    lost += rejected_rows(rows.select(source.columns), rows[LINE].to_numpy(), reasons)
    rows = rows.filter(reasons == "")
    if not rows.height:
        raise ValueError(f"no row could be used: line {lost[0][0] + 1}: {lost[0][1]}")
    table, missing = _table(rows, plan)
    folder.mkdir(parents=True, exist_ok=True)
    table.write_parquet(folder / "requests.parquet")
    if lost:
        (folder / "rejected.tsv").write_bytes(aside(sorted(lost)))
    notes = notes | {
        "split": "time",
        "dropped": {c.name: c.why for c in plan.columns if c.kind == "dropped"},
        "rows": {name: int((table["part"] == k).sum()) for k, name in enumerate(SPLITS)},
        "rejected": len(lost),
        "missing": missing,
    }
    (folder / "notes.json").write_text(json.dumps(notes, indent=1))


def read(folder: Path, name: str) -> ShownRequests:
    """The requests that `make` wrote."""
    table = pl.read_parquet(folder / "requests.parquet")
    features = table.drop(OWN)
    values = features.to_numpy() if features.width else np.empty((table.height, 0), np.float32)
    columns = tuple(c.partition(" ")[2] for c in features.columns)  # they are numbered
    return ShownRequests(name, *(table[c].to_numpy() for c in OWN), values, columns)


def _of_requests(rows: pl.DataFrame, roles: dict[str, str]) -> pl.Series:
    """Why rows cannot stay in their request, else ""."""
    users = pl.col(roles["user"]).n_unique().over(roles["request"])
    again = ~pl.struct(roles["request"], roles["item"]).is_first_distinct()
    reason = (
        pl.when(users > 1)
        .then(pl.lit(f"{roles['request']} of several users"))
        .when(again)
        .then(pl.lit(f"{roles['item']} again in its {roles['request']}"))
        .otherwise(pl.lit(""))
    )
    return rows.select(reason.alias("reason")).to_series()


def _table(rows: pl.DataFrame, plan: Plan) -> tuple[pl.DataFrame, dict[str, int]]:
    """The columns of `ShownRequests`, and how many values of each numeric column are missing."""
    names = plan.roles
    begin, first = (pl.col(c).min().over(names["request"]) for c in (TIME, LINE))
    rows = rows.with_columns(begin.alias(TIME), first.alias(FIRST)).sort(TIME, FIRST, LINE)
    begins = rows[TIME].to_numpy()
    opens = rows[FIRST].to_numpy()
    request = np.cumsum(np.diff(opens, prepend=opens[0]) != 0)
    part = np.searchsorted(recipes.cut(begins[rows[FIRST] == rows[LINE]]), begins, side="right")
    label = rows[LABEL].to_numpy().astype(np.float32)
    for k, name in enumerate(SPLITS):
        if len(set(label[part == k])) < 2:
            raise ValueError(
                f"all {(part == k).sum():,} rows of the {name} part have {names['label']} "
                f"{label[part == k][0]:g}: nothing can be measured"
            )

    def known(values: pl.Series) -> pl.DataFrame:
        return outcomes.vocabulary(values.filter(part == 0), plan.min_count)

    user = rows[names["user"]].rank("dense").to_numpy().astype(np.int64) - 1
    item = 1 + outcomes.ids_of(rows[names["item"]], known(rows[names["item"]]))
    own = dict(zip(OWN, (request, user, item, begins, label, part), strict=True))
    missing = {}
    for c in infer.of_kind(plan.columns, "numeric"):
        value = labels_of.number(rows[c]).fill_null(float("nan")).to_numpy()
        missing[c] = int(np.isnan(value).sum())
        own[f"{len(own)} {c}"] = recipes.standardised(value, value[part == 0]).astype(np.float32)
    for c in infer.of_kind(plan.columns, "categorical"):
        for value in known(rows[c])["value"].head(WIDEST):
            own[f"{len(own)} {c}={value}"] = (rows[c] == value).to_numpy().astype(np.float32)
    return pl.DataFrame(own), missing
