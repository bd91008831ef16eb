"""MovieLens as histories: every rating is an event, whatever its stars."""

from __future__ import annotations

from typing import Literal

from .. import next_items
from ..catalogue import Entry
from ..formats import movielens
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
    """The next-item log; a film's first genre is its category.

    length: most recent events of a history that a row uses.
    negatives: how those of the test part are drawn.
    seed: of ties in time and of negatives.
    """
    ratings, _, items = movielens.tables(entry)
    genre = items.select("item_id", category=movielens.FIRST_GENRE)
    events = ratings.join(genre, on="item_id", how="left", maintain_order="left")
    source = FrameSource(events)
    what = Interactions("user_id", "item_id", "timestamp", "category")
    return next_items.load(entry, None, source, what, seed=seed, length=length, negatives=negatives)
