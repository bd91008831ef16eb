"""Purchases, carts and favourites of Taobao and RetailRocket in SSLRec's form."""

from __future__ import annotations

from typing import Literal

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
    """The next-item log; every behaviour is an event.

    length: most recent events of a history that a row uses.
    negatives: how those of the test part are drawn.
    seed: of ties in time and of negatives.
    """
    (events,) = parquet.local(entry, "train_events.parquet")
    source, what = FrameSource(events), Interactions("user", "item", "timestamp")
    return next_items.load(entry, None, source, what, seed=seed, length=length, negatives=negatives)
