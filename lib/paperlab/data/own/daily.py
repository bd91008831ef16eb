"""Clicks by day: fields, what earlier days say of the user and of the item, and later days to judge."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl

from ... import checks
from ..recipe import Recipe
from ..sources import Source
from . import infer, outcomes
from . import labels as labels_of
from .infer import Names


def daily(
    source: Source,
    *,
    label: str = "click",
    user: str = "user",
    item: str = "item",
    time: str = "time",
    days: int = 3,
    user_fields: Names = (),
    numeric: Names = (),
    categorical: Names = (),
    drop: Names = (),
    min_count: int = 2,
) -> outcomes.Plan:
    """Plan a log of clicks by day (UTC): the last days test, a third as many before them validate.

    User and item are no fields. Instead, the rows that each had on the days before a row's own, and the
    share of them with the label, are numeric fields, missing on its first day. `Log.notes` has the
    fields of the user's ``side``, and the ordered ``statistics``: these four and all other numbers.

    label: a column of 0 and 1. user, item: columns. time: seconds, milliseconds or microseconds, or ISO
        dates.
    days: that are tested, of those that have rows.
    user_fields: columns that belong to the user; all other fields belong to the item.
    Other options: see `paperlab.data.own.clicks.plan`.
    Raises ValueError for columns that are not there, and a user field that is no field.
    """
    checks.whole(days=days)
    roles = {"label": label, "user": user, "item": item, "time": time}
    lists = {"numeric": numeric, "categorical": categorical, "drop": drop}
    past = {key: (f"past {key} rows", f"past {key} {label}") for key in (user, item)}
    plan = outcomes.planned(
        source,
        partial(labels_of.event, user, item, time, label),
        (label,),
        roles,
        lists,
        split="time",
        min_count=min_count,
        seed=0,
        keys=(user, item),
        arrange=partial(arranged, label=label, past=past, days=days),
    )
    own, fields = infer.listed(user_fields), (*plan.recipe.categorical, *plan.recipe.numeric)
    for name in own:
        if name not in fields:
            raise ValueError(
                f"--user-fields {name}: no field; there are: {', '.join(fields) or 'none'}"
            )
    statistics = [*plan.recipe.numeric, *past[user], *past[item]]
    return replace(plan, notes={"side": [*own, *past[user]], "statistics": statistics})


def arranged(
    rows: pl.DataFrame,
    labels: pl.DataFrame,
    recipe: Recipe,
    *,
    label: str,
    past: dict[str, tuple[str, str]],
    days: int,
) -> tuple[pl.DataFrame, np.ndarray, Recipe]:
    """`outcomes.Plan.arrange`. past: key -> the names of its numbers.

    Raises ValueError where there are too few days.
    """
    day = labels_of.seconds(rows[recipe.time]) // labels_of.DAY
    known = day.unique().sort()
    before = max(1, days // 3)
    if len(known) < days + before + 2:
        raise ValueError(
            f"{len(known)} days are too few: {days} to test, {before} to validate and two to train"
        )
    for key, names in past.items():
        table = pl.DataFrame({"key": rows[key], "day": day, "label": labels[label]})
        found = earlier(table)
        found.columns = names
        rows = rows.hstack(found)
    valid, test = known[-days - before], known[-days]
    part = (day >= valid).cast(int) + (day >= test).cast(int)
    numeric = (*recipe.numeric, *(name for names in past.values() for name in names))
    return rows, part.to_numpy(), replace(recipe, numeric=numeric)


def earlier(table: pl.DataFrame) -> pl.DataFrame:
    """For each row of key, day and label: rows of its key on earlier days, and the share with the label.

    NaN where there are none.
    """
    sums = table.group_by("key", "day").agg(
        pl.len().cast(float).alias("rows"), pl.col("label").sum()
    )
    before = {c: (pl.col(c).cum_sum() - pl.col(c)).over("key") for c in ("rows", "label")}
    counted = pl.when(before["rows"] > 0).then(before["rows"]).otherwise(float("nan"))
    sums = sums.sort("key", "day").select(
        "key", "day", counted.alias("rows"), (before["label"] / counted).alias("share")
    )
    found = table.join(sums, on=["key", "day"], how="left", maintain_order="left")
    return found.select("rows", "share")
