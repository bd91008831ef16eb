"""Home Depot's product search: relevance 1..3 of a product's title to a query, mean of raters."""

from __future__ import annotations

from ..catalogue import Entry
from ..formats import parquet
from ..kinds import Judgments


def load(entry: Entry) -> Judgments:
    """All judged pairs; documents are titles."""
    (frame,) = parquet.local(entry)
    return Judgments(
        entry.name,
        tuple(frame["search_term"]),
        tuple(frame["product_title"]),
        frame["relevance"].to_numpy(),
    )
