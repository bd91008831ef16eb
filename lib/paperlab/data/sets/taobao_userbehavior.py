"""Taobao's UserBehavior: clicks, carts, favourites and purchases of nine days."""

from __future__ import annotations

from typing import Literal

from .. import fetch, next_items
from ..catalogue import Entry
from ..interactions import Interactions
from ..next_items import LENGTH
from ..sources import TextSource
from ..store import Log

COLUMNS = ("user", "item", "category", "behaviour", "time")
WINDOW = (1_511_539_200, 1_512_316_800)  # 2017-11-25 to 2017-12-03, Beijing time


def load(
    entry: Entry,
    *,
    length: int = LENGTH,
    negatives: Literal["uniform", "popular"] = "uniform",
    seed: int = 0,
) -> Log:
    """The next-item log; times outside the nine days are malformed.

    length: most recent events of a history that a row uses.
    negatives: how those of the test part are drawn.
    seed: of ties in time and of negatives.
    """
    source = TextSource(fetch.official(entry, "UserBehavior.csv"), COLUMNS, ",")
    what = Interactions("user", "item", "time", "category", window=WINDOW)
    return next_items.load(entry, None, source, what, seed=seed, length=length, negatives=negatives)
