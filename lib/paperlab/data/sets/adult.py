"""Adult (UCI): does a person earn more than 50,000 dollars? Census of 1994, both parts together."""

from __future__ import annotations

import polars as pl

from .. import fetch, prepare
from ..catalogue import Entry
from ..formats import parquet
from ..recipe import Recipe
from ..sources import FrameSource
from ..store import Log

AMOUNTS = ("capital_gain", "capital_loss")
COLUMNS = (
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation",
    "relationship", "race", "sex", "capital_gain", "capital_loss", "hours_per_week",
    "native_country", "income",
)  # fmt: skip


def table(entry: Entry) -> pl.DataFrame:
    """The columns as published, trimmed; ``income`` is ">50K" or "<=50K".

    Raises FileNotFoundError that says which file to get.
    """
    if fetch.local_form(entry):
        (frame,) = parquet.local(entry)
        return frame.select(COLUMNS).with_columns(pl.col(pl.String).str.strip_chars())
    parts = []
    for file in entry.files:
        text = fetch.official(entry, file.name).read_text()
        lines = [line for line in text.splitlines() if line.count(",") == len(COLUMNS) - 1]
        rows = "\n".join(lines).encode()
        parts.append(pl.read_csv(rows, has_header=False, new_columns=COLUMNS))
    frame = pl.concat(parts).with_columns(pl.col(pl.String).str.strip_chars(" ."))
    numbers = [c for c in frame.columns if frame[c].dtype != pl.String]
    return frame.with_columns(pl.col(numbers).cast(pl.Int32))


def load(entry: Entry, *, min_count: int = 1, seed: int = 0) -> Log:
    """Both parts as one log, split at random; amounts of money are bucketised as counts.

    The survey's weight is no feature. min_count: occurrences below which a value has no id of its own.
    """
    frame = table(entry).with_columns((pl.col("income") == ">50K").cast(pl.Int8)).drop("fnlwgt")
    frame = frame.with_columns(pl.col(a).cast(pl.Int64) for a in AMOUNTS)
    features = tuple(c for c in frame.columns if c != "income" and c not in AMOUNTS)
    recipe = Recipe("income", features, AMOUNTS, min_count)
    return prepare.load(entry, FrameSource(frame), recipe, seed)
