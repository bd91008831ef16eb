"""A table in memory as a set of one of the kinds; nothing is left on disk."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from .. import catalogue
from ..kinds import BanditLog, Judgments, PreferenceTexts, Problems
from ..sources import FrameSource
from ..store import OPTIONAL, SPLITS, Events, Log
from . import shelf
from .requests import ShownRequests
from .streams import EventStream


def from_frame(
    frame, kind: str = "clicks", *, name: str = "frame", **options
) -> Log | PreferenceTexts | BanditLog | Judgments | Problems | EventStream | ShownRequests:
    """What `paperlab.data.from_frame` returns."""
    later = {"length", "negatives"} & set(options) if kind == "sequences" else set()
    reading = {option: options.pop(option) for option in later}
    shelf.check_kind(kind, options)
    _, make, read = shelf.KINDS[kind]
    catalogue.check_options(kind, read, reading)
    source = FrameSource(_flat(_polars(frame)))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "x", name)
        target.parent.mkdir()
        plan = shelf.plan(source, kind, **options)
        make(plan, source, target, {"kind": kind, "options": options})
        made = read(target, name, **reading)
        return _in_memory(made) if isinstance(made, Log) else made


def _polars(frame) -> pl.DataFrame:
    """A polars or pandas table or a mapping of columns, as polars without pandas' index."""
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, Mapping):
        columns = {str(name): values for name, values in frame.items()}
    elif hasattr(frame, "columns") and hasattr(frame, "notna"):  # pandas, which is not imported
        if not frame.columns.is_unique:
            raise ValueError("columns occur twice: name each column of the frame once")
        whole = frame.astype(object).where(frame.notna(), None)
        columns = {str(name): whole[name].tolist() for name in frame.columns}
    else:
        kind = type(frame).__name__
        raise ValueError(f"a polars or pandas frame or a dict of columns is needed, not {kind}")
    try:
        return pl.DataFrame({name: _series(values) for name, values in columns.items()})
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"the columns make no table: {error}") from None


def _series(values) -> pl.Series:
    try:
        return pl.Series(values=values, strict=True)
    except (TypeError, pl.exceptions.PolarsError):  # of several types
        return pl.Series([None if v is None else str(v) for v in values], dtype=pl.String)


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Without columns of lists, structs, objects and bytes."""
    nested = [n for n, t in frame.schema.items() if t.is_nested() or t in (pl.Object, pl.Binary)]
    if nested:
        warnings.warn(f"columns of lists are left out: {', '.join(nested)}", stacklevel=4)
    return frame.drop(nested)


def _in_memory(log: Log) -> Log:
    """A copy whose columns do not need their files any more."""
    events = log.events and Events(*(None if t is None else t.clone() for t in log.events))

    def copied(split):
        columns = {n: getattr(split, n) for n in ("ids", "values", *OPTIONAL)}
        columns = {n: c.clone() for n, c in columns.items() if c is not None}
        return replace(split, **columns, events=events, mapped=False)

    return replace(log, **{part: copied(getattr(log, part)) for part in SPLITS})
