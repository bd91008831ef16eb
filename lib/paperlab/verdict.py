"""Claims judged by intervals: stated before the test, symmetric, and held at 5 % a notebook.

A claim says that a is better than b in *all* or in *some* of its comparisons, by an effect that
matters: delta. Each comparison gets one sign, read off its interval at Holm's level over all
comparisons of the notebook (`intervals.holm`):

    =      equivalent: the 90 % interval lies within ±delta (two one-sided tests at 5 %), even when
           it leaves out 0. Not corrected for the number of claims.
    ++     above 0, and the estimate is at least delta          --   the mirror image
    +      above 0, the estimate is below delta                 -    the mirror image
    ?      everything else: an interval with 0 inside, an unknown error (fewer than 3 pairs, a
           missing value, differences that are all alike), or two sides at the floor

The signs of a claim give its outcome, by the first line that fits:

    outcome         all                                  some
    no difference   every sign is =                      every sign is =
    mixed           signs on both sides of 0             signs on both sides of 0
    supported       every sign is ++                     a ++
    contradicted    a --                                 every sign is --
    leans for       a ++ or a +                          a +
    leans against   a -                                  a - or a --
    unresolved      no sign but ? and =                  no sign but ? and =

Swapping a and b turns *all a are better* into its opposite, *some b are better*: that swap mirrors
every outcome exactly. With one comparison, *all* and *some* are the same. *Mixed* goes before
*contradicted*, although one counter-example refutes *all*: both effects must be reported.

Identical differences have no spread, so they prove nothing: the outcome is *unresolved*. The
exception is a difference of exactly 0 in every pair while the values vary from pair to pair: both
sides compute the same, which is no difference. An *exact* comparison (a solved model, a numeric
identity) has no error by construction and takes no part in Holm's correction.

A comparison is at the floor when neither side is shown to be better than a trivial rival (coin,
constant, popularity) at 2.5 %, one-sided: its sign is ?, even for a large difference.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import intervals
from .evidence import KINDS, Comparison, build, direction
from .evidence import compare as compare  # notebooks find all they need here
from .evidence import paired as paired
from .evidence import paired_units as paired_units

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from .intervals import Student
    from .records import Record

OUTCOMES = (
    *("supported", "leans for", "no difference", "leans against", "contradicted"),
    *("mixed", "unresolved"),
)
MIRROR = dict(zip(OUTCOMES, (*OUTCOMES[4::-1], *OUTCOMES[5:]), strict=True))
DUAL = {"all": "some", "some": "all"}
EQUAL = 9  # the sign of an equivalent comparison; the others are 2, 1, 0, -1, -2
WORDS = {"+": "for", "-": "against", "=": "equivalent", "?": "open"}
FIELDS = ("text", "metric", "delta", "quantifier", "better")  # of a claim in a record
SIGNS = {2: "++", 1: "+", 0: "?", -1: "-", -2: "--", EQUAL: "="}


@dataclass(frozen=True)
class Claim:
    """A sentence, fixed before its test, that a is better than b.

    metric: what is compared, in words; delta > 0: the smallest difference that matters, in the
    metric's units (natural logs for the kinds log and log-rank); quantifier: better in "all" or in
    "some" comparisons; better: whether "higher" or "lower" values are. Raises ValueError.
    """

    text: str
    comparisons: tuple[Comparison, ...]
    metric: str
    delta: float
    quantifier: str = "all"
    better: str = "higher"

    def __post_init__(self):
        object.__setattr__(self, "comparisons", tuple(self.comparisons))
        _check(bool(self.comparisons), f"{self.text!r} needs at least one comparison")
        _check(0 < self.delta < math.inf, f"delta must be a number above 0, got {self.delta!r}")
        _check(self.quantifier in DUAL, f"quantifier must be all or some, got {self.quantifier!r}")
        _check(self.better in ("higher", "lower"), f"better must be higher or lower, got {self.better!r}")  # fmt: skip

    def swapped(self) -> Claim:
        """The opposite claim, whose outcome is the mirror image: b is better in *some* for *all*."""
        turned = tuple(c.swapped() for c in self.comparisons)
        return replace(self, comparisons=turned, quantifier=DUAL[self.quantifier])


@dataclass(frozen=True)
class Judged:
    """A claim with its outcome.

    signs, levels: of each comparison; spans: the intervals of a minus b that decided (at Holm's
    level; at 90 % for no difference); note: why it is unresolved, and what would resolve it;
    needed: the pairs that would.
    """

    claim: Claim
    outcome: str
    signs: tuple[str, ...]
    levels: tuple[float, ...]
    spans: tuple[tuple[float, float], ...]
    note: str = ""
    needed: int | None = None

    @property
    def evidence(self) -> str:
        """The differences with their intervals; of more than three, counts and the weakest."""
        at = " (90 %)" if self.outcome == "no difference" else ""
        texts = []
        for c, (low, high) in zip(self.claim.comparisons, self.spans, strict=True):
            ends = f"{low:+.3g}, {high:+.3g}" if math.isfinite(high - low) else "error unknown"
            value = "no value" if math.isnan(c.estimate.value) else f"{c.estimate.value:+.3g}"
            texts.append(f"{value} [{ends}]{at}")
        if len(texts) == 1:
            return texts[0]
        named = [f"{c.label}: {t}" for c, t in zip(self.claim.comparisons, texts, strict=True)]
        if len(texts) <= 3:
            return "; ".join(named)
        way = 1 if self.claim.better == "higher" else -1
        weak = np.argmin([way * c.estimate.value for c in self.claim.comparisons])
        words = [f"{sum(s.strip(k) == '' for s in self.signs)} {w}" for k, w in WORDS.items()]
        return f"{', '.join(words)}, of {len(texts)}; weakest: {named[weak]}"

    def stored(self) -> dict:
        """What a record keeps: the outcome, and all that `rejudge` needs to find it again.

        Raises ValueError for a comparison that was not built from a record's table.
        """
        c = self.claim
        sources = [x.source for x in c.comparisons]
        _check(None not in sources, f"{c.text!r}: build its comparisons from the record's tables")
        result = {"evidence": self.evidence, "outcome": self.outcome, "note": self.note}
        stated = {k: getattr(c, k) for k in FIELDS}
        kept = stated | result | {"comparisons": sources}
        return json.loads(json.dumps(kept, default=np.generic.item))  # numpy's numbers are no JSON


def signs(
    value: Float[np.ndarray, "... m"],
    p: Float[np.ndarray, "... m"],
    p_equal: Float[np.ndarray, "... m"],
    level: Float[np.ndarray, "... m"],
    delta: Float[np.ndarray, "... m"],
) -> Int[np.ndarray, "... m"]:
    """The sign of each comparison, as in the module's first table; positive values favour a.

    p: two-sided p-values of the difference; p_equal: the larger of two one-sided p-values at
    ±delta; level: Holm's.
    """
    found = np.sign(value) * np.where(np.abs(value) >= delta, 2, 1) * (p <= level)
    return np.where(p_equal <= intervals.ALPHA, EQUAL, np.nan_to_num(found)).astype(int)


def outcomes(found: Int[np.ndarray, "... m"], quantifier: str) -> Int[np.ndarray, ...]:
    """Index into OUTCOMES of claims with m comparisons, by the module's second table."""
    equal = found == EQUAL
    above, below = ((found > 0) & ~equal).any(-1), (found < 0).any(-1)
    if quantifier == "all":
        supported, contradicted = (found == 2).all(-1), (found == -2).any(-1)
    else:
        supported, contradicted = (found == 2).any(-1), (found == -2).all(-1)
    rules = [equal.all(-1), above & below, supported, contradicted, above, below]
    return np.select(rules, [2, 5, 0, 4, 1, 3], 6)


