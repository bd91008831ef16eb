"""Queries over many records: claims and outcomes, best methods, changes, and the age of the code.

Only tables whose columns a record declares are read (`Record.table`). Outcomes are computed from
them again (`verdict.rejudge`); the outcomes that a record stores are not used.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import digest, intervals, manifest, records, runs, verdict
from .parameters import inspect

if TYPE_CHECKING:
    import polars as pl

FEWEST = 5  # seeds that a band needs
COMPARED = ["table", "rows", "metric", "a", "b", "a - b, paired", "seeds"]
BEFORE = "recorded before the engine"
TODAY = "today's"
CLAIM_COLUMNS = dict.fromkeys(
    ("notebook", "profile", "claim", "outcome", "difference", "note"), str
)
CLAIM_COLUMNS |= {"main": bool, "seeds": int, "needed": int}


class Cell(NamedTuple):
    """What identifies a mean of a record: its table, its rows in words, and the metric."""

    table: str
    rows: str
    metric: str


def cells(parts: Sequence[dict], without: Sequence[str] = ()) -> dict[Cell, dict]:
    """The values of every declared metric: Cell -> {pair: value}.

    parts: one record, or several that hold parts of one table. without: columns that do not tell
    rows apart. A missing value is NaN. Raises ValueError where two rows have the same pair.
    """
    values: dict[Cell, dict] = defaultdict(dict)
    for record in parts:
        for table, roles in (record.get("tables") or {}).items():
            keys = [k for k in (roles["group"], *roles["where"]) if k not in without]
            for row in record["metrics"][table]:
                rows = ", ".join(f"{k}={row[k]}" for k in keys)
                for metric in roles["metrics"]:
                    cell, pair = Cell(table, rows, metric), row[roles["pair"]]
                    if pair in values[cell]:
                        raise ValueError(f"two rows of {table} with {rows}, {roles['pair']}={pair}")
                    values[cell][pair] = math.nan if row[metric] is None else row[metric]
    return dict(values)


def declared(record: dict) -> None:
    """Raise BadInput for a record whose tables declare no roles."""
    if not record.get("tables"):
        raise runs.BadInput(f"this record of {record['notebook']} was {BEFORE}: run it again")


def check(reference: dict, record: dict) -> pl.DataFrame:
    """A new run's means beside the bands that a reference record gives, one line a mean.

    With n >= 5 pairs of mean x and standard deviation s in the reference and m pairs in the new
    run, a mean of the same distribution lies within

        x ± t s sqrt(1/n + 1/m),    P(|T| < t) = 1 - .05 / bands,    n - 1 degrees of freedom,

    so that a faithful rerun has a mean outside any of its bands in at most 5 % of all checks,
    however the metrics depend on each other (Bonferroni). Rounding may differ between machines: a
    band is at least ± 1e-6 max(1, |x|). ``inside?`` is yes, no, or missing where the new run has no
    such rows. Raises BadInput for a reference without declared tables.
    """
    import polars as pl

    declared(reference)
    old, new, lines = cells([reference]), cells([record]), []
    old = {cell: list(v.values()) for cell, v in old.items() if len(v) >= FEWEST}
    for cell, values in old.items():
        again = list(new.get(cell, {}).values())
        low, high = band(values, len(again) or 1, 1 - 0.05 / len(old))
        mean = sum(again) / len(again) if again else math.nan
        inside = "missing" if not again else "yes" if low <= mean <= high else "no"
        lines.append([*cell, sum(values) / len(values), low, high, mean, len(again), inside])
    columns = ["table", "rows", "metric", "reference", "low", "high", "new", "seeds", "inside?"]
    return pl.DataFrame(lines, columns, orient="row")


def band(values: list[float], m: int, level: float) -> tuple[float, float]:
    """Where the mean of m new values lies with probability ``level``: see `check`. At least 2 values."""
    n, mean = len(values), sum(values) / len(values)
    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(intervals.t_quantile(n - 1, level)) * sd * math.sqrt(1 / n + 1 / m)
    half = max(half, 1e-6 * max(1, abs(mean)))
    return mean - half, mean + half


def compare(a: Sequence[dict], b: Sequence[dict]) -> pl.DataFrame:
    """Means of two runs, or of two sets of runs, and a minus b paired by seed, one line a mean.

    Lines are the means that both sides have; a column that has one value in all of a and one in all
    of b tells no rows apart, for it may be what is compared. The intervals hold together at 95 %
    (Holm), and ``apart?`` says whether they leave out 0. Raises BadInput where nothing is shared.
    """
    import polars as pl

    for record in (*a, *b):
        declared(record)
    seen: dict[str, list[set]] = defaultdict(lambda: [set(), set()])
    for side, parts in enumerate((a, b)):
        for record in parts:
            for table, roles in record["tables"].items():
                for column in (roles["group"], *roles["where"]):
                    seen[column][side] |= {json.dumps(r[column]) for r in record["metrics"][table]}
    single = [column for column, sides in seen.items() if max(map(len, sides)) == 1]
    first, second = cells(a, single), cells(b, single)
    shared, lines = [c for c in first if first[c].keys() & second.get(c, {}).keys()], []
    sides = [(first[c], second[c], sorted(first[c].keys() & second[c].keys())) for c in shared]
    gaps = [intervals.paired([x[k] for k in both], [y[k] for k in both]) for x, y, both in sides]
    if not gaps:
        raise runs.BadInput("these runs share no rows of a declared table")
    levels = intervals.holm([min(1.0, 2 * min(g.above(0), g.below(0))) for g in gaps])
    for cell, (x, y, _), gap, level in zip(shared, sides, gaps, levels, strict=True):
        low, high = map(float, gap.interval(1 - level))
        apart = "a above" if low > 0 else "a below" if high < 0 else "no"
        means = [sum(v.values()) / len(v) for v in (x, y)]
        lines.append([*cell, *means, float(gap.value), low, high, gap.n, apart])
    columns = ["table", "rows", "metric", "a", "b", "a - b", "low", "high", "seeds", "apart?"]
    return pl.DataFrame(lines, columns, orient="row")


def compared(table: pl.DataFrame) -> list[tuple[bool, list[str]]]:
    """What `compare` gives as text: whether the two sides are apart, and cells under COMPARED."""
    return [
        (
            apart != "no",
            [*cell, f"{a:.4g}", f"{b:.4g}", f"{gap:+.3g} [{low:+.3g}, {high:+.3g}]", str(n)],
        )
        for *cell, a, b, gap, low, high, n, apart in table.iter_rows()
    ]


def outcomes(record: dict, folder: Path | None = None) -> dict[str, str]:
    """Claim -> outcome, computed from a record's tables; empty where it was made before the engine."""
    try:
        return {j.claim.text: j.outcome for j in verdict.rejudge(record, folder)}
    except ValueError:
        return {}


