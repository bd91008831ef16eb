"""UltraFeedback, binarized: the last message of two dialogues after one prompt."""

from __future__ import annotations

from typing import Literal

from .. import fetch
from ..catalogue import Entry
from ..formats import parquet, preferences
from ..kinds import PreferenceTexts


def load(entry: Entry, *, part: Literal["train", "test"] = "train") -> PreferenceTexts:
    """The pairs of a part."""
    path = fetch.official(entry, f"{part}_prefs-00000-of-00001.parquet")
    columns = ("prompt", "chosen", "rejected")
    rows = parquet.read(path, *columns).select(columns).iter_rows()
    texts = (
        preferences.checked(
            (preferences.question(p), f" {c[-1]['content']}", f" {r[-1]['content']}")
        )
        for p, c, r in rows
    )
    return preferences.gather(f"{entry.name}-{part}", texts)
