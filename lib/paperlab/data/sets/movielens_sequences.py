"""MovieLens as histories: every rating is an event, whatever its stars."""

from __future__ import annotations

from .. import next_items
from ..catalogue import Entry
from ..formats import movielens
from ..interactions import Interactions
from ..next_items import Histories
from ..sources import FrameSource


@next_items.loader
def load(entry: Entry) -> Histories:
    """The next-item log; a film's first genre is its category."""
    ratings, _, items = movielens.tables(entry)
    genre = items.select("item_id", category=movielens.FIRST_GENRE)
    events = ratings.join(genre, on="item_id", how="left", maintain_order="left")
    source = FrameSource(events)
    what = Interactions("user_id", "item_id", "timestamp", "category")
    return Histories(source, what)
