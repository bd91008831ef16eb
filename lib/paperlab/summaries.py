"""Rows of results as means and paired differences with their 95 % intervals (Student's t)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from . import intervals


def collect(rows: Sequence[dict], metric: str, *columns: str, pair: str = "seed") -> dict:
    """The metric by the values of some columns, then by seed: {(value, ...): {seed: number}}.

    A missing metric is NaN. Raises ValueError without rows, for a row that lacks a column, and for
    two rows that agree in the columns and the seed.
    """
    if not rows:
        raise ValueError("no rows to draw")
    found: dict[tuple, dict] = {}
    for row in rows:
        for column in (metric, *columns):
            if column not in row:
                raise ValueError(f"a row has no {column!r}; it has: {', '.join(map(str, row))}")
        kept = found.setdefault(tuple(row[c] for c in columns), {})
        seed, value = row.get(pair), row[metric]
        if seed in kept:
            where = ", ".join(f"{c} = {row.get(c)!r}" for c in (*columns, pair))
            raise ValueError(f"two rows with {where}: choose one")
        kept[seed] = math.nan if value is None else float(value)
    return found


def interval(
    values: Sequence[float], log: bool = False
) -> tuple[float, float | None, float | None]:
    """The mean of independent values and the ends of its 95 % interval.

    log: take the geometric mean; a value of 0 or less is missing then. The ends are None with fewer
    than 3 values or a missing one; a missing value makes the mean NaN.
    """
    values = np.asarray(values, float)
    values = np.where(np.isfinite(values), values, np.nan)
    if log:
        values = np.log(np.where(values > 0, values, np.nan))
    n, mean = len(values), values.mean()
    half = math.nan
    if n >= intervals.FEWEST:
        half = intervals.t_quantile(n - 1) * values.std(ddof=1) / n**0.5
    ends = [float(np.exp(v) if log else v) for v in (mean, mean - half, mean + half)]
    return ends[0], *(v if math.isfinite(v) else None for v in ends[1:])


def differences(
    rows: Sequence[dict],
    metric: str,
    against: str,
    *,
    by: str = "model",
    pair: str = "seed",
    group: str | None = None,
) -> list[dict]:
    """Paired differences of every method to one, with 95 % intervals.

    rows: one a method (column ``by``), seed (column ``pair``) and group (column ``group``).
    against: the method that the others are compared with.
    Each result has name, group, value, low, high, against and metric. Its ends are None with fewer
    than 3 pairs, with a missing value, and where all differences are equal (`intervals.paired`):
    they say nothing of their error.
    Raises ValueError for an absent rival, two rows for one pair and a pair without rival.
    """
    columns = [c for c in (group, by) if c]
    values = collect(rows, metric, *columns, pair=pair)
    found = []
    for (*place, name), mine in values.items():
        where = f" at {group} = {place[0]!r}" if place else ""
        rival = values.get((*place, against))
        if rival is None:
            raise ValueError(f"no rows with {by} = {against!r}{where}")
        if name == against:
            continue
        if mine.keys() != rival.keys():
            lone = min(mine.keys() ^ rival.keys(), key=str)
            raise ValueError(f"{pair} {lone!r} has only one of {name} and {against}{where}")
        gap = intervals.paired([mine[p] for p in mine], [rival[p] for p in mine])
        low, high = map(float, gap.interval()) if math.isfinite(gap.se) else (None, None)
        kept = {"name": name, "group": place[0] if place else None, "value": float(gap.value)}
        found.append(kept | {"low": low, "high": high, "against": against, "metric": metric})
    return found
