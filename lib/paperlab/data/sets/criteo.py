"""Criteo's click logs as published: Kaggle's train.txt, or a day of the Terabyte logs."""

from __future__ import annotations

from .. import fetch, prepare
from ..catalogue import Entry
from ..formats import criteo
from ..sources import TextSource
from ..store import Log


def load(entry: Entry, *, min_count: int = 10, seed: int = 0) -> Log:
    """The log of 39 fields; ``min_count``: occurrences below which a value has no id of its own."""
    path = fetch.official(entry, entry.files[0].name)
    source = TextSource(path, criteo.COLUMNS)
    return prepare.load(entry, source, criteo.recipe(min_count), seed)
