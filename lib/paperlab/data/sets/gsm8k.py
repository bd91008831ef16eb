"""GSM8K: word problems whose answer is a number."""

from __future__ import annotations

from typing import Literal

from ..catalogue import Entry
from ..formats import parquet
from ..kinds import Problems


def load(entry: Entry, *, part: Literal["train", "test"] = "train") -> Problems:
    """The problems of a part; an answer is the number after ####, without commas."""
    (frame,) = parquet.local(entry, f"{part}.parquet")
    good, bad = [], []
    for number, (question, solution) in enumerate(frame.select("question", "answer").rows(), 1):
        _, mark, answer = solution.rpartition("####")
        if mark and answer.strip():
            good.append((question, answer.strip().replace(",", "")))
        else:
            bad.append((number, "no answer after ####"))
    return Problems(f"{entry.name}-{part}", *zip(*good, strict=True), tuple(bad))
