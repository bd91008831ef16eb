"""Claims judged by paired intervals over seeds (Student's t)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from .records import Record


@dataclass(frozen=True)
class Gap:
    """A mean paired difference with its 95 % interval, over n pairs."""

    mean: float
    low: float
    high: float
    n: int


def gap(rows: Sequence[dict], a, b, metric: str, by: str = "model", pair: str = "seed") -> Gap:
    """``a`` minus ``b``: differences of a metric within equal values of ``pair``.

    With fewer than two pairs, or a missing value, the interval is unbounded: nothing is shown.
    Raises ValueError when a or b has no rows, or two rows for one pair.
    """
    value: dict[tuple, float] = {}
    for r in rows:
        if r[by] in (a, b) and (r[by], r[pair]) in value:
            raise ValueError(f"two rows with {by} = {r[by]!r}, {pair} = {r[pair]!r}: choose one")
        value[r[by], r[pair]] = _number(r[metric])
    for name in (a, b):
        if not any(k[0] == name for k in value):
            raise ValueError(f"no rows with {by} = {name!r}")
    pairs = [p for (name, p) in value if name == a and (b, p) in value]
    return _interval([value[a, p] - value[b, p] for p in pairs])


def compare(
    rows: Sequence[dict], metric: str, by: str = "model", pair: str = "seed", higher: bool = True
) -> pl.DataFrame:
    """One line a model, best first: mean and half-width of the metric's own 95 % interval.

    ``best?`` marks the best row and those that the paired interval cannot tell from it. Dense and
    embedding weights, seconds and samples per second are shown where the rows have them.
    """
    import polars as pl

    names = list(dict.fromkeys(r[by] for r in rows))
    mine = {n: [r for r in rows if r[by] == n] for n in names}
    own = {n: _interval([_number(r[metric]) for r in mine[n]]) for n in names}
    sign = -1 if higher else 1
    names.sort(key=lambda n: (math.isnan(own[n].mean), sign * own[n].mean))  # no value: last
    table = []
    for name in names:
        against = gap(rows, name, names[0], metric, by, pair)
        tied = name == names[0] or not (against.low > 0 or against.high < 0)
        line = {by: name, metric: own[name].mean, "±": own[name].high - own[name].mean}
        line |= {"best?": "yes" if name == names[0] else "cannot tell" if tied else ""}
        line |= {"seeds": own[name].n}
        for extra in ("logloss", "dense", "embedding", "seconds", "samples_per_second"):
            if extra in mine[name][0]:
                line[extra] = sum(_number(r[extra]) for r in mine[name]) / len(mine[name])
        table.append(line)
    whole = {c: pl.Int64 for c in ("dense", "embedding", "samples_per_second") if c in table[0]}
    return pl.DataFrame(table).cast(whole)


def judge(*gaps: Gap) -> str:
    """What intervals say of a claim that each gap is above 0.

    ``supported``: all lie above 0; ``contradicted``: all below; ``mixed``: some above, some below;
    ``partly``: some above, none below; ``not shown``: none above, and not all below.
    Raises ValueError without a gap.
    """
    if not gaps:
        raise ValueError("judge needs at least one gap")
    above, below = sum(g.low > 0 for g in gaps), sum(g.high < 0 for g in gaps)
    if above == len(gaps):
        return "supported"
    if below == len(gaps):
        return "contradicted"
    if above:
        return "mixed" if below else "partly"
    return "not shown"


@dataclass(frozen=True)
class Claim:
    """A sentence, the numbers for or against it, and what `judge` says of them."""

    text: str
    evidence: str
    outcome: str


def show(record: Record, claims: Sequence[Claim]) -> None:
    """Store the claims in the record and show them as a table."""
    import polars as pl

    from . import plots

    record.verdicts = [asdict(c) for c in claims]
    rows = [(c.text, c.evidence, f"**{c.outcome}**") for c in claims]
    plots.table(pl.DataFrame(rows, ["claim", "evidence here", "verdict"], orient="row"))


def _number(value: float | None) -> float:
    """A metric as it was before its record: JSON has no NaN, so that a record holds None."""
    return math.nan if value is None else value


def _interval(values: Sequence[float]) -> Gap:
    n = len(values)
    mean = sum(values) / n if n else math.nan
    if n < 2 or not all(math.isfinite(v) for v in values):
        return Gap(mean, -math.inf, math.inf, n)
    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    half = t_quantile(n - 1) * sd / math.sqrt(n)
    return Gap(mean, mean - half, mean + half, n)


def t_quantile(freedom: int, level: float = 0.95) -> float:
    """The t with P(|T| < t) = level for ``freedom`` >= 1 degrees of freedom.

    Bisection on the closed form of the distribution for whole degrees of freedom (Abramowitz and
    Stegun 26.7.3-4).
    """
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_inside(middle, freedom) < level else (low, middle)
    return low


def _t_inside(t: float, freedom: int) -> float:
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    term, total = (1.0, 1.0) if freedom % 2 == 0 else (cosine, cosine)
    for k in range(2 if freedom % 2 == 0 else 3, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    if freedom % 2 == 0:
        return sine * total
    return 2 / math.pi * (angle + (sine * total if freedom > 1 else 0.0))
