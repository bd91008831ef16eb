"""MovieLens as clicks: a rating of 4 or 5 is a click."""

from __future__ import annotations

import polars as pl

from .. import prepare
from ..catalogue import Entry
from ..formats import movielens
from ..recipe import Recipe
from ..sources import FrameSource
from ..store import Log


def load(entry: Entry, *, min_count: int = 1, seed: int = 0) -> Log:
    """The log of nine fields; hour and weekday are UTC.

    min_count: occurrences below which a value has no id of its own.
    """
    ratings, users, items = movielens.tables(entry)
    time = pl.from_epoch("timestamp")
    frame = (
        ratings.join(users, on="user_id", how="left")
        .join(items.select("item_id", "genres"), on="item_id", how="left")
        .sort("timestamp", "user_id", "item_id")
        .select(
            "user_id", "item_id", "gender", "age", "occupation", "zip",
            movielens.FIRST_GENRE.alias("genre"),
            time.dt.hour().alias("hour"), time.dt.weekday().alias("weekday"),
            (pl.col("rating") >= 4).cast(pl.Int8).alias("label"),
        )
    )  # fmt: skip
    features = tuple(c for c in frame.columns if c != "label")
    recipe = Recipe("label", features, min_count=min_count, user="user_id")
    return prepare.load(entry, FrameSource(frame), recipe, seed)
