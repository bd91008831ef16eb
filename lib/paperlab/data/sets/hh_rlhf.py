"""Anthropic's HH-RLHF: two dialogues that differ in their last answer."""

from __future__ import annotations

from typing import Literal

from .. import fetch
from ..catalogue import Entry
from ..formats import preferences
from ..kinds import PreferenceTexts


def load(entry: Entry, *, part: Literal["train", "test"] = "train") -> PreferenceTexts:
    """The pairs of a part, cut before their last answer."""
    path = fetch.official(entry, f"{part}.jsonl.gz")
    return preferences.from_dialogues(f"{entry.name}-{part}", path)
