"""Yoochoose's clicks: sessions of a shop, with times."""

from __future__ import annotations

import polars as pl

from .. import next_items
from ..catalogue import Entry
from ..formats import parquet
from ..interactions import Interactions
from ..next_items import Histories
from ..sources import FrameSource


@next_items.loader
def load(entry: Entry) -> Histories:
    """The next-item log; a session is a user."""
    clicks = pl.concat(parquet.local(entry, "train_full.parquet", "test.parquet"))
    clicks = clicks.with_columns((pl.col("Time") * 1000).round().cast(pl.Int64))
    source = FrameSource(clicks)
    what = Interactions("SessionId", "ItemId", "Time", ticks=1000)
    return Histories(source, what)
