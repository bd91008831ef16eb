"""Samples of Criteo's click logs as parquet files."""

from __future__ import annotations

from .. import prepare
from ..catalogue import Entry
from ..formats import criteo, parquet
from ..sources import FrameSource
from ..store import Log


def load(entry: Entry, *, min_count: int = 2, seed: int = 0) -> Log:
    """The log of 39 fields; ``min_count``: occurrences below which a value has no id of its own."""
    (frame,) = parquet.local(entry)
    return prepare.load(entry, FrameSource(frame), criteo.recipe(min_count), seed)
