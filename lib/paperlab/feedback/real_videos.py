"""Several kinds of feedback on KuaiRand's videos, split by day, with statistics of past days.

Gao et al., "KuaiRand", CIKM 2022: the explicit-feedback core. Its rows were selected (each has a like
or a dislike), so that its rates are not those of a feed, and its labels are not nested: a comment can
come without a long view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import checks
from ..data.schema import Field, Schema
from ..data.store import Log, from_arrays

if TYPE_CHECKING:
    import polars as pl
    from jaxtyping import Float, Int

LABELS = {  # name: the published column, and what it is divided by
    "click": ("is_click", 1),
    "long_view": ("long_view", 1),
    "comment": ("is_comment", 1),
    "seconds": ("play_time_ms", 1000),
}
COUNTED = ("is_click", "long_view", "is_comment")  # whose past daily rates are features
ACCOUNT = (
    "user_active_degree",
    *(f"{what}_range" for what in ("follow_user_num", "fans_user_num", "friend_user_num")),
    *("register_days_range", "is_video_author", "is_live_streamer"),
)
VALID_DAY = 20220418
LEAST = 5  # training rows of a video that has an id of its own
BUCKETS = {"duration": 20, "past": 10}


def load(labels: Sequence[str] = ("click", "long_view", "comment")) -> Log:
    """The core: trained before 18 April 2022, validated on that day, tested on the three after it.

    labels: of `LABELS`, in the order of the log's. Raises FileNotFoundError that says which file to get.
    """
    from ..data.sets import kuairand

    events, users, _ = kuairand.tables("explicit")
    return of_tables(events.collect(), users.select("user_id", *ACCOUNT).collect(), labels)


def of_tables(
    events: pl.DataFrame,
    users: pl.DataFrame,
    labels: Sequence[str],
    valid_day: int = VALID_DAY,
) -> Log:
    """A log of the published tables.

    events: user_id, video_id, date (YYYYMMDD), hourmin, duration_ms, and the columns of `LABELS`.
    users: user_id and `ACCOUNT`.
    Fields: user, video, hour, duration, account; and of user and of video, on days before the row's own:
    rows, and rates of click, long view and comment. Numbers are bucketised at training quantiles; what
    is unknown, new, or too rare in training has id 0. ``users`` of the log are the published ids.
    Raises ValueError for an unknown label.
    """
    import polars as pl

    for name in labels:
        checks.one_of(LABELS, labels=name)
    events = events.sort("date", "user_id", "video_id", "play_time_ms")
    rows = events.join(users, on="user_id", how="left", maintain_order="left")
    for key in ("user_id", "video_id"):
        rows = rows.join(
            past_days(events, key), on=[key, "date"], how="left", maintain_order="left"
        )
    day = rows["date"].to_numpy()
    part = np.where(day < valid_day, 0, np.where(day == valid_day, 1, 2))
    train = part == 0
    rows = rows.with_columns(hour=pl.col("hourmin") // 100)
    ids = {
        name: known_ids(rows[name].cast(pl.String).fill_null("").to_numpy(), train, least)
        for name, least in {
            "user_id": 1,
            "video_id": LEAST,
            "hour": 1,
            **dict.fromkeys(ACCOUNT, 1),
        }.items()
    }
    lengths = rows["duration_ms"].cast(float).to_numpy()
    ids["duration"] = buckets(np.where(lengths > 0, lengths, np.nan), train, BUCKETS["duration"])
    for name in rows.columns:
        if name.startswith("past_"):
            past = rows[name].cast(float).fill_null(np.nan).to_numpy()
            ids[name] = buckets(past, train, BUCKETS["past"])
    fields = tuple(Field(name, size=int(column.max()) + 1) for name, column in ids.items())
    values = [rows[column].to_numpy() / unit for column, unit in (LABELS[name] for name in labels)]
    return from_arrays(
        "kuairand",
        Schema(fields, labels=tuple(labels)),
        np.stack([*ids.values()], 1),
        np.stack(values, 1),
        part,
        users=rows["user_id"].to_numpy(),
    )


def past_days(events: pl.DataFrame, key: str) -> pl.DataFrame:
    """For each value of ``key`` and each of its days: rows, and rates of COUNTED, on days before it.

    Null on the first day. Columns: key, date, past_KEY_rows, past_KEY_RATE.
    """
    import polars as pl

    daily = events.group_by(key, "date").agg(pl.len().alias("rows"), pl.col(COUNTED).sum())
    before = {c: (pl.col(c).cum_sum() - pl.col(c)).over(key) for c in ("rows", *COUNTED)}
    total = pl.when(before["rows"] > 0).then(before["rows"])
    rates = {f"past_{key}_{c}": before[c] / total for c in COUNTED}
    return daily.sort(key, "date").select(key, "date", total.alias(f"past_{key}_rows"), **rates)


def known_ids(values: np.ndarray, train: np.ndarray, least: int) -> Int[np.ndarray, " n"]:
    """1, 2, ... for values with at least ``least`` training rows, in their own order; else 0."""
    seen, counts = np.unique(values[train].astype(str), return_counts=True)
    seen = seen[counts >= least]
    if not len(seen):
        return np.zeros(len(values), int)
    place = np.searchsorted(seen, values.astype(str)).clip(max=len(seen) - 1)
    return np.where(seen[place] == values.astype(str), place + 1, 0)


def buckets(
    values: Float[np.ndarray, " n"], train: np.ndarray, count: int
) -> Int[np.ndarray, " n"]:
    """1..count by quantiles of the training values; 0 where NaN."""
    known = values[train & ~np.isnan(values)]
    if not len(known):
        return np.zeros(len(values), int)
    edges = np.unique(np.quantile(known, np.linspace(0, 1, count + 1)[1:-1]))
    return np.where(np.isnan(values), 0, 1 + np.searchsorted(edges, values, side="right"))
