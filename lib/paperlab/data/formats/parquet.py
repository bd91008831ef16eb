"""Parquet files of a data set, with their columns and their damage checked."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from .. import fetch
from ..catalogue import Entry


def read(path: Path, *columns: str) -> pl.DataFrame:
    """A table with at least these columns.

    Raises Broken for a file that is no parquet, ValueError for a missing column or an empty table.
    """
    try:
        frame = pl.read_parquet(path)
    except pl.exceptions.PolarsError:
        raise fetch.Broken(f"{path.name} is broken: delete and fetch it again") from None
    if lacking := sorted(set(columns) - set(frame.columns)):
        raise ValueError(f"{path.name} has no column {', '.join(lacking)}")
    if not frame.height:
        raise ValueError(f"{path.name} is empty: it has no row")
    return frame


def local(entry: Entry, *names: str) -> list[pl.DataFrame]:
    """The named files of a set's local form; all of them without names.

    Raises FileNotFoundError that says where to get them and where to put them.
    """
    paths = fetch.local_form(entry, *names)
    if paths is None:
        raise fetch.missing(entry, *names)
    return [read(paths[n]) for n in names or paths]