def leaders(record: dict) -> list[dict]:
    """The best method of each declared table and condition, by its main metric.

    ``methods`` lists the first and those that paired intervals do not tell from it; ``best`` is
    the same as text.
    """
    import polars as pl

    lines = []
    for table, roles in (record.get("tables") or {}).items():
        by_condition = defaultdict(list)
        for row in record["metrics"][table]:
            by_condition[", ".join(f"{k}={row[k]}" for k in roles["where"])].append(row)
        for rows, some in by_condition.items():
            order = [roles[k] for k in ("metric", "group", "pair", "better")]
            board = verdict.compare(some, *order).filter(pl.col("best?") != "")
            line = {"table": table, "rows": rows, "metric": roles["metric"]}
            methods = list(map(str, board[roles["group"]]))
            line |= {"best": ", ".join(methods), "methods": methods}
            line["mean"] = board[roles["metric"]][0]
            lines.append(line)
    return lines


def pick(listed: dict[str, dict], word: str, root: Path) -> list[dict]:
    """The records that a word of the command line names, among those in ``listed``.

    word: a run's name or the beginning of it; or NAME=VALUE, the successful runs with that value,
    which is read as --set reads it. These are restricted to the notebook and the other parameters of
    the newest one, and a seed counts once, in the newest run that has it (``listed`` is newest
    first). Raises BadInput for a word that names no run, or a beginning that names several.
    """
    name, equals, text = word.partition("=")
    if not equals:
        names = [n for n in listed if n == word] or [n for n in listed if n.startswith(word)]
        if len(names) > 1:
            raise runs.BadInput(
                f"{word}: {len(names)} runs begin with it: {', '.join(names[:3])} ..."
            )
        side = [listed[n] for n in names]
    else:
        books = {path.stem: inspect(path) for path in runs.notebooks(root)}
        good = [r for r in listed.values() if r["status"] == "ok" and name in r["parameters"]]
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


def committed(root: Path, profiles: Sequence[str] = ("full", "gpu")) -> list[dict]:
    """The committed records of the project's notebooks with one of these profiles, in order."""
    books = [path.stem for path in runs.notebooks(root)]
    kept = [records.reference(book, profile, root) for book in books for profile in profiles]
    return [record for record in kept if record]


