"""KuaiRand: clicks on short videos; likes of a dense core of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

import polars as pl

from ... import checks
from .. import catalogue, fetch, next_items
from ..catalogue import Entry
from ..formats import parquet
from ..interactions import Interactions
from ..next_items import Histories
from ..sources import Files, FrameSource, TextSource

Part = Literal["explicit", "pure", "1k", "27k"]
EXPLICIT = "kuairand27k_explicit_kcore15.parquet"
USERS = "kuairand_pure_user_features.parquet"
EVENTS = ("user_id", "video_id", "time_ms", "is_click")


@next_items.loader
def load(entry: Entry, *, part: Part = "explicit") -> Histories:
    """The next-item log; events are clicks, or, in the explicit-feedback part, likes."""
    if part == "explicit":
        source, only = FrameSource(*parquet.local(entry, EXPLICIT)), ("label", "1")
    else:
        logs = _official(entry, part, "log_standard")
        (videos,) = _official(entry, part, "video_features_basic")
        source, only = VideoLogs(logs, videos), ("is_click", "1")
    what = Interactions("user_id", "video_id", "time_ms", ticks=1000, only=only)
    return Histories(source, what, part)


def tables(part: Part) -> tuple[pl.LazyFrame, pl.LazyFrame, pl.LazyFrame | None]:
    """Events, users and, in the official parts, the videos' authors, as they are published.

    Raises ValueError for an unknown part, FileNotFoundError that says which file to get.
    """
    entry = catalogue.entry("kuairand")
    checks.one_of(get_args(Part), part=part)
    if part == "explicit":
        events, users = parquet.local(entry, EXPLICIT, USERS)
        return events.lazy(), users.lazy(), None
    logs, users, videos = (
        pl.scan_csv(_official(entry, part, start))
        for start in ("log_standard", "user_features", "video_features_basic")
    )
    return logs, users, videos.select("video_id", "author_id")


def _official(entry: Entry, part: str, start: str) -> list[Path]:
    """A part's files whose names start so, in order of time."""
    pattern = rf"{start}.*_{part}(_part\d)?\.csv"
    names = [f.name for f in entry.files if re.fullmatch(pattern, f.name)]
    return [fetch.official(entry, n) for n in names]


class VideoLogs(Files):
    """KuaiRand's logs, one file after another; categories from its table of videos."""

    def __init__(self, logs: list[Path], videos: Path):
        super().__init__([TextSource.with_header(p, EVENTS) for p in logs])
        self.videos = TextSource.with_header(videos, ("video_id", "tag")).path
        self.stamp += f" {videos.stat().st_size}"

    def categories(self, items: pl.Series) -> pl.DataFrame:
        """The first tag of each video."""
        tag = pl.col("tag").str.split(",").list.first()
        videos = pl.scan_csv(self.videos, infer_schema=False).select(item="video_id", category=tag)
        wanted = videos.join(items.to_frame("item").lazy(), on="item", how="semi")
        return wanted.unique("item", keep="first").collect(engine="streaming")
