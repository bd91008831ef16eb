"""Amazon reviews in SASRec's form: ordered items of each user, without times or categories."""

from __future__ import annotations

from typing import Literal

from ... import checks
from .. import next_items
from ..catalogue import Entry
from ..formats import parquet
from ..interactions import Interactions
from ..next_items import LENGTH
from ..sources import FrameSource
from ..store import Log


def load(
    entry: Entry,
    *,
    part: str | None = None,
    length: int = LENGTH,
    negatives: Literal["uniform", "popular"] = "uniform",
    seed: int = 0,
) -> Log:
    """The next-item log of a category of products.

    part: which of them; the first by default.
    length: most recent events of a history that a row uses.
    negatives: how those of the test part are drawn.
    seed: of ties in time and of negatives.
    """
    parts = [f.name.removesuffix(".parquet") for f in entry.local]
    part = parts[0] if part is None else part
    checks.one_of(parts, part=part)
    (events,) = parquet.local(entry, f"{part}.parquet")
    source, what = FrameSource(events), Interactions("user", "item")
    return next_items.load(entry, part, source, what, seed=seed, length=length, negatives=negatives)
