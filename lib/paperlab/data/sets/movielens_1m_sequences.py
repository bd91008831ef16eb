"""MovieLens-1M as ordered items of each user, without times: SASRec's form, in parts."""

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
    """The next-item log; of most users the item before the last is missing in the source."""
    (users,) = parquet.local(entry, "sequences.parquet")
    held = pl.col("val_items").fill_null(pl.lit([], pl.List(pl.Int32)))
    whole = pl.concat_list("items", held, pl.concat_list("test_item")).alias("item")
    return Histories(
        FrameSource(users.select("user", whole).explode("item")), Interactions("user", "item")
    )
