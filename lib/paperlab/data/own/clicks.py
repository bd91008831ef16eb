"""Clicks: rows of fields with a label of 0 or 1, and a user where there is one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from ... import checks
from .. import prepare
from ..recipe import Recipe, label_of
from ..sources import Source
from ..store import SPLITS, Log, open_store
from . import infer
from .infer import Names


@dataclass(frozen=True)
class Plan:
    """How each column is used, and the sample from which that was inferred."""

    recipe: Recipe
    seed: int
    columns: list[infer.Column]
    sample: pl.DataFrame


def plan(
    source: Source,
    *,
    label: str = "label",
    user: str | None = None,
    time: str | None = None,
    numeric: Names = (),
    categorical: Names = (),
    drop: Names = (),
    split: Literal["time", "user", "random"] | None = None,
    label_threshold: float | None = None,
    min_count: int = 2,
    numbers: Literal["buckets", "standardised"] = "buckets",
    seed: int = 0,
) -> Plan:
    """Infer the kinds of the columns that no option names.

    label, user, time: their columns. numeric, categorical: columns whose kind is given.
    drop: columns to leave out.
    split: 8:1:1 by time, the latest rows last; by a hash of the user; or at random. By time where there
        is one, else by user where there is one.
    label_threshold: the label is 1 from this number on.
    min_count: occurrences in the training part below which a value has no id of its own.
    numbers: numeric columns as ids of buckets with equal counts, or as standardised numbers.
    seed: of the split by user or at random.
    Raises ValueError for columns that are not there, labels that are not 0 and 1, and no field left.
    """
    checks.one_of(("buckets", "standardised"), numbers=numbers)
    if label_threshold is not None:
        checks.inside("(-inf, inf)", label_threshold=label_threshold)
    lists = {"numeric": numeric, "categorical": categorical, "drop": drop}
    lists = {option: infer.listed(names) for option, names in lists.items()}
    infer.named(source.columns, label=label, user=user, time=time, **lists)
    sample = infer.sample(source)
    _check_labels(sample[label], label_threshold)
    roles = {c: role for role, c in (("label", label), ("user", user), ("time", time)) if c}
    columns = infer.columns(sample, roles, **lists)
    fields = (*((user,) if user else ()), *infer.of_kind(columns, "categorical"))
    numeric = infer.of_kind(columns, "numeric")
    if not fields + numeric and not infer.of_kind(columns, "text"):
        raise ValueError("no column is left as a field: name some in --categorical or --numeric")
    recipe = Recipe(
        label,
        fields,
        min_count=min_count,
        user=user,
        numeric=numeric,
        standardised=numbers == "standardised",
        split=split or ("time" if time else "user" if user else "random"),
        time=time,
        threshold=label_threshold,
    )
    return Plan(recipe, seed, columns, sample)


def make(plan: Plan, source: Source, folder: Path, notes: dict) -> None:
    """Write the log's store at ``folder``.

    Raises ValueError for columns of text, and where a part has one class only.
    """
    infer.refuse_text(plan.columns)
    dropped = {c.name: c.why for c in plan.columns if c.kind == "dropped"}
    notes = notes | {"split": plan.recipe.split, "dropped": dropped}
    prepare.prepare(source, plan.recipe, folder, notes, plan.seed)
    log = open_store(folder)
    for part in SPLITS:
        rows, positives = log.notes["rows"][part], log.notes["positives"][part]
        if positives in (0, rows):
            raise ValueError(
                f"all {rows:,} rows of the {part} part have the label {int(positives > 0)}: "
                "nothing can be measured; try another --split, or more rows"
            )


def read(folder: Path, name: str) -> Log:
    """The log of a store that `make` wrote."""
    return open_store(folder, name)


def _check_labels(labels: pl.Series, threshold: float | None) -> None:
    good = label_of(labels, threshold)
    if good.null_count() <= 0.01 * len(labels):
        return
    seen = labels.filter(good.is_null()).unique(maintain_order=True).head(5).to_list()
    seen = ", ".join(repr(s) for s in seen)
    if threshold is not None:
        raise ValueError(
            f"--label {labels.name}: {seen} is no number to hold against the threshold"
        )
    raise ValueError(
        f"--label {labels.name} must hold 0 and 1, or false and true; it holds {seen}"
        "; for grades, --label-threshold X makes 1 of every label from X on"
    )
