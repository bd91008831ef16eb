"""Amazon reviews in S3-Rec's form: ordered items of each user, without times."""

from __future__ import annotations

from typing import Literal

import polars as pl

from ... import checks
from .. import next_items
from ..catalogue import Entry
from ..formats import parquet
from ..interactions import Interactions
from ..next_items import LENGTH
from ..sources import FrameSource
from ..store import Log

ENDING = "_sequences.parquet"


def load(
    entry: Entry,
    *,
    part: str | None = None,
    length: int = LENGTH,
    negatives: Literal["uniform", "popular"] = "uniform",
    seed: int = 0,
) -> Log:
    """The next-item log; a category is an item's last attribute, the leaf of its category path.

    part: which of them; the first by default.
    length: most recent events of a history that a row uses.
    negatives: how those of the test part are drawn.
    seed: of ties in time and of negatives.
    """
    parts = [f.name.removesuffix(ENDING) for f in entry.local if f.name.endswith(ENDING)]
    part = parts[0] if part is None else part
    checks.one_of(parts, part=part)
    sequences, items = parquet.local(entry, f"{part}{ENDING}", f"{part}_item_attributes.parquet")
    leaf = items.select("item", category=pl.col("attributes").list.last())
    events = sequences.rename({"items": "item"}).explode("item")
    events = events.join(leaf, on="item", how="left", maintain_order="left")
    source, what = FrameSource(events), Interactions("user", "item", category="category")
    return next_items.load(entry, part, source, what, seed=seed, length=length, negatives=negatives)
