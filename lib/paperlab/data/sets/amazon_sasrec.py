"""Amazon reviews in SASRec's form: ordered items of each user, without times or categories."""

from __future__ import annotations

from ... import checks
from .. import next_items
from ..catalogue import Entry
from ..formats import parquet
from ..interactions import Interactions
from ..next_items import Histories
from ..sources import FrameSource


@next_items.loader
def load(entry: Entry, *, part: str | None = None) -> Histories:
    """The next-item log of a category of products.

    part: which of them; the first by default.
    """
    parts = [f.name.removesuffix(".parquet") for f in entry.local]
    part = parts[0] if part is None else part
    checks.one_of(parts, part=part)
    (events,) = parquet.local(entry, f"{part}.parquet")
    source, what = FrameSource(events), Interactions("user", "item")
    return Histories(source, what, part)
