"""Preferences, bandit logs, judgments and problems: one table in memory, stored as parquet."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ..formats.preferences import checked
from ..kinds import BanditLog, Judgments, PreferenceTexts, Problems, SetAside
from ..recipe import LARGEST
from ..sources import Source, aside, rejected_rows
from . import infer
from .infer import Names

WIDEST = 100  # values of a column of the context that are one-hot


@dataclass(frozen=True)
class Plan:
    """The column of each of the kind's fields, and the sample that was looked at."""

    kind: str
    names: dict[str, str]
    columns: list[infer.Column]
    sample: pl.DataFrame


def preferences(
    source: Source, *, prompt: str = "prompt", chosen: str = "chosen", rejected: str = "rejected"
) -> Plan:
    """prompt, chosen, rejected: columns of texts."""
    return _plan("preferences", source, {"prompt": prompt, "chosen": chosen, "rejected": rejected})


def relevance(
    source: Source, *, query: str = "query", document: str = "document", grade: str = "grade"
) -> Plan:
    """query, document: columns of texts or ids. grade: a column of numbers."""
    return _plan("relevance", source, {"query": query, "document": document, "grade": grade})


def problems(source: Source, *, prompt: str = "prompt", answer: str = "answer") -> Plan:
    """prompt, answer: columns of texts."""
    return _plan("problems", source, {"prompt": prompt, "answer": answer})


def bandit(
    source: Source,
    *,
    action: str = "action",
    reward: str = "reward",
    propensity: str = "propensity",
    context: Names = (),
    drop: Names = (),
) -> Plan:
    """action: a column of ids. reward: numbers. propensity: probability of the action, in (0, 1].

    context: columns of the context, all others by default. Numbers stay as they are, texts of at most
        100 different values are one-hot. drop: columns to leave out.
    """
    names = {"action": action, "reward": reward, "propensity": propensity}
    context, drop = infer.listed(context), infer.listed(drop)
    if context:
        infer.named(source.columns, **names, context=context, drop=drop)
        drop = tuple(c for c in source.columns if c not in {*context, *names.values()})
    return _plan("bandit", source, names, drop)


def _plan(kind: str, source: Source, names: dict[str, str], drop: tuple[str, ...] = ()) -> Plan:
    infer.named(source.columns, **names, drop=drop)
    roles = {column: option for option, column in names.items()}
    if kind != "bandit":
        drop = tuple(c for c in source.columns if c not in roles)
    sample = infer.sample(source)
    return Plan(kind, names, infer.columns(sample, roles, drop=drop), sample)


def make(plan: Plan, source: Source, folder: Path, notes: dict) -> None:
    """Write table.parquet, rejected.tsv and notes.json at ``folder``.

    Raises ValueError for texts in a context, and where no row is good.
    """
    infer.refuse_text(plan.columns)
    pieces, lost = [], []
    for chunk in source.chunks():
        frame = chunk.frame.with_columns(pl.all().fill_null(""))
        good, reasons = _clean(frame, plan)
        pieces.append(good.filter(reasons == ""))
        lost += chunk.rejected + rejected_rows(frame, chunk.lines, reasons)
    table = pl.concat(pieces)
    if not table.height:
        raise ValueError(f"no row could be used: line {lost[0][0] + 1}: {lost[0][1]}")
    folder.mkdir(parents=True, exist_ok=True)
    table.write_parquet(folder / "table.parquet")
    if lost:
        (folder / "rejected.tsv").write_bytes(aside(lost))
    notes = notes | {"rows": table.height, "rejected": len(lost)}
    (folder / "notes.json").write_text(json.dumps(notes, indent=1))


def _clean(frame: pl.DataFrame, plan: Plan) -> tuple[pl.DataFrame, pl.Series]:
    """The kind's own columns, and a reason for each row that cannot be used."""
    names = plan.names
    columns = [frame[column].alias(own) for own, column in names.items()]
    reasons = pl.Series([""] * frame.height, dtype=pl.String)
    if plan.kind == "preferences":
        rows = (checked(row) for row in zip(*columns, strict=True))
        reasons = pl.Series([r if isinstance(r, str) else "" for r in rows], dtype=pl.String)
        return pl.DataFrame(columns), reasons
    numbers = {"relevance": ("grade",), "bandit": ("reward", "propensity")}.get(plan.kind, ())
    wrong = []
    for k, own in enumerate(names):
        if own in numbers:
            columns[k] = columns[k].str.strip_chars().cast(pl.Float64, strict=False)
            wrong.append((~_usable(columns[k]), f"{own} is not a finite number"))
        else:
            wrong.append((columns[k].str.strip_chars() == "", f"{own} is empty"))
        if own == "propensity":
            inside = (columns[k] > 0) & (columns[k] <= 1)
            wrong.append((~inside.fill_null(True), "propensity is not in (0, 1]"))
    if plan.kind == "bandit":
        for column in infer.of_kind(plan.columns, "numeric"):
            value = frame[column].str.strip_chars().cast(pl.Float64, strict=False)
            wrong.append((~_usable(value), f"{column} is not a finite number"))
            columns.append(value.alias(f"context {column}"))
        for column in infer.of_kind(plan.columns, "categorical"):
            columns.append(frame[column].alias(f"context {column}"))
    for is_wrong, why in reversed(wrong):
        reasons = pl.select(pl.when(is_wrong).then(pl.lit(why)).otherwise(reasons)).to_series()
    return pl.DataFrame(columns), reasons


def _usable(values: pl.Series) -> pl.Series:
    return (values.is_finite() & (values.abs() <= LARGEST)).fill_null(False)


def read(folder: Path, name: str) -> PreferenceTexts | BanditLog | Judgments | Problems:
    """The table that `make` wrote, as its kind."""
    kind = json.loads((folder / "notes.json").read_text())["kind"]
    frame, lost = pl.read_parquet(folder / "table.parquet"), _set_aside(folder)
    if kind == "preferences":
        return PreferenceTexts(name, tuple(frame.rows()), lost)
    if kind == "relevance":
        grade = frame["grade"].to_numpy()
        return Judgments(name, tuple(frame["query"]), tuple(frame["document"]), grade, lost)
    if kind == "problems":
        return Problems(name, tuple(frame["prompt"]), tuple(frame["answer"]), lost)
    actions = frame["action"].unique().sort()
    number = actions.cast(pl.Float64, strict=False)
    actions = actions[number.arg_sort()] if not number.null_count() else actions
    code = dict(zip(actions, range(len(actions)), strict=True))
    context = [_context(c) for c in frame if c.name.startswith("context ")]
    return BanditLog(
        name,
        np.hstack([np.empty((frame.height, 0)), *context]).astype(np.float32),
        frame["action"].replace_strict(code, return_dtype=pl.Int64).to_numpy(),
        frame["reward"].to_numpy(),
        frame["propensity"].to_numpy(),
        len(actions),
        np.zeros(frame.height, np.int64),
        np.empty((len(actions), 0), np.float32),
        lost,
    )


def _context(values: pl.Series) -> np.ndarray:
    if values.dtype != pl.String:
        return values.to_numpy()[:, None]
    known = values.unique().sort()
    if len(known) > WIDEST:
        column = values.name.removeprefix("context ")
        raise ValueError(
            f"{column} has {len(known):,} different values, too many for a context: --drop {column}"
        )
    return np.stack([(values == v).to_numpy() for v in known], 1)


def _set_aside(folder: Path) -> SetAside:
    path = folder / "rejected.tsv"
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    return tuple((int(n), why) for n, why, *_ in (line.split("\t") for line in lines))
