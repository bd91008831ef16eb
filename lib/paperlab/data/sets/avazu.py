"""Avazu's ten days of mobile advertisements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from .. import fetch, prepare
from ..catalogue import Entry
from ..recipe import Recipe
from ..sources import Chunk, TextSource
from ..store import Log

FEATURES = (
    "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain",
    "app_category", "device_id", "device_ip", "device_model", "device_type", "device_conn_type",
    "C14", "C15", "C16", "C17", "C18", "C19", "C20", "C21",
)  # fmt: skip


def load(entry: Entry, *, min_count: int = 2, seed: int = 0) -> Log:
    """The log of 24 fields; ``min_count``: occurrences below which a value has no id of its own."""
    path = fetch.official(entry, "train.gz")
    with fetch.reading(path):
        source = HourSource(TextSource.with_header(path, ("click", "hour", *FEATURES)))
    recipe = Recipe("click", ("hour", "weekday", "weekend", *FEATURES), min_count=min_count)
    return prepare.load(entry, source, recipe, seed)


class HourSource:
    """Avazu's rows with ``hour`` (YYMMDDHH) taken apart into hour, weekday and weekend."""

    def __init__(self, text: TextSource):
        self.text, self.columns = text, (*text.columns, "weekday", "weekend")
        self.size, self.size_in_memory, self.stamp = text.size, text.size_in_memory, text.stamp

    def chunks(self, position: int = 0, line: int = 0) -> Iterator[Chunk]:
        for chunk in self.text.chunks(position, line):
            day = pl.col("hour").str.slice(0, 6).str.to_date("%y%m%d", strict=False).dt.weekday()
            frame = chunk.frame.with_columns(
                day.cast(pl.String).alias("weekday"),
                (day >= 6).cast(pl.Int8).cast(pl.String).alias("weekend"),
                pl.col("hour").str.slice(6, 2),
            )
            yield replace(chunk, frame=frame)