def claims(root: Path, kept: Sequence[dict]) -> pl.DataFrame:
    """Every claim of committed records that its notebook still makes, a line each.

    notebook, profile, claim, outcome, difference, note, main (the record's first claim), seeds (the
    fewest pairs of its comparisons), needed (the pairs that would resolve it). A claim is withdrawn
    where the notebook's cells hold no such string: it has no line. A record from before the engine
    has one line without a claim, whose outcome is `BEFORE`.
    """
    import polars as pl

    lines = []
    for record in kept:
        line = {"notebook": record["notebook"], "profile": record["profile"], "main": False}
        try:
            judged = verdict.rejudge(record, root / "data/reference")
        except ValueError:
            lines.append(line | {"outcome": BEFORE})
            continue
        still_made = claim_texts(root / "notebooks" / f"{record['notebook']}.ipynb")
        for i, j in enumerate(judged):
            if not still_made(j.claim.text):
                continue
            pairs = min(c.estimate.n for c in j.claim.comparisons)
            line |= {"claim": j.claim.text, "outcome": j.outcome, "difference": j.evidence}
            line |= {"note": j.note, "main": i == 0, "seeds": pairs, "needed": j.needed}
            lines.append(dict(line))
    kinds = {str: pl.String, bool: pl.Boolean, int: pl.Int64}
    return pl.DataFrame(lines, {k: kinds[v] for k, v in CLAIM_COLUMNS.items()})


def claim_texts(path: Path) -> Callable[[str], bool]:
    """A test of texts: whether a notebook's code cells hold one as a string or an f-string.

    An f-string counts with at least ten characters of its own, whatever its values are. Cells that
    call `tryout.run` hold its claims, method against rivals, on whatever data.
    """
    code = digest.cells(path.read_bytes())
    texts, patterns = set(), []
    if "tryout.run(" in code:
        method = manifest.read(path.with_suffix(".toml")).tryout["method"]
        patterns.append(re.compile(rf"{re.escape(method)} beats .* on .*"))
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = [re.escape(p.value) if isinstance(p, ast.Constant) else ".*" for p in node.values]  # fmt: skip
            if sum(len(p.value) for p in node.values if isinstance(p, ast.Constant)) >= 10:
                patterns.append(re.compile("".join(parts), re.DOTALL))
    return lambda text: text in texts or any(p.fullmatch(text) for p in patterns)


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """Papers by the outcome of their main claim: outcome, papers, which.

    table: what `claims` gives; the numbers of unresolved papers stand with the seeds that would
    resolve them.
    """
    import polars as pl

    papers: dict[str, list[str]] = {outcome: [] for outcome in (*verdict.OUTCOMES, BEFORE)}
    for line in table.iter_rows(named=True):
        if line["main"] or line["outcome"] == BEFORE:
            number = line["notebook"][:3]
            if line["outcome"] == "unresolved":
                number += f" ({line['needed']} seeds)" if line["needed"] else " (more seeds do not)"
            papers[line["outcome"]].append(number)
    lines = [(outcome, len(which), ", ".join(which)) for outcome, which in papers.items() if which]
    return pl.DataFrame(lines, ["outcome", "papers", "which"], orient="row")


def freshness(root: Path) -> pl.DataFrame:
    """The age of what is committed: every notebook's outputs and every kept record.

    ``code`` is "today's" where today's code would give the same, else the files that changed since,
    as far as git and the digests show.
    """
    import polars as pl

    lines = []
    for path in runs.notebooks(root):
        stamp = json.loads(path.read_text())["metadata"].get("paperlab", {}).get("code")
        today = digest.notebook(path)
        state = "not stamped" if stamp is None else TODAY if stamp == today else "older"
        lines.append({"notebook": path.stem, "what": "outputs", "code": state})
        for kept in sorted((root / "data/reference").glob(f"{path.stem}_*.json")):
            code = (records.read(kept) or {}).get("code") or {}
            state = TODAY if code.get("digest") == today else "older"
            if state == "older" and code.get("commit") and not code.get("dirty"):
                files = digest.changed(path, root, code["commit"])
                state = TODAY if files == [] else f"older: {', '.join(files)}" if files else state  # fmt: skip
            lines.append({"notebook": path.stem, "what": kept.stem, "code": state})
    return pl.DataFrame(lines, dict.fromkeys(("notebook", "what", "code"), pl.String))


def costs(root: Path, kept: Sequence[dict]) -> pl.DataFrame:
    """Committed records in short: the leader of the first table, minutes, peak memory, code."""
    import polars as pl

    code = {line["what"]: line["code"] for line in freshness(root).to_dicts()}
    lines = []
    for record in kept:
        name = f"{record['notebook']}_{record['profile']}"
        best = leaders(record)[:1]
        state, _, files = code[name].partition(": ")
        lines.append({
            "record": name,
            "best": f"{best[0]['best'][:60]} ({best[0]['metric']} {best[0]['mean']:.3g})" if best else None,
            "minutes": (record.get("seconds") or math.nan) / 60,
            "peak GB": (record.get("peak_memory_mb") or math.nan) / 1000,
            "code": f"{state}: {files.count(',') + 1} files" if files else state,
        })  # fmt: skip
    return pl.DataFrame(lines)


def _setting(record: dict) -> tuple:
    """What a record must share with others to be read as one run over more seeds."""
    return record["notebook"], {k: v for k, v in record["parameters"].items() if k != "seeds"}
