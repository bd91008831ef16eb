"""Rows of fields with outcomes: a funnel of labels, an amount, a conversion that may come late.

What a row's labels are, `paperlab.data.own.labels` says. Fields, buckets and parts are those of
`paperlab.data.recipe`, but the rows are held in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from ... import checks
from .. import recipe as recipes
from ..recipe import TIME, Recipe
from ..schema import Field, Schema
from ..sources import Source, aside, rejected_rows
from ..store import SPLITS, Log, from_arrays, open_store, save
from . import infer
from . import labels as labels_of
from .infer import Names

Outcomes = Callable[[pl.DataFrame], tuple[pl.DataFrame, pl.Series]]
Arrange = Callable[[pl.DataFrame, pl.DataFrame, Recipe], tuple[pl.DataFrame, np.ndarray, Recipe]]

FINE = "\0fine"  # a label that every row has: `recipe.clean` wants one
TOLERATED = 0.1  # share of the sample that may be unusable


@dataclass(frozen=True)
class Plan:
    """How each column is used, and the sample from which that was inferred.

    outcomes: labels of rows of text, and a reason for each row that cannot be used, else "".
    judged: the labels that must differ within each part.
    notes: what the set's own notes say besides.
    keys: columns that are no fields and that ``arrange`` reads.
    arrange: from all clean rows, their labels and the recipe to rows with more numbers, the part of
        each row, and the recipe that says so; None for the parts of the recipe.
    """

    outcomes: Outcomes
    judged: tuple[str, ...]
    recipe: Recipe
    seed: int
    columns: list[infer.Column]
    sample: pl.DataFrame
    notes: dict = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    arrange: Arrange | None = None


def amounts(
    source: Source,
    *,
    amount: str = "amount",
    length: str | None = None,
    user: str | None = None,
    time: str | None = None,
    numeric: Names = (),
    categorical: Names = (),
    drop: Names = (),
    split: Literal["time", "user", "random"] | None = None,
    min_count: int = 2,
    seed: int = 0,
) -> Plan:
    """Plan a log of amounts, such as seconds watched.

    amount: a column of numbers, at least 0.
    length: a column of numbers above 0, such as a video's seconds: a numeric field whatever it holds.
    Other options: see `paperlab.data.own.clicks.plan`.
    Raises ValueError for columns that are not there, amounts that are not, and no field left.
    """
    roles = {"amount": amount, "length": length, "user": user, "time": time}
    options = {"numeric": numeric, "categorical": categorical, "drop": drop}
    fields = {"split": split, "min_count": min_count, "seed": seed}
    return planned(
        source, partial(labels_of.amount, amount, length), (amount,), roles, options, **fields
    )


def funnel(
    source: Source,
    *,
    labels: str = "click,order",
    user: str | None = None,
    time: str | None = None,
    numeric: Names = (),
    categorical: Names = (),
    drop: Names = (),
    split: Literal["time", "user", "random"] | None = None,
    min_count: int = 2,
    seed: int = 0,
) -> Plan:
    """Plan a log of impressions with several labels, from dense to sparse.

    labels: two or more columns of 0 and 1; a later one is 1 only where all before it are.
    Other options: see `paperlab.data.own.clicks.plan`.
    Raises ValueError for columns that are not there, labels that are not 0 and 1, and no field left.
    """
    names = infer.listed(labels)
    if len(names) < 2:
        raise ValueError(f"--labels {','.join(names)}: name two columns or more, dense to sparse")
    roles = {"labels": names, "user": user, "time": time}
    options = {"numeric": numeric, "categorical": categorical, "drop": drop}
    fields = {"split": split, "min_count": min_count, "seed": seed}
    return planned(source, partial(labels_of.funnel, names), names, roles, options, **fields)


def delays(
    source: Source,
    *,
    click: str = "click",
    conversion: str = "conversion",
    end: str = "end",
    days: int = 7,
    user: str | None = None,
    time: str | None = None,
    numeric: Names = (),
    categorical: Names = (),
    drop: Names = (),
    split: Literal["user", "random"] | None = None,
    min_count: int = 2,
    seed: int = 0,
) -> Plan:
    """Plan a log of clicks whose conversions may come late.

    A day is 24 hours, counted back from the end of the observation. The log holds the rows of which
    ``days`` days and more are known, as a training run ``days`` days before the end would have them,
    and what came of them. Labels: click; conversion within ``days`` days; its delay in days, 0 without;
    and the days from the click to that training run, at most ``days``.

    click, conversion: columns of times: seconds, milliseconds or microseconds, or ISO dates; the
        conversion's is empty where there was none.
    end: until when conversions were recorded: a column of times, or one time.
    days: within which a conversion counts.
    time: column of the impression's time; with it, rows without a click are impressions that train.
    split: 8:1:1 by a hash of the user, or at random without one.
    Other options: see `paperlab.data.own.clicks.plan`.
    Raises ValueError for columns that are not there, columns without times, and no field left.
    """
    split = split or ("user" if user else "random")
    checks.one_of(("user", "random"), split=split)
    fixed = None if end in source.columns else labels_of.seconds(pl.Series([str(end)]))[0]
    last = end if fixed is None else fixed
    roles = {"click": click, "conversion": conversion, "user": user, "time": time}
    roles |= {"end": end} if fixed is None else {}
    options = {"numeric": numeric, "categorical": categorical, "drop": drop}
    young = f"less than {days} days before the end"
    fields = {"split": split, "min_count": min_count, "seed": seed}
    fields |= {"expected": young, "notes": {"days": days}}
    outcomes = partial(labels_of.delay, click, conversion, time, last, days, young)
    return planned(source, outcomes, (conversion,), roles, options, **fields)


def planned(
    source: Source,
    outcomes: Outcomes,
    judged: tuple[str, ...],
    roles: dict[str, str | tuple[str, ...] | None],
    lists: dict[str, Names],
    *,
    split: str | None,
    min_count: int,
    seed: int,
    expected: str = "",
    notes: dict | None = None,
    keys: tuple[str, ...] = (),
    arrange: Arrange | None = None,
) -> Plan:
    """A plan from the columns of each role and the lists ``numeric``, ``categorical`` and ``drop``.

    expected: a reason for which many rows may be set aside. Other options: of the recipe and of `Plan`.
    Raises ValueError as `amounts` does.
    """
    lists = {option: infer.listed(names) for option, names in lists.items()}
    infer.named(source.columns, **roles, **lists)
    sample = infer.sample(source)
    kinds = {}
    for role, names in roles.items():
        kinds |= dict.fromkeys((names,) if isinstance(names, str) else names or (), role)
    refuse_sample(sample.select(*kinds), outcomes, expected)
    columns = infer.columns(sample, kinds, **lists)
    user, length = roles["user"], roles.get("length")
    fields = (
        *((user,) if user and user not in keys else ()),
        *infer.of_kind(columns, "categorical"),
    )
    numbers = (*((length,) if length else ()), *infer.of_kind(columns, "numeric"))
    if not fields + numbers + keys and not infer.of_kind(columns, "text"):
        raise ValueError("no column is left as a field: name some in --categorical or --numeric")
    time = roles.get("time")
    recipe = Recipe(
        FINE,
        fields,
        min_count=min_count,
        user=user,
        numeric=numbers,
        split=split or ("time" if time else "user" if user else "random"),
        time=time,
    )
    return Plan(outcomes, judged, recipe, seed, columns, sample, notes or {}, keys, arrange)


def refuse_sample(sample: pl.DataFrame, outcomes: Outcomes, expected: str = "") -> None:
    """Raise ValueError where more than a tenth of the sample cannot be used for an unexpected reason."""
    _, reasons = outcomes(sample)
    bad = reasons.filter((reasons != "") & (reasons != expected))
    if len(bad) > TOLERATED * len(reasons):
        why = bad.mode().sort()[0]
        first = sample.row(reasons.to_list().index(why), named=True)
        shown = ", ".join(f"{column} {value!r}" for column, value in first.items())
        raise ValueError(
            f"{len(bad):,} of the first {len(reasons):,} rows cannot be used: {why} ({shown})"
        )


def make(plan: Plan, source: Source, folder: Path, notes: dict) -> None:
    """Write the log's store, rejected.tsv and notes.json at ``folder``.

    Raises ValueError for columns of text, for too few rows, and where an outcome of a part is one value.
    """
    infer.refuse_text(plan.columns)
    pieces, found, places, lost = [], [], [], []
    for chunk in source.chunks():
        frame = chunk.frame.with_columns(pl.all().fill_null(""))
        labels, reasons = plan.outcomes(frame)
        usable = reasons == ""
        rejected = chunk.rejected + rejected_rows(frame, chunk.lines, reasons)
        good = frame.filter(usable).with_columns(pl.lit("1").alias(FINE))
        left = replace(chunk, frame=good, lines=chunk.lines[usable.to_numpy()], rejected=rejected)
        rows, lines, rejected = recipes.clean(left, plan.recipe)
        pieces.append(
            rows.select(sorted({*rows.columns} & {TIME, *plan.keys, *plan.recipe.needed}))
        )
        found.append(labels.filter(np.isin(chunk.lines, lines)))
        places.append(lines)
        lost += rejected
    rows, labels, lines = pl.concat(pieces), pl.concat(found), np.concatenate(places)
    if not rows.height:
        raise ValueError(f"no row could be used: line {lost[0][0] + 1}: {lost[0][1]}")
    log = _log(plan, folder.name, rows, labels, lines, notes, len(lost))
    save(log, folder)
    if lost:
        (folder / "rejected.tsv").write_bytes(aside(sorted(lost)))


def read(folder: Path, name: str) -> Log:
    """The log of a store that `make` wrote."""
    return open_store(folder, name)


def _log(
    plan: Plan,
    name: str,
    rows: pl.DataFrame,
    labels: pl.DataFrame,
    lines: np.ndarray,
    notes: dict,
    rejected: int,
) -> Log:
    """Ids, buckets and parts of clean rows; vocabularies and buckets are the training part's."""
    what = plan.recipe
    if plan.arrange:
        rows, part, what = plan.arrange(rows, labels, what)
    else:
        cuts = recipes.cut(rows[TIME].to_numpy()) if what.split == "time" else None
        part = recipes.parts(rows, lines, what, plan.seed, cuts)
    counts = np.bincount(part, minlength=3).tolist()
    if not all(counts):
        raise ValueError(
            f"{name}: {len(part)} rows are too few to fill all three parts by {what.split}"
        )
    train = part == 0
    ids, fields = [], []
    for c in what.categorical:
        known = vocabulary(rows[c].filter(train), what.min_count)
        ids.append(ids_of(rows[c], known))
        fields.append(Field(c, size=known.height + 1))
    for c in what.numeric:
        ends = recipes.edges(rows[c].filter(train).to_numpy())
        ids.append(recipes.bucket_ids(rows[c].to_numpy(), ends))
        fields.append(Field(c, size=len(ends) + 2))
    users = None
    if what.user:
        keys = ids_of(rows[what.user], rows[what.user].unique().sort().to_frame("value")) - 1
        users = np.where((rows[what.user] == "").to_numpy(), -1 - lines, keys)
    notes = notes | plan.notes | {
        "split": what.split,
        "dropped": {c.name: c.why for c in plan.columns if c.kind == "dropped"},
        "rows": dict(zip(SPLITS, counts, strict=True)),
        "rejected": rejected,
        "missing": {c: int(rows[c].is_nan().sum()) for c in plan.recipe.numeric},
    }  # fmt: skip
    of_user = what.user if what.user in what.categorical else None
    schema = Schema(tuple(fields), tuple(labels.columns), of_user)
    values = labels.to_numpy().astype(np.float32)
    log = from_arrays(name, schema, np.stack(ids, 1), values, part, users=users, notes=notes)
    _refuse_constants(log, plan.judged)
    return log


def _refuse_constants(log: Log, judged: tuple[str, ...]) -> None:
    for part in SPLITS:
        labels = dict(zip(log.schema.labels, getattr(log, part).labels.T, strict=True))
        for name in judged:
            if len(labels[name].unique()) < 2:
                raise ValueError(
                    f"all {len(labels[name]):,} rows of the {part} part have {name} "
                    f"{labels[name][0]:g}: nothing can be measured; try another --split, or more rows"
                )


def vocabulary(values: pl.Series, least: int) -> pl.DataFrame:
    """Values that occur at least ``least`` times, most frequent first."""
    counts = values.alias("value").value_counts(name="n").filter(pl.col("n") >= least)
    return counts.sort(["n", "value"], descending=[True, False]).select("value")


def ids_of(values: pl.Series, known: pl.DataFrame) -> np.ndarray:
    """1, 2, ... by the place of each value among the known ones; 0 where it is none of them."""
    places = known.with_row_index("id", offset=1)
    found = values.to_frame("value").join(places, on="value", how="left", maintain_order="left")
    return found["id"].fill_null(0).cast(pl.Int64).to_numpy()
