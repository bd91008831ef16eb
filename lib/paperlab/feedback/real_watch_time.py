"""Watch times of KuaiRand's explicit-feedback core, and what intervals over its users need.

Gao et al., "KuaiRand", CIKM 2022. The rows were selected: they have a like or a dislike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..data.schema import Field, Schema
from ..data.store import Log, from_arrays

if TYPE_CHECKING:
    import polars as pl
    from jaxtyping import Float, Int

ACCOUNT = (
    "user_active_degree",
    *(f"{what}_range" for what in ("follow_user_num", "fans_user_num", "friend_user_num")),
    *("register_days_range", "is_video_author", "is_live_streamer"),
)
VALID_DAY = 20220418
LEAST = 3  # training rows of a video that has an id of its own
BUCKETS = 50  # of the duration


def load() -> Log:
    """The core, by day: trained before 18 April 2022, validated on it, tested after it.

    Raises FileNotFoundError that says which file to get.
    """
    from ..data.sets import kuairand

    events, users, _ = kuairand.tables("explicit")
    return of_tables(events.collect(), users.select("user_id", *ACCOUNT).collect())


def of_tables(events: pl.DataFrame, users: pl.DataFrame, valid_day: int = VALID_DAY) -> Log:
    """A log whose label is the watch time in seconds, a whole number of tenths.

    events: user_id, video_id, date (YYYYMMDD), play_time_ms, duration_ms. users: user_id and ACCOUNT.
    Fields: user, video, bucket of the duration (0 where it is unknown), the user's account. Ids and
    buckets come from rows before ``valid_day``; others, and videos with few rows, have id 0.
    """
    import polars as pl

    events = events.sort("date", "user_id", "video_id", "play_time_ms")
    rows = events.join(users, on="user_id", how="left", maintain_order="left")
    day = rows["date"].to_numpy()
    part = np.where(day < valid_day, 0, np.where(day == valid_day, 1, 2))
    train, duration = part == 0, rows["duration_ms"].to_numpy()
    known = duration[train & (duration > 0)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BUCKETS + 1)[1:-1]))
    bucket = np.where(duration > 0, 1 + np.searchsorted(edges, duration), 0)
    columns = {"user_id": 1, "video_id": LEAST, **dict.fromkeys(ACCOUNT, 1)}
    ids = {
        c: _ids(rows[c].cast(pl.String).fill_null("").to_numpy(), train, n)
        for c, n in columns.items()
    }
    ids["duration"] = bucket
    fields = tuple(Field(name, size=int(column.max()) + 1) for name, column in ids.items())
    return from_arrays(
        "kuairand",
        Schema(fields, labels=("seconds",)),
        np.stack([*ids.values()], 1),
        np.round(rows["play_time_ms"].to_numpy() / 100)[:, None] / 10,
        part,
        users=rows["user_id"].to_numpy(),
    )


def _ids(values: np.ndarray, train: np.ndarray, least: int) -> Int[np.ndarray, " n"]:
    """1, 2, ... for values with at least ``least`` training rows, in their own order; else 0."""
    seen, counts = np.unique(values[train].astype(str), return_counts=True)
    seen = seen[counts >= least]
    place = np.searchsorted(seen, values.astype(str)).clip(max=max(len(seen) - 1, 0))
    return np.where(seen[place] == values.astype(str), place + 1, 0) if len(seen) else place


def xauc_by_row(predicted: Float[Tensor, " n"], actual: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Values of rows whose mean is `metrics.xauc` and whose variance is that of its linearisation.

    A row's value is U + 2 (w - U d) / mean d: d pairs of it have unequal amounts, and w of them are
    ordered alike, a tie of predictions counting one half (Hajek's projection). n^2 steps.
    """
    won, unequal = [], []
    for rows in torch.arange(len(actual)).split(512):
        way = (actual[rows, None] - actual).sign()
        won.append(
            (way != 0)
            .double()
            .mul(0.5 + 0.5 * way * (predicted[rows, None] - predicted).sign())
            .sum(1)
        )
        unequal.append((way != 0).double().sum(1))
    won, unequal = torch.cat(won), torch.cat(unequal)
    share = won.sum() / unequal.sum()
    return share + 2 * (won - share * unequal) / unequal.mean()


def by_user(
    values: Float[Tensor, " n"], users: Int[Tensor, " n"]
) -> tuple[Float[np.ndarray, " u"], Float[np.ndarray, " u"]]:
    """Sums of a row's values, and numbers of rows, by user in the order of their keys."""
    _, place = users.unique(return_inverse=True)
    sums = torch.zeros(int(place.max()) + 1, dtype=torch.float64)
    return sums.index_add(0, place, values.double()).numpy(), place.bincount().double().numpy()
