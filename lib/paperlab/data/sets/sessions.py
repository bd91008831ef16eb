"""Sessions of shops and players in GCE-GNN's form: ordered items, without times."""

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

ENDING = "_train_sessions.parquet"


def load(
    entry: Entry,
    *,
    part: str | None = None,
    length: int = LENGTH,
    negatives: Literal["uniform", "popular"] = "uniform",
    seed: int = 0,
) -> Log:
    """The next-item log; a session is a user. The sets' own test prefixes are not used.

    part: which of them; the first by default.
    length: most recent events of a history that a row uses.
    negatives: how those of the test part are drawn.
    seed: of ties in time and of negatives.
    """
    parts = [f.name.removesuffix(ENDING) for f in entry.local if f.name.endswith(ENDING)]
    part = parts[0] if part is None else part
    checks.one_of(parts, part=part)
    (sessions,) = parquet.local(entry, f"{part}{ENDING}")
    source, what = FrameSource(sessions.explode("items")), Interactions("session", "items")
    return next_items.load(entry, part, source, what, seed=seed, length=length, negatives=negatives)
