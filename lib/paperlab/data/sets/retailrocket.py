"""RetailRocket: views, carts and purchases of a shop."""

from __future__ import annotations

from typing import Literal

from .. import fetch, next_items
from ..catalogue import Entry
from ..interactions import Interactions
from ..next_items import LENGTH
from ..sources import TextSource
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
    path = fetch.official(entry, "events.csv")
    source = TextSource.with_header(path, ("timestamp", "visitorid", "itemid"))
    what = Interactions("visitorid", "itemid", "timestamp", ticks=1000)
    return next_items.load(entry, None, source, what, seed=seed, length=length, negatives=negatives)
