"""Amazon reviews in S3-Rec's form: ordered items of each user, without times."""

from __future__ import annotations

import polars as pl

from ... import checks
from .. import next_items
from ..catalogue import Entry
from ..formats import parquet
from ..interactions import Interactions
from ..next_items import Histories
from ..sources import FrameSource

ENDING = "_sequences.parquet"


@next_items.loader
def load(entry: Entry, *, part: str | None = None) -> Histories:
    """The next-item log; a category is an item's last attribute, the leaf of its category path.

    part: which of them; the first by default.
    """
    parts = [f.name.removesuffix(ENDING) for f in entry.local if f.name.endswith(ENDING)]
    part = parts[0] if part is None else part
    checks.one_of(parts, part=part)
    sequences, items = parquet.local(entry, f"{part}{ENDING}", f"{part}_item_attributes.parquet")
    leaf = items.select("item", category=pl.col("attributes").list.last())
    events = sequences.rename({"items": "item"}).explode("item")
    events = events.join(leaf, on="item", how="left", maintain_order="left")
    source, what = FrameSource(events), Interactions("user", "item", category="category")
    return Histories(source, what, part)