def judge(claims: Sequence[Claim]) -> list[Judged]:
    """The outcomes of all claims of one notebook, with Holm's correction over their comparisons."""
    flat = [(claim, c) for claim in claims for c in claim.comparisons]
    facing = [c.estimate if claim.better == "higher" else c.estimate.reverse() for claim, c in flat]
    delta = np.array([claim.delta for claim, _ in flat])
    p = np.array([min(1.0, 2 * min(e.above(0), e.below(0))) for e in facing])
    p_equal = np.array([max(e.above(-d), e.below(d)) for e, d in zip(facing, delta, strict=True)])
    tested = np.array([c.kind != "exact" for _, c in flat], bool)
    level = np.full(len(flat), intervals.ALPHA)
    level[tested] = intervals.holm(p[tested]) if tested.any() else level[tested]
    found = signs(np.array([e.value for e in facing]), p, p_equal, level, delta)
    floors = [_at_floor(claim, c) for claim, c in flat]
    found[[bool(f) for f in floors]] = 0
    judged, start = [], 0
    for claim in claims:
        here = slice(start, start := start + len(claim.comparisons))
        outcome = OUTCOMES[int(outcomes(found[here], claim.quantifier))]
        shown = np.full(len(level[here]), 0.1) if outcome == "no difference" else level[here]
        spans = [c.estimate.interval(1 - a) for c, a in zip(claim.comparisons, shown, strict=True)]
        spans = tuple((float(low), float(high)) for low, high in spans)
        note, needed = "", None
        if outcome == "unresolved":
            note, needed = _note(claim, found[here], level[here], floors[here])
        words = tuple(SIGNS[int(s)] for s in found[here])
        judged.append(
            Judged(claim, outcome, words, tuple(map(float, level[here])), spans, note, needed)
        )
    return judged


