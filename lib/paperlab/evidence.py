"""Comparisons of two methods, built from a record's tables or its per-unit files.

A comparison keeps the keywords that made it, so that `build` can make it again from the record.
Per-unit data are wide: one column a method and seed, one row a test unit (`Units`), in a parquet
file beside the record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import intervals, survival

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from .intervals import SignedRanks, Student
    from .records import Record

KINDS = {
    "t": "Student's t over pairs",
    "log": "Student's t of log ratios",
    "ranks": "signed ranks",
    "exact": "exact",
    "log-rank": "log-rank",
    "two-level": "pairs and test units",
    "auc": "DeLong over test rows, pairs",
}


@dataclass(frozen=True)
class Comparison:
    """a minus b with its error.

    floors: by trivial rival, the estimates of a and of b minus that rival; kind: a key of KINDS;
    source: the keywords of `build` that make this comparison again from a record.
    """

    label: str
    estimate: Student | SignedRanks
    floors: dict[str, tuple[Student | SignedRanks, Student | SignedRanks]]
    kind: str = "t"
    source: dict[str, Any] | None = None

    def swapped(self) -> Comparison:
        """b minus a."""
        floors = {name: (b, a) for name, (a, b) in self.floors.items()}
        return replace(self, estimate=self.estimate.reverse(), floors=floors)


@dataclass(frozen=True)
class Units:
    """What every method and seed achieved on the same test units.

    values: by (method, seed): scores of rows where labels are given (for AUC), else sums over a
    unit (a query's NDCG, a user's AUC times rows); weights: what the sums are divided by, 1 each
    by default; clusters: which units belong together (the user of a row).
    """

    values: dict[tuple, Float[np.ndarray, " units"]]
    labels: Bool[np.ndarray, " units"] | None = None
    weights: Float[np.ndarray, " units"] | None = None
    clusters: Int[np.ndarray, " units"] | None = None

    def __post_init__(self):
        _check(bool(self.values), "units need the values of at least one method and seed")
        own = {k: getattr(self, k) for k in ("labels", "weights", "clusters")}
        own = self.values | {k: v for k, v in own.items() if v is not None}
        shapes = {key: np.shape(v) for key, v in own.items()}
        wrong = [k for k, s in shapes.items() if len(s) != 1 or s != next(iter(shapes.values()))]
        _check(
            not wrong,
            f"units: {wrong[:1]} must be a vector as long as {next(iter(shapes.items()))}",
        )
        if self.labels is not None:
            nan = [key for key, v in self.values.items() if np.isnan(v).any()]
            _check(not nan, f"units: scores of {nan[:1]} hold NaN")

    def write(self, path: Path) -> None:
        """Write a parquet file: sums in 32 bits, scores as ranks in 16 bits (exact for AUC).

        Raises ValueError for more than 20,000 test rows: draw a sample first.
        """
        import pyarrow as pa
        from pyarrow import parquet

        size = len(next(iter(self.values.values())))
        if size > 20_000:
            raise ValueError(f"{size:,} units: store a random sample of at most 20,000")
        small = lambda v: np.asarray(v, np.float32)  # noqa: E731
        if self.labels is not None:
            small = lambda v: np.unique(v, return_inverse=True)[1].astype(np.uint16)  # noqa: E731
        table = {json.dumps(key): small(v) for key, v in self.values.items()}
        own = {"labels": self.labels, "weights": self.weights, "clusters": self.clusters}
        table |= {k: np.asarray(v) for k, v in own.items() if v is not None}
        parquet.write_table(pa.table(table), path, compression="zstd")

    @classmethod
    def read(cls, path: Path) -> Units:
        """The file that `write` wrote."""
        from pyarrow import parquet

        table = parquet.read_table(path)
        columns = {name: table[name].to_numpy() for name in table.column_names}
        own = {k: columns.pop(k) for k in ("labels", "weights", "clusters") if k in columns}
        return cls({tuple(json.loads(k)): v for k, v in columns.items()}, **own)


def paired(
    rows: Sequence[dict],
    a,
    b=None,
    *,
    metric: str,
    by: str = "model",
    pair: str = "seed",
    where: dict[str, Any] | None = None,
    level: float | None = None,
    kind: str = "t",
    floor: Sequence[str | float] = (),
    reached: str = "reached",
) -> Comparison:
    """a minus b, or a minus a fixed ``level``, within equal values of ``pair``.

    rows: one a pair for each value of ``by``, after the filter ``where`` (column to value); a
    metric of None or NaN leaves the error unknown. kind: "t"; "log" for log(a / b); "ranks"; "exact"
    for one row each, without error; "log-rank" for times, with the column ``reached`` (False: the
    run ended first), which is above 0 where a takes longer. floor: trivial rivals: values of
    ``by``, columns of a's rows, or numbers. Raises ValueError for missing or duplicate pairs.
    """
    rows = [r for r in rows if all(r.get(k) == v for k, v in (where or {}).items())]
    own = _column(rows, by, a, pair, metric)
    ended = {n: _column(rows, by, n, pair, reached) for n in (a, b)} if kind == "log-rank" else {}

    def fetch(side) -> Float[np.ndarray, " n"]:
        what, name = side
        if what == "level":
            return np.full(len(own), float(name))
        if what == "column":
            found = _column(rows, by, a, pair, name)
        else:
            found = _column(rows, by, name, pair, metric)
        if missing := own.keys() ^ found.keys():
            raise ValueError(f"{a!r} and {name!r} are not paired: {pair} = {sorted(missing, key=str)} on one side only")  # fmt: skip
        return np.array([found[p] for p in own])

    def gap(one, two) -> Student | SignedRanks:
        x, y = fetch(one), fetch(two)
        if kind == "log-rank":
            flags = [np.array([ended[n][p] for p in own]) for _, n in (one, two)]
            _check(bool(np.isin(flags, (0, 1)).all()), f"{reached!r} must be True or False")
            return survival.log_rank(x, y, *flags).reverse()
        if kind == "exact" or one[0] == two[0] == "level":
            _check(
                kind != "exact" or len(own) == 1,
                f"exact needs one row each, got {len(own)} of {a!r}",
            )
            return intervals.Student(
                float(x[0] - y[0]), 0.0 if np.isfinite(x[0] - y[0]) else math.inf, 1.0, 1
            )
        if kind == "log":
            _check(
                not (x <= 0).any() and not (y <= 0).any(),
                f"log ratios need values above 0 in {metric!r}",
            )
            x, y = np.log(x), np.log(y)
        return (intervals.ranks if kind == "ranks" else intervals.paired)(x, y)

    names = {r.get(by) for r in rows}
    sides = [(_floor_kind(f, names), f) for f in floor]
    return _comparison(a, b, level, where, kind, sides, gap)


def paired_units(
    units: Units,
    a,
    b=None,
    *,
    level: float | None = None,
    kind: str = "two-level",
    floor: Sequence[str | float] = (),
) -> Comparison:
    """a minus b over seeds and test units: kind "two-level" for sums, "auc" for scores.

    level, floor: as in `paired`; of AUC the only fixed level is 0.5, that of equal scores. Raises
    ValueError where the two have other seeds.
    """
    seeds = [s for name, s in units.values if name == a]
    _check(
        kind in ("two-level", "auc") and (kind == "auc") == (units.labels is not None),
        "kind auc needs units with labels, two-level units without",
    )
    size = len(next(iter(units.values.values())))

    def fetch(side) -> Float[np.ndarray, "seeds units"]:
        what, name = side
        if what == "level":
            _check(kind != "auc" or name == 0.5, f"an AUC's fixed level is 0.5, got {name}")
            ones = np.ones(size) if units.weights is None else units.weights
            return np.tile(name * ones, (len(seeds), 1))
        theirs = {s for n, s in units.values if n == name}
        _check(
            bool(seeds) and theirs == set(seeds),
            f"{a!r} has seeds {seeds}, {name!r} has {sorted(theirs)}",
        )
        return np.stack([units.values[name, s] for s in seeds])

    def gap(one, two) -> Student:
        if kind == "auc":
            return intervals.auc(units.labels, fetch(one), fetch(two), units.clusters)
        return intervals.two_level(fetch(one), fetch(two), units.weights, units.clusters)

    sides = [(_floor_kind(f, {n for n, _ in units.values}), f) for f in floor]
    return _comparison(a, b, level, None, kind, sides, gap)


def build(
    record: Record | dict, table: str, a, b=None, folder: Path | None = None, **options
) -> Comparison:
    """A comparison from a record's table, with the table's own roles where none are given.

    record: a notebook's Record, or one read from JSON: its metrics[table] are rows, its
    tables[table] their roles (as `Record.table` declares them), its units[table] a `Units`, or the
    name of its file in ``folder``. options: the keywords of `paired` or `paired_units`.
    """
    options = {k: v for k, v in options.items() if v is not None}
    source = {"table": table, "a": a, "b": b, **options}
    if options.get("kind") in ("two-level", "auc"):
        units = _part(record, "units")[table]
        units = units if isinstance(units, Units) else Units.read((folder or Path()) / units)
        return replace(paired_units(units, a, b, **options), source=source)
    roles = _part(record, "tables").get(table, {})
    named = {"metric": roles.get("metric"), "by": roles.get("group"), "pair": roles.get("pair")}
    named = {k: v for k, v in named.items() if v}
    options = named | options
    _check("metric" in options, f"table {table!r} declares no metric: name one")
    tables = _part(record, "metrics")
    _check(table in tables, f"the record has no table {table!r}; it has {', '.join(tables)}")
    made = paired(tables[table], a, b, **options)
    return replace(made, source=source | options)


def direction(record: Record | dict, table: str, metric: str) -> str:
    """Whether "higher" or "lower" values of a metric are better, as its table declares.

    Raises ValueError where the table does not say so of this metric.
    """
    roles = _part(record, "tables").get(table, {})
    ways = roles.get("metrics") or {roles.get("metric"): roles.get("better")}
    if not ways.get(metric):
        raise ValueError(f"table {table!r} does not declare what is better in {metric!r}: better=")
    return ways[metric]


def compare(
    rows: Sequence[dict],
    metric: str,
    by: str = "model",
    pair: str = "seed",
    better: str = "higher",
    columns: Sequence[str] = (),
) -> pl.DataFrame:
    """A leaderboard: one line a method, best mean first, with the half-width of its 95 % interval.

    ``best?`` says "yes" for the best and "cannot tell" for those that paired intervals, at Holm's
    level over all rivals, do not tell from it. columns: more columns, shown as means. ``±`` is None
    where the error is unknown: fewer than 3 seeds, a missing value, or values that are all equal.
    Raises ValueError without rows, and for two rows of one method and seed.
    """
    import polars as pl

    _check(bool(rows), "no rows to compare")
    _check(better in ("higher", "lower"), f"better must be higher or lower, got {better!r}")
    own = {n: _column(rows, by, n, pair, metric) for n in dict.fromkeys(r.get(by) for r in rows)}
    alone = {n: intervals.paired([*v.values()], 0.0) for n, v in own.items()}
    way = -1 if better == "higher" else 1
    names = sorted(own, key=lambda n: (math.isnan(alone[n].value), way * alone[n].value))
    gaps = []
    for rival in names[1:]:
        both = [k for k in own[names[0]] if k in own[rival]]
        gaps.append(intervals.paired(*([own[n][k] for k in both] for n in (names[0], rival))))
    p = np.array([2 * min(g.above(0), g.below(0)) for g in gaps])
    marks = ["yes", *np.where(p <= intervals.holm(p), "", "cannot tell")] if gaps else ["yes"]
    table = []
    for name, best in zip(names, marks, strict=True):
        half = float(alone[name].interval()[1] - alone[name].value)
        line = {by: name, metric: float(alone[name].value)}
        line |= {"±": half if math.isfinite(half) else None}
        line |= {"best?": str(best), "seeds": alone[name].n}
        mine = [r for r in rows if r[by] == name]
        table.append(line | {c: sum(_number(r[c]) for r in mine) / len(mine) for c in columns})
    return pl.DataFrame(table, schema_overrides={"±": pl.Float64})


def _number(value: float | None) -> float:
    """A metric as it was before its record: JSON has no NaN, so that a record holds None."""
    return math.nan if value is None else float(value)


def _comparison(a, b, level, where, kind: str, floors, gap: Callable) -> Comparison:
    _check(kind in KINDS, f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    _check((b is None) != (level is None), "name a rival b or a level, and not both")
    one, two = ("name", a), ("level", level) if b is None else ("name", b)
    found = {str(f[1]): (gap(one, f), gap(two, f)) for f in floors}
    label = f"{a} against {level:g}" if b is None else f"{a} - {b}"
    label += f" ({', '.join(f'{k} {v}' for k, v in where.items())})" if where else ""
    return Comparison(label, gap(one, two), found, kind)


def _column(rows, by: str, name, pair: str, column: str) -> dict[Any, float]:
    """A column by pair of the rows of one method; None is NaN, as a record stores it."""
    found: dict[Any, float] = {}
    for r in rows:
        if r.get(by) == name:
            for c in (pair, column):
                _check(c in r, f"a row of {name!r} has no {c!r}; it has: {', '.join(map(str, r))}")
            if r[pair] in found:
                raise ValueError(f"two rows with {by} = {name!r}, {pair} = {r[pair]!r}: choose one")
            found[r[pair]] = _number(r[column])
    if not found:
        raise ValueError(f"no rows with {by} = {name!r}")
    return found


def _floor_kind(floor, names) -> str:
    """Whether a trivial rival is a method, a fixed level, or a column of the rows."""
    return "name" if floor in names else "level" if isinstance(floor, (int, float)) else "column"


def _part(record: Record | dict, name: str) -> dict:
    return record.get(name, {}) if isinstance(record, dict) else getattr(record, name, {})


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
