"""Criteo's 26 categorical fields with every value as an id of its own, in the file's order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import checks
from ..data.formats.criteo import CATEGORIES
from ..data.schema import Field, Schema
from ..data.store import Log, from_arrays

if TYPE_CHECKING:
    import polars as pl

HELD = 0.2  # the last share of the rows, for the test part
VALID = 0.1  # the last share of the others


def load() -> Log:
    """The sample of 80,000 rows: 57,600 for training, then 6,400 for validation, 16,000 for testing.

    Raises FileNotFoundError that says which file to get.
    """
    from ..data import catalogue
    from ..data.formats import parquet

    (frame,) = parquet.local(catalogue.entry("criteo-terabyte-80k"))
    return log(frame)


def log(frame: pl.DataFrame) -> Log:
    """The log of a table with the columns label and c1..c26, at least 10 rows.

    A missing value is a value too. Ids are ranks of the values: names without meaning.
    Raises ValueError for fewer rows.
    """
    import polars as pl

    checks.whole(10, rows=len(frame))
    ranks = frame.select(pl.col(CATEGORIES).rank("dense").fill_null(0))
    ids = ranks.to_numpy().astype(np.int64) + 1  # 0 is out-of-vocabulary
    train = round((1 - HELD) * len(frame))
    fit = round((1 - VALID) * train)
    part = np.repeat(np.int8([0, 1, 2]), [fit, train - fit, len(frame) - train])
    schema = Schema(
        tuple(Field(c, size=int(top) + 1) for c, top in zip(CATEGORIES, ids.max(0), strict=True))
    )
    return from_arrays("criteo, raw ids", schema, ids, frame.select("label").to_numpy(), part)