def refuse_trivial(claims: Sequence[Claim]) -> None:
    """Raise ValueError for a claim that a trivial rival in a's place would win as well."""
    for i, claim in enumerate(claims):
        for name in claim.comparisons[0].floors:
            if not all(name in c.floors for c in claim.comparisons):
                continue
            rival = [replace(c, estimate=c.floors[name][1].reverse(), floors={}) for c in claim.comparisons]  # fmt: skip
            swapped = [*claims[:i], replace(claim, comparisons=tuple(rival)), *claims[i + 1 :]]
            if judge(swapped)[i].outcome == "supported":
                raise ValueError(f"{claim.text!r}: {name} wins it too; choose a stronger rival")


def _at_floor(claim: Claim, comparison: Comparison) -> str:
    """The trivial rival that neither side is shown to beat, or an empty string."""
    unknown = not math.isfinite(comparison.estimate.se)  # stays open: there the sign tells enough
    for name, sides in comparison.floors.items():
        better = [s if claim.better == "higher" else s.reverse() for s in sides]
        if all(s.above(0) > intervals.ALPHA / 2 and not (unknown and s.value > 0) for s in better):
            return name
    return ""


def judge_many(found: Student, delta: float, quantifier: str = "all") -> Int[np.ndarray, ...]:
    """Outcomes (index into OUTCOMES) of many notebooks at once, whose claims have one form.

    found: estimates of shape (..., claims, comparisons), positive in favour of a; what `judge` does
    with one notebook a row, without floors.
    """
    p = 2 * np.minimum(found.above(0), found.below(0))
    level = intervals.holm(p.reshape(*p.shape[:-2], -1)).reshape(p.shape)
    p_equal = np.maximum(found.above(-delta), found.below(delta))
    return outcomes(signs(found.value, p, p_equal, level, delta), quantifier)


def _note(claim: Claim, found, level, floors) -> tuple[str, int | None]:
    """Why a claim is unresolved, the power at 2 delta, and the pairs that would raise it to 80 %.

    Where it is above 80 % already: the pairs that show equivalence when there is no effect.
    """
    open_ = [(c.estimate, a) for c, s, a, f in zip(claim.comparisons, found, level, floors, strict=True) if s == 0 and not f]  # fmt: skip
    reasons = [f"at the floor: neither side beats {f}" for f in dict.fromkeys(floors) if f]
    if any(not math.isfinite(e.se) for e, _ in open_):
        reasons.append("error unknown: too few pairs, a missing value, or identical differences")
    open_, needed = [(e, a) for e, a in open_ if math.isfinite(e.se)], None
    if open_:
        chance = min(intervals.power(e, 2 * claim.delta, a) for e, a in open_)
        aim, width, wanted = (2, None, 0.8) if chance < 0.8 else (1, 2 * intervals.ALPHA, 0.9)
        each = [intervals.pairs_needed(e, aim * claim.delta, width or a, wanted) for e, a in open_]
        needed = None if None in each else max(each)
        pairs = "more pairs alone are not enough" if needed is None else f"{needed} pairs"
        to = "for 80 %" if aim == 2 else "to show no difference"
        reasons.append(f"power {chance:.0%} at 2 delta; {pairs} {to}")
    return "; ".join(reasons), needed


