"""Criteo's columns: a click, 13 counts, 26 hashed categories, separated by tabs."""

from __future__ import annotations

from ..recipe import Recipe

COUNTS = tuple(f"i{k}" for k in range(1, 14))
CATEGORIES = tuple(f"c{k}" for k in range(1, 27))
COLUMNS = ("label", *COUNTS, *CATEGORIES)


def recipe(min_count: int) -> Recipe:
    """Counts as buckets, categories seen ``min_count`` times in the training part as ids."""
    return Recipe("label", CATEGORIES, COUNTS, min_count)
