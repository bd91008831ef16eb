"""RetailRocket: views, carts and purchases of a shop."""

from __future__ import annotations

from .. import fetch, next_items
from ..catalogue import Entry
from ..interactions import Interactions
from ..next_items import Histories
from ..sources import TextSource


@next_items.loader
def load(entry: Entry) -> Histories:
    """The next-item log; every behaviour is an event."""
    path = fetch.official(entry, "events.csv")
    source = TextSource.with_header(path, ("timestamp", "visitorid", "itemid"))
    what = Interactions("visitorid", "itemid", "timestamp", ticks=1000)
    return Histories(source, what)