def claim(
    record: Record | dict,
    text: str,
    table: str | Sequence[str],
    a,
    b=None,
    *,
    delta: float,
    quantifier: str = "all",
    better: str | None = None,
    where: Sequence[dict] | dict | None = None,
    **options,
) -> Claim:
    """A claim on a record's tables, in one call: every table x a x b x where is a comparison.

    table, a, b, where: one value or a list of them; better: as the table declares it unless given;
    options: those of `evidence.build`, such as metric, by, pair, level, kind, floor.
    """
    several = lambda x: list(x) if isinstance(x, (list, tuple)) else [x]  # noqa: E731
    places = itertools.product(*map(several, (table, a, b, where)))
    parts = [build(record, t, x, y, where=w, **options) for t, x, y, w in places]
    metric = parts[0].source.get("metric", parts[0].source["table"])
    better = better or direction(record, parts[0].source["table"], metric)
    return Claim(text, tuple(parts), metric, delta, quantifier, better)


def show(record: Record, claims: Sequence[Claim]) -> list[Judged]:
    """Judge the claims, store them in the record so that `rejudge` finds them, show one table."""
    judged = judge(claims)
    record.verdicts = [j.stored() for j in judged]
    table(judged)
    return judged


def table(judged: Sequence[Judged]) -> None:
    """Show judged claims: claim, difference, the smallest effect that matters, outcome."""
    from IPython.display import Markdown

    from . import plots

    parts = [c for j in judged for c in j.claim.comparisons]
    kinds = dict.fromkeys(KINDS[c.kind] for c in parts)
    tested = sum(c.kind != "exact" for c in parts)
    head = f"difference [interval: {', '.join(kinds)}; Holm over {tested}]"
    rows = [
        {
            "claim": j.claim.text,
            head: j.evidence,
            "smallest effect that matters": f"{j.claim.delta:.3g} {j.claim.metric}",
            "outcome": Markdown(f"**{j.outcome}**" + f" ({j.note})" * bool(j.note)),
        }
        for j in judged
    ]
    plots.table(rows)


def rejudge(record: dict, folder: Path | None = None) -> list[Judged]:
    """The outcomes of a stored record's claims, computed again from its tables.

    folder: where its per-unit files lie, data/reference by default. Raises ValueError for claims
    without comparisons: the record was made before this engine.
    """
    from .manifest import project_root

    claims = []
    if folder is None and record.get("units"):
        folder = project_root() / "data/reference"
    for kept in record["verdicts"]:
        _check(bool(kept.get("comparisons")), f"{kept['text']!r} was recorded before the engine")
        parts = tuple(build(record, folder=folder, **source) for source in kept["comparisons"])
        claims.append(Claim(comparisons=parts, **{k: kept[k] for k in FIELDS}))
    return judge(claims)


def examples() -> list[Judged]:
    """One claim for each of OUTCOMES, with delta = 1: what an interval has to look like."""
    effects = [[(3, 0.5)], [(0.8, 0.25)], [(0.1, 0.3)], [(-0.8, 0.25)], [(-3, 0.5)]]
    effects += [[(2.2, 0.5), (-2.2, 0.5)], [(0.6, 0.9)]]
    found = []
    for parts in effects:
        sides = [Comparison("a - b", intervals.Student(v, se, 20.0, 21), {}) for v, se in parts]
        found += judge([Claim("a beats b", tuple(sides), "score", delta=1.0)])
    return found


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
