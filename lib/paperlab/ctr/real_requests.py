"""Requests of KuaiRand's videos: six consecutive exposures of a user after the 32 before them.

Gao et al., "KuaiRand", CIKM 2022: the explicit-feedback core. It has no request ids, so that the
requests here are cut by us; its rows were selected (each has a like or a dislike), so that their rate
of long views is not that of a feed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import checks
from .worlds.requests import GIFT, OWN, Requests

if TYPE_CHECKING:
    import polars as pl

VALID_DAY = 20220418
LEAST = 5  # training exposures of a video that has an id of its own; 1 is the id of all others


@dataclass(frozen=True)
class RequestLog:
    """Three parts of requests in order of time; ids of items are below ``vocabulary``."""

    name: str
    train: Requests
    valid: Requests
    test: Requests
    vocabulary: int


def load(length: int = 32, candidates: int = 6) -> RequestLog:
    """The core: trained before 18 April 2022, validated on that day, tested on the three after it.

    Raises FileNotFoundError that says which file to get.
    """
    from ..data.sets import kuairand

    events, _, _ = kuairand.tables("explicit")
    return of_events(events.collect(), length, candidates)


def of_events(
    events: pl.DataFrame,
    length: int = 32,
    candidates: int = 6,
    *,
    valid_day: int = VALID_DAY,
    minimum: int = LEAST,
) -> RequestLog:
    """A log of exposures: user_id, video_id, date (YYYYMMDD), time_ms, long_view (0 or 1).

    A user's exposures are cut into requests of ``candidates`` from the first on; the first has no
    history, and what is left at the end is no request: both only stand in histories. A request
    belongs to the part of its last exposure. Labels are long views, and stand in ``probability`` too;
    the flag of an event in the history tells whether it was one. group: the user, from 0.
    Raises ValueError for sizes below 1.
    """
    checks.whole(length=length, candidates=candidates, minimum=minimum)
    events = events.sort("user_id", "time_ms", "video_id")
    user, video, day, label = (
        events[name].to_numpy() for name in ("user_id", "video_id", "date", "long_view")
    )
    videos, seen = np.unique(video[day < valid_day], return_counts=True)
    videos = videos[seen >= minimum]
    place = np.searchsorted(videos, video).clip(max=len(videos) - 1)
    ids = np.where(videos[place] == video, place + 2, 1)
    flags = np.where(label == 1, OWN, GIFT)

    _, first, group, rows = np.unique(
        user, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.arange(len(user)) - first[group]  # of an exposure among its user's
    starts = np.flatnonzero(
        (order % candidates == 0) & (order > 0) & (order + candidates <= rows[group])
    )
    shown = starts[:, None] + np.arange(candidates)
    before = starts[:, None] + np.arange(-length, 0)
    inside = before >= first[group[starts]][:, None]
    before = np.where(inside, before, 0)
    labels = torch.from_numpy(label[shown]).float()
    whole = Requests(
        *(torch.from_numpy(a) for a in (ids[before] * inside, flags[before] * inside, ids[shown])),
        labels=labels,
        probability=labels,
        group=torch.from_numpy(group[starts]),
    )
    last = torch.from_numpy(day[shown[:, -1]])
    parts = (last < valid_day, last == valid_day, last > valid_day)
    return RequestLog("KuaiRand", *(whole.take(p) for p in parts), vocabulary=len(videos) + 2)
