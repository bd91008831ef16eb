"""From the cart to the purchase: late conversions in Taobao's events.

A row is an item put into a cart on one of the first five days; its conversion is the purchase of that
item by that user, on the same day or up to four days later. Training reads the log as it was at
the end of the fifth day, so that a cart of day k has e = 4 - k days behind it; four days later all is
known. An item that was bought before it was put into the cart is left out. The set holds at most
one event of a kind for each user and item, and no page views: every row counts as a click (p = 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import checks
from ..data.schema import Field, Schema
from ..data.store import Log, from_arrays
from .esdf import LABELS

if TYPE_CHECKING:
    import polars as pl

START, DAY = 1_511_539_200, 86_400  # 25 November 2017, midnight in Beijing; seconds
LAST = 4  # days that a conversion may take
KINDS = ("cart", "buy", "fav")
BUCKETS = 12  # of counts, by powers of two


def load(*, complete: bool = False, seed: int = 0) -> Log:
    """Carts with the labels of `paperlab.feedback.esdf`, parted by user: 60, 20 and 20 %.

    Fields: hour of the day; whether the user had marked the item as a favourite; and, by powers of two,
    what the user and what others with this item had done before.
    complete: whether training and validation know all conversions. The test part always does.
    seed: of the users' parts.
    Raises FileNotFoundError that says which file to get.
    """
    import polars as pl

    from ..data import catalogue
    from ..data.formats import parquet

    checks.whole(0, seed=seed)
    (events,) = parquet.local(catalogue.entry("taobao-multibehavior"), "train_events.parquet")
    rows = carts(events)
    users = rows["user"].to_numpy()
    known, place = np.unique(users, return_inverse=True)
    draw = np.random.default_rng([seed, 3]).permutation(len(known)) / len(known)
    part = np.digitize(draw, (0.6, 0.8))[place]
    day = rows["day"].to_numpy()
    elapsed = np.where(complete | (part == 2), LAST, LAST - day)
    delay = rows["delay"].fill_null(LAST + 1).to_numpy()
    observed = delay <= elapsed
    values = np.stack([np.ones_like(day), observed, delay * observed, elapsed], 1)
    names = [c for c in rows.columns if c not in ("user", "day", "delay")]
    sizes = {"hour": 25, "favourite": 3}
    fields = tuple(Field(n, size=sizes.get(n, BUCKETS + 1)) for n in names)
    ids = rows.select(pl.col(names) + 1).to_numpy()
    schema = Schema(fields, labels=LABELS)
    return from_arrays("taobao carts", schema, ids, values, part, users=users)


def carts(events: pl.DataFrame) -> pl.DataFrame:
    """One row a cart of the first five days: user, day 0..4, delay in days or null, and the fields.

    events: user, item, timestamp (seconds), behavior. Days are those of Beijing.
    """
    import polars as pl

    both = ["user", "item"]
    events = events.sort("timestamp", *both, "behavior")
    counts = [
        (pl.col("behavior") == kind).cum_sum().over(key).alias(f"{kind} by {key}")
        for key in both
        for kind in KINDS
    ]
    events = events.with_columns(counts)
    bought = events.filter(pl.col("behavior") == "buy").select(*both, bought="timestamp")
    marked = events.filter(pl.col("behavior") == "fav").select(*both, marked="timestamp")
    day = (pl.col("timestamp") - START) // DAY
    delay = (pl.col("bought") - START) // DAY - day
    rows = events.filter(pl.col("behavior") == "cart").with_columns(
        pl.col(f"cart by {key}") - 1
        for key in both  # itself
    )
    rows = rows.join(bought, on=both, how="left").join(marked, on=both, how="left")
    rows = rows.filter((day <= LAST) & ~(pl.col("bought") < pl.col("timestamp")).fill_null(False))
    count = pl.col([f"{kind} by {key}" for key in both for kind in KINDS])
    return rows.sort("timestamp", *both).select(
        "user",
        day.alias("day"),
        pl.when(delay <= LAST).then(delay).alias("delay"),
        ((pl.col("timestamp") - START) % DAY // 3600).alias("hour"),
        (pl.col("marked") < pl.col("timestamp")).fill_null(False).cast(pl.Int64).alias("favourite"),
        (count + 1).log(2).floor().clip(0, BUCKETS - 1).cast(pl.Int64),
    )
