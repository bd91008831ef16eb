"""Yoochoose's clicks: sessions of a shop, with times."""

from __future__ import annotations

from typing import Literal

import polars as pl

from .. import next_items
from ..catalogue import Entry
from ..formats import parquet
from ..interactions import Interactions
from ..next_items import LENGTH
from ..sources import FrameSource
from ..store import Log


def load(
    entry: Entry,
    *,
    length: int = LENGTH,
    negatives: Literal["uniform", "popular"] = "uniform",
    seed: int = 0,
) -> Log:
    """The next-item log; a session is a user.

    length: most recent events of a history that a row uses.
    negatives: how those of the test part are drawn.
    seed: of ties in time and of negatives.
    """
    clicks = pl.concat(parquet.local(entry, "train_full.parquet", "test.parquet"))
    clicks = clicks.with_columns((pl.col("Time") * 1000).round().cast(pl.Int64))
    source = FrameSource(clicks)
    what = Interactions("SessionId", "ItemId", "Time", ticks=1000)
    return next_items.load(entry, None, source, what, seed=seed, length=length, negatives=negatives)
