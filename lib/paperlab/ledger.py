"""Questions to many records: claims, costs, comparisons, freshness, and bands for a rerun.

A record's tables are its metrics that are rows with a ``seed``. What tells rows of one seed apart
(model, log, noise ...) is a group; the other numbers are measures. Timings, and what follows from
the group (a rate that was chosen, sizes, the best possible value), are neither.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from . import digest, records, runs, verdict
from .parameters import inspect

if TYPE_CHECKING:
    import polars as pl

TIMINGS = re.compile(r"second|memory")
BETTER = {"auc": 1, "gauc": 1, "accuracy": 1, "share": 1, "value": 1, "rank correlation": 1}
BETTER |= {"logloss": -1, "regret": -1, "error": -1}  # +1: higher is better
FOLLOWS = {"lr", "width", "dense", "embedding", "flops", "bayes", "bayes_auc", "bayes_logloss"}
FEWEST = 5  # seeds that a band needs


def tables(record: dict) -> dict[str, list[dict]]:
    """The tables of a record, by name."""
    return {
        name: rows
        for name, rows in record["metrics"].items()
        if isinstance(rows, list)
        and rows
        and all(isinstance(r, dict) and "seed" in r for r in rows)
    }


def groups(rows: list[dict]) -> list[str] | None:
    """The columns that, with the seed, tell the rows apart; None where no columns do.

    First those of words; then, while rows are still alike, numbers that are the same in every seed,
    the one with the fewest different values first.
    """
    columns = [c for c in dict.fromkeys(c for r in rows for c in r) if c != "seed"]
    values = {c: {_key(r.get(c)) for r in rows} for c in columns}
    words = [c for c in columns if any(isinstance(r.get(c), (str, bool)) for r in rows)]

    def distinct(chosen: list[str]) -> int:
        return len({(r["seed"], *(_key(r.get(c)) for c in chosen)) for r in rows})

    def steady(column: str) -> bool:
        by_seed = defaultdict(set)
        for r in rows:
            by_seed[r["seed"]].add(_key(r.get(column)))
        return len({frozenset(v) for v in by_seed.values()}) == 1

    chosen = words
    for column in sorted(set(columns) - set(words) - FOLLOWS, key=lambda c: (len(values[c]), columns.index(c))):  # fmt: skip
        if distinct(chosen) == len(rows):
            break
        if _numbers(rows, column) and steady(column) and distinct([*chosen, column]) > distinct(chosen):  # fmt: skip
            chosen = [*chosen, column]
    return chosen if distinct(chosen) == len(rows) else None


def measures(rows: list[dict], chosen: list[str]) -> list[str]:
    """The columns of fractions that are no group, no timing and do not follow from the group."""
    found = dict.fromkeys(c for r in rows for c, v in r.items() if isinstance(v, float))
    return [c for c in found if c not in ("seed", *chosen, *FOLLOWS) and not TIMINGS.search(c)]


def hold(reference: dict, record: dict) -> pl.DataFrame:
    """A new run's means beside the bands that a reference record gives, one line a mean.

    With n >= 5 seeds of mean x and standard deviation s in the reference and m seeds in the new
    run, a mean of the same distribution lies within

        x ± t s sqrt(1/n + 1/m),    P(|T| < t) = 1 - .05 / bands,    n - 1 degrees of freedom,

    so that a faithful rerun has a mean outside any of its bands in at most 5 % of all checks,
    however the measures hang together (Bonferroni). Rounding may differ between machines: a band is
    at least ± 1e-6 max(1, |x|). ``inside?`` is yes, no, or missing where the new run has no such row.
    """
    import polars as pl

    found = []
    for name, rows in tables(reference).items():
        chosen, new = groups(rows), defaultdict(list)
        if chosen is None:
            continue
        for r in tables(record).get(name, []):
            new[_group(r, chosen)].append(r)
        for group, old in _grouped(rows, chosen).items():
            for measure in measures(rows, chosen):
                before, after = (_values(side, measure) for side in (old, new[group]))
                if len(before) >= FEWEST:
                    found.append((name, group, measure, before, after))
    lines = []
    for name, group, measure, before, after in found:
        low, high = band(before, len(after) or 1, 1 - 0.05 / len(found))
        mean = sum(after) / len(after) if after else math.nan
        told = "missing" if not after else "yes" if low <= mean <= high else "no"
        was = sum(before) / len(before)
        lines.append([name, group, measure, was, low, high, mean, len(after), told])
    columns = ["table", "rows", "measure", "reference", "low", "high", "new", "seeds", "inside?"]
    return pl.DataFrame(lines, columns, orient="row")


def band(values: list[float], m: int, level: float) -> tuple[float, float]:
    """Where the mean of m new values lies with probability ``level``: see `hold`. At least 2 values."""
    n, mean = len(values), sum(values) / len(values)
    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    half = verdict.t_quantile(n - 1, level) * sd * math.sqrt(1 / n + 1 / m)
    half = max(half, 1e-6 * max(1, abs(mean)))
    return mean - half, mean + half


def compare(a: list[dict], b: list[dict]) -> pl.DataFrame:
    """Means of two runs, or of two sets of runs, and a minus b paired by seed with its 95 % interval.

    Lines are the rows that both have, by table and group; a column that has one value in all of a
    and one in all of b is no group, for it may be what is compared. Raises ValueError where nothing
    is shared, or a set has two rows for one seed.
    """
    import polars as pl

    lines = []
    for name in tables(a[0]) if a else ():
        sides = [[r for record in side for r in tables(record).get(name, [])] for side in (a, b)]
        chosen = groups(sides[0]) or groups(tables(a[0])[name])  # the second where seeds recur
        if chosen is None or not sides[1]:
            continue
        chosen = [c for c in chosen if any(len({_key(r.get(c)) for r in s}) > 1 for s in sides)]
        first, second = (_grouped(side, chosen) for side in sides)
        for group in [g for g in first if g in second]:
            rows = [r | {"side": "a"} for r in first[group]]
            rows += [r | {"side": "b"} for r in second[group]]
            for measure in measures(rows, chosen):
                if len(_values(rows, measure)) == len(rows):
                    gap = verdict.gap(rows, "a", "b", measure, by="side")
                    means = [
                        sum(values) / len(values)
                        for side in (first, second)
                        for values in [_values(side[group], measure)]
                    ]
                    told = (
                        "no"
                        if gap.low <= 0 <= gap.high
                        else "a above"
                        if gap.low > 0
                        else "a below"
                    )
                    numbers = [*means, gap.mean, gap.low, gap.high, gap.n]
                    lines.append([name, group, measure, *numbers, told])
    if not lines:
        raise ValueError("these runs share no rows with a seed")
    columns = ["table", "rows", "measure", "a", "b", "a - b", "low", "high", "seeds", "apart?"]
    return pl.DataFrame(lines, columns, orient="row")


def pick(found: dict[str, dict], word: str, root: Path) -> list[dict]:
    """The records that a word names, of those by name in ``found``.

    A run's name, or how it begins; or NAME=VALUE: the successful runs with that value, which is
    read as --set reads it. Of these, the newest one's notebook and other parameters are what all
    have, and a seed counts once, in the newest run that has it: ``found`` is newest first. Raises
    BadInput where it names none, or a beginning names several.
    """
    name, equals, text = word.partition("=")
    if not equals:
        names = [n for n in found if n == word] or [n for n in found if n.startswith(word)]
        if len(names) > 1:
            raise runs.BadInput(f"{word}: {len(names)} runs begin so: {', '.join(names[:3])} ...")
        side = [found[n] for n in names]
    else:
        books = {path.stem: inspect(path) for path in runs.notebooks(root)}
        good = [r for r in found.values() if r["status"] == "ok" and name in r["parameters"]]
        known = [(r, books.get(r["notebook"], {}).get(name)) for r in good]
        fit = [r for r, p in known if p and p.cast(text) == r["parameters"][name]]
        side, seeds = [], set()
        for r in fit:
            own = set(r["parameters"].get("seeds", []))
            if _setting(r) == _setting(fit[0]) and not (seeds & own):
                side.append(r)
                seeds |= own
    if not side:
        raise runs.BadInput(f"{word}: no such run; paperlab results lists them")
    return side


def _setting(record: dict) -> tuple:
    """What a record must share with others to be read as one run over more seeds."""
    return record["notebook"], {k: v for k, v in record["parameters"].items() if k != "seeds"}


def claims(found: list[dict]) -> pl.DataFrame:
    """Every claim of every record: outcome, evidence, and its size in seeds and in rows with a seed.

    A run also shows what the record that was kept before says, marked "full record": those claims
    are that record's, and are left out.
    """
    import polars as pl

    lines = [
        {
            "notebook": r["notebook"],
            "profile": r.get("profile"),
            "claim": c["text"],
            "evidence": c["evidence"],
            "outcome": c["outcome"],
            "seeds": len(r["parameters"].get("seeds", [])),
            "rows": sum(map(len, tables(r).values())),
        }
        for r in found
        for c in r["verdicts"]
        if not c["text"].endswith("full record)")
    ]
    columns = ["notebook", "profile", "claim", "evidence", "outcome"]
    schema = dict.fromkeys(columns, pl.String) | {"seeds": pl.Int64, "rows": pl.Int64}
    return pl.DataFrame(lines, schema)


def costs(found: list[dict]) -> pl.DataFrame:
    """Seconds, peak memory and samples a second (median over the rows that say) of every record."""
    import polars as pl

    lines = []
    for r in found:
        speeds = sorted(s for t in tables(r).values() for x in t if _finite(s := x.get("samples_per_second")))  # fmt: skip
        card = {k: r.get(k) for k in ("notebook", "profile", "machine", "device", "threads")}
        card |= {"seconds": r.get("seconds"), "peak MB": r.get("peak_memory_mb")}
        lines.append(card | {"samples/s": round(speeds[len(speeds) // 2]) if speeds else None})
    words = dict.fromkeys(("notebook", "profile", "machine", "device"), pl.String)
    numbers = {"threads": pl.Int64, "seconds": pl.Float64, "peak MB": pl.Int64}
    return pl.DataFrame(lines, words | numbers | {"samples/s": pl.Int64}, strict=False)


def leaders(found: list[dict]) -> pl.DataFrame:
    """The best model of every table and group beside the next, by the first measure of `BETTER`.

    ``ahead``: by how much, in the measure's better direction, paired by seed, with its 95 %
    interval; ``as good``: models that the paired interval cannot tell from the best, it included.
    """
    import polars as pl

    lines = []
    for record in found:
        for name, rows in tables(record).items():
            chosen = groups(rows) if all("model" in r for r in rows) else None
            measure = next((m for m in BETTER if chosen and all(_finite(r.get(m)) for r in rows)), None)  # fmt: skip
            if measure is None or measure in chosen or "model" not in chosen:
                continue
            for group, some in _grouped(rows, [c for c in chosen if c != "model"]).items():
                if len({r["model"] for r in some}) < 2 or len({r["seed"] for r in some}) < 2:
                    continue
                table = verdict.compare(some, measure, higher=BETTER[measure] > 0)
                best, second = table["model"][:2]
                gap = verdict.gap(some, best, second, measure)
                low, mean, high = sorted(BETTER[measure] * x for x in (gap.low, gap.mean, gap.high))
                lines.append({
                    "notebook": record["notebook"], "profile": record.get("profile"), "table": name,
                    "rows": group, "measure": measure, "best": best, "next": second, "ahead": mean,
                    "low": low, "high": high, "seeds": gap.n, "models": table.height,
                    "as good": sum(b != "" for b in table["best?"]),
                })  # fmt: skip
    return pl.DataFrame(lines)


def freshness(root: Path) -> pl.DataFrame:
    """Which code made what is committed: every notebook's outputs and every kept record.

    ``code`` is "today's", or the files that changed since, as far as git and the digests tell.
    """
    import polars as pl

    lines = []
    for path in runs.notebooks(root):
        stamp = json.loads(path.read_text())["metadata"].get("paperlab", {}).get("code")
        today = digest.notebook(path)
        told = "not stamped" if stamp is None else "today's" if stamp == today else "older"
        lines.append({"notebook": path.stem, "what": "outputs", "code": told})
        for kept in sorted((root / "data/reference").glob(f"{path.stem}_*.json")):
            code = (records.read(kept) or {}).get("code") or {}
            told = "today's" if code.get("digest") == today else "older"
            if told == "older" and code.get("commit") and not code.get("dirty"):
                files = digest.changed(path, root, code["commit"])
                told = "today's" if files == [] else f"older: {', '.join(files)}" if files else told
            lines.append({"notebook": path.stem, "what": kept.stem, "code": told})
    return pl.DataFrame(lines, dict.fromkeys(("notebook", "what", "code"), pl.String))


def _key(value):
    """A value of a group that a dict can hold."""
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _group(row: dict, chosen: list[str]) -> str:
    """Which group a row is of, in words: 'model=DNN, noise=30'."""
    return ", ".join(f"{c}={row.get(c)}" for c in chosen)


def _grouped(rows: list[dict], chosen: list[str]) -> dict[str, list[dict]]:
    found = defaultdict(list)
    for row in rows:
        found[_group(row, chosen)].append(row)
    return dict(found)


def _numbers(rows: list[dict], column: str) -> bool:
    return all(isinstance(r.get(column), (int, float, type(None))) for r in rows)


def _values(rows: list[dict], measure: str) -> list[float]:
    return [r[measure] for r in rows if _finite(r.get(measure))]


def _finite(value) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
