"""Taobao's UserBehavior: clicks, carts, favourites and purchases of nine days."""

from __future__ import annotations

from .. import fetch, next_items
from ..catalogue import Entry
from ..interactions import Interactions
from ..next_items import Histories
from ..sources import TextSource

COLUMNS = ("user", "item", "category", "behaviour", "time")
WINDOW = (1_511_539_200, 1_512_316_800)  # 2017-11-25 to 2017-12-03, Beijing time


@next_items.loader
def load(entry: Entry) -> Histories:
    """The next-item log; times outside the nine days are malformed."""
    source = TextSource(fetch.official(entry, "UserBehavior.csv"), COLUMNS, ",")
    what = Interactions("user", "item", "time", "category", window=WINDOW)
    return Histories(source, what)
