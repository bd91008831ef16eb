"""Amazon's ESCI judgments: exact 3, substitute 2, complement 1, irrelevant 0."""

from __future__ import annotations

import polars as pl

from ..catalogue import Entry
from ..formats import parquet
from ..kinds import Judgments

GRADES = {"E": 3.0, "S": 2.0, "C": 1.0, "I": 0.0}


def load(entry: Entry) -> Judgments:
    """All judged pairs; documents are product ids, since the sample has no texts."""
    (frame,) = parquet.local(entry)
    grades = frame["esci"].replace_strict(GRADES, return_dtype=pl.Float64)
    return Judgments(entry.name, tuple(frame["query"]), tuple(frame["asin"]), grades.to_numpy())
