"""The test part of HH-RLHF's harmless-base alone, from a parquet copy or the official file."""

from __future__ import annotations

from .. import fetch
from ..catalogue import Entry
from ..formats import parquet, preferences
from ..kinds import PreferenceTexts


def load(entry: Entry) -> PreferenceTexts:
    """The pairs, cut before their last answer."""
    if not fetch.local_form(entry):
        path = fetch.official(entry, "test.jsonl.gz")
        return preferences.from_dialogues(entry.name, path)
    (frame,) = parquet.local(entry)
    return preferences.gather(entry.name, (preferences.split(*row) for row in frame.iter_rows()))
