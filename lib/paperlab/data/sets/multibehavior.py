"""Purchases, carts and favourites of Taobao and RetailRocket in SSLRec's form."""

from __future__ import annotations

from .. import next_items
from ..catalogue import Entry
from ..formats import parquet
from ..interactions import Interactions
from ..next_items import Histories
from ..sources import FrameSource


@next_items.loader
def load(entry: Entry) -> Histories:
    """The next-item log; every behaviour is an event."""
    (events,) = parquet.local(entry, "train_events.parquet")
    source, what = FrameSource(events), Interactions("user", "item", "timestamp")
    return Histories(source, what)
