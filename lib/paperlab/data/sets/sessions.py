"""Sessions of shops and players in GCE-GNN's form: ordered items, without times."""

from __future__ import annotations

from ... import checks
from .. import next_items
from ..catalogue import Entry
from ..formats import parquet
from ..interactions import Interactions
from ..next_items import Histories
from ..sources import FrameSource

ENDING = "_train_sessions.parquet"


@next_items.loader
def load(entry: Entry, *, part: str | None = None) -> Histories:
    """The next-item log; a session is a user. The sets' own test prefixes are not used.

    part: which of them; the first by default.
    """
    parts = [f.name.removesuffix(ENDING) for f in entry.local if f.name.endswith(ENDING)]
    part = parts[0] if part is None else part
    checks.one_of(parts, part=part)
    (sessions,) = parquet.local(entry, f"{part}{ENDING}")
    source, what = FrameSource(sessions.explode("items")), Interactions("session", "items")
    return Histories(source, what, part)
