"""Commands that only read: list, show and results."""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import manifest, parameters, plots, records, runs
from .commands import Name, fail, print_table
from .parameters import as_text

if TYPE_CHECKING:
    import polars as pl

STAMPED = re.compile(r"(\d{8}-\d{6}-\d{3})-(\w+-\w+)-[0-9a-f]+")  # a folder's name under data/runs
WIDTH = 80


def list_notebooks() -> None:
    """List the notebooks: question, status, seconds of the quick run, profiles.

    \b
    Example:
      paperlab list
    """
    good, bad = manifest.readable(records.project_root())
    lines = []
    for m in good:
        seconds = m.measured.get("quick", {}).get("seconds")
        lines.append([m.stem, f"{m.name}: {m.question}", m.status, seconds, " ".join(m.profiles)])
    print_table("Notebooks", ["name", "question", "status", "seconds", "profiles"], lines)
    for message in bad:
        fail(message, 2)
    if bad:
        raise typer.Exit(2)


def show(name: Name) -> None:
    """Show a notebook: its paper, parameters, profiles, and what committed runs say of its claims.

    \b
    Examples:
      paperlab show ssr
      paperlab show 602
    """
    from . import ledger

    root = records.project_root()
    path = runs.find(name, root)
    known, kept = parameters.inspect(path), {}
    profiles = {"quick": "the defaults above"}
    measured: dict[str, dict] = {}
    m = manifest.read(path.with_suffix(".toml")) if path.with_suffix(".toml").is_file() else None
    if m:
        measured = m.measured
        _about(m, path, root)
        for profile in m.profiles:
            values = m.profile(profile, known)
            profiles[profile] = " ".join(f"{k}={as_text(v)}" for k, v in values.items())
            if record := records.reference(path.stem, profile, root):
                kept[profile] = record
    cells = [[p.name, f"{p.type}\n{p.span}", as_text(p.default), p.words] for p in known.values()]
    print_table("Parameters", ["name", "type, range", "default", "meaning"], cells, whole=2)
    cells = [[p, text, *_cost(measured.get(p), kept.get(p))] for p, text in profiles.items()]
    print_table("Profiles", ["name", "values that differ", "time", "memory"], cells)
    if m and m.tryout:
        _on_own_data(m)
    claims = ledger.claims(root, list(kept.values())).rows(named=True)
    if claims:
        cells = [[c["profile"], c["claim"], c["outcome"], c["difference"]] for c in claims]
        columns = ["profile", "claim", "outcome", "difference, interval, seeds"]
        print_table("Claims of the committed records", columns, cells)
    elif len(profiles) > 1:
        name = f"{path.stem[4:]} --profile {list(profiles)[1]}"
        print(f"no committed record: paperlab run {name} --keep makes one")


def _about(m: manifest.Manifest, path: Path, root: Path) -> None:
    """Print what a manifest says of its paper, a paragraph each."""
    module = f"lib/paperlab/{m.module.replace('.', '/')}"
    lines = {
        "notebook": os.path.relpath(path),
        "paper": m.title,
        "authors": m.authors,
        "venue": ", ".join(filter(None, [m.venue, *(f"arXiv {a}" for a in m.arxiv)])),
        "status": m.status,
        "claim": m.claim,
        "module": m.module and (f"{module}.py" if (root / f"{module}.py").is_file() else module),
        "data": m.quick_data + (f" (quick); {', '.join(m.data)}" if m.data else ""),
    }
    print(f"{m.heading}\n")
    for key, text in lines.items():
        if text:
            print(
                textwrap.fill(text, WIDTH, initial_indent=f"{key:<10}", subsequent_indent=" " * 10)
            )
    print()


def _on_own_data(m: manifest.Manifest) -> None:
    """Print what `paperlab try` compares, and its settings with their defaults."""
    from . import tryout

    terms = tryout.terms_of(m.stem, {})
    lines = [["data", f"{terms['kind']}: a set that `paperlab data` lists"]]
    lines += [["compared", f"{terms['method']} with {', '.join(terms['rivals'])}"]]
    lines += [["delta", f"{terms['delta']:g}, the smallest effect that matters"]]
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in terms["settings"].items()}
    lines += [["--set", "\n".join(f"{k}={as_text(v)}" for k, v in settings.items())]]
    print_table(f"On your own data: paperlab try {m.slug} --data NAME", ["what", "value"], lines)


def _cost(measured: dict | None, record: dict | None) -> list[str]:
    """Time and peak memory of a profile: as its manifest has them, else as its record does."""
    seconds = (measured or {}).get("seconds") or (record or {}).get("seconds")
    memory = (measured or {}).get("memory_mb") or (record or {}).get("peak_memory_mb")
    time = "not measured" if not seconds else f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"  # fmt: skip
    return [time, f"{memory / 1000:.1f} GB" if memory else ""]


def results(
    notebook: Annotated[str | None, typer.Option(help="only this notebook")] = None,
    status: Annotated[str | None, typer.Option(help="only ok, failed or running")] = None,
    profile: Annotated[str | None, typer.Option(help="only this profile")] = None,
    since: Annotated[str | None, typer.Option(help="only runs from this day, YYYY-MM-DD")] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(help="two runs, or NAME=VALUE twice for all runs with those values"),
    ] = None,
    export: Annotated[Path | None, typer.Option(help="to a file: .parquet, .csv or .md")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """List all runs, newest first, or compare two of them.

    A run is named by the beginning of its folder under data/runs, or like 101_ssr_full for a
    committed record. Best is the best mean in a run's first table, by that table's main metric,
    with the methods that paired intervals do not tell apart; --json has the other tables too.

    \b
    Examples:
      paperlab results --notebook ssr --since 2026-11-01
      paperlab results --compare 111_bars_frappe_full 111_bars_frappe_own
      paperlab results --compare strength=0.5 strength=2
      paperlab results --json
    """
    root = records.project_root()
    if export and export.suffix not in (".parquet", ".csv", ".md"):
        raise runs.BadInput(f"--export {export}: a name that ends with .parquet, .csv or .md")
    every = _chosen(root, notebook, status, profile, since)
    if compare:
        _show_compared(every, compare, root, export, as_json)
    elif export and export.suffix != ".md":
        import polars as pl

        _export(records.read_all(root).filter(pl.col("run").is_in(list(every))), export)
    else:
        lines = [_result(name, record, root) for name, record in every.items()]
        if as_json:
            print(json.dumps(lines, indent=1))
            return
        cells = [_readable(line) for line in lines]
        columns = ["run", "status", "best", "claims"]
        if export:
            import polars as pl

            _export(pl.DataFrame(cells, dict.fromkeys(columns, pl.String), orient="row"), export)
        else:
            for cell in cells:
                cell[0] = STAMPED.sub(r"\1\n\2", cell[0])
            print_table("Runs", columns, cells)


def _chosen(root: Path, notebook, status, profile, since) -> dict[str, dict]:
    """The runs that pass the filters, newest first."""
    try:
        day = datetime.fromisoformat(since).date().isoformat() if since else ""
    except ValueError:
        raise runs.BadInput(f"--since {since}: write YYYY-MM-DD") from None
    if status not in (None, "ok", "failed", "running"):
        raise runs.BadInput(f"--status {status}: ok, failed or running")
    every = records.every(root)
    if profile and not any(r.get("profile") == profile for r in every.values()):
        raise runs.BadInput(f"--profile {profile}: no run has it")
    wanted = {"notebook": runs.find(notebook, root).stem if notebook else None}
    wanted |= {"status": status, "profile": profile}
    filters = {k: v for k, v in wanted.items() if v}
    order = sorted(every, key=lambda name: every[name].get("started") or "", reverse=True)
    return {
        name: every[name]
        for name in order
        if all(every[name].get(k) == v for k, v in filters.items())
        and (every[name].get("started") or "") >= day
    }


def _result(name: str, record: dict, root: Path) -> dict:
    """A run in short: what it was, its claims with their outcomes, and the leaders of its tables."""
    from . import ledger

    same = ("notebook", "profile", "status", "started", "seconds", "peak_memory_mb", "machine")
    line = {"run": name} | {k: record.get(k) for k in (*same, "parameters")}
    line["commit"] = (record.get("code") or {}).get("commit")
    line["error"] = (record.get("error") or {}).get("message")
    line["outcomes"] = ledger.outcomes(record, records.place(root, name))
    line["before_the_engine"] = not line["outcomes"] and bool(record.get("verdicts"))
    return line | {"leaders": ledger.leaders(record)}


def _readable(line: dict) -> list[str]:
    """The cells of a run: its name, status with time, best metric, and outcomes with their counts."""
    seconds = line["seconds"]
    time = "" if seconds is None else f"\n{seconds:.0f} s" if seconds < 120 else f"\n{seconds / 60:.0f} min"  # fmt: skip
    best = []
    for leader in line["leaders"][:1]:
        first, *others = leader["methods"]
        more = f" or {others[0] if len(others) == 1 else f'{len(others)} others'}" * bool(others)
        best = [f"{leader['metric']} {leader['mean']:.4g}: {first}{more}"]
    if len(line["leaders"]) > 1:
        best.append(f"and {len(line['leaders']) - 1} more")
    claims = [f"{n} {outcome}" for outcome, n in Counter(line["outcomes"].values()).items()]
    if line["before_the_engine"]:
        from .ledger import BEFORE

        claims = [BEFORE]
    end = "\n".join(claims) or line["error"] or ""
    return [line["run"], f"{line['status']}{time}", "\n".join(best), end]


def _show_compared(every, compare, root: Path, export: Path | None, as_json: bool) -> None:
    from . import ledger

    table = ledger.compare(*(ledger.pick(every, word, root) for word in compare))
    if export:
        _export(table, export)
    elif as_json:
        print(json.dumps(table.to_dicts(), indent=1))
    else:
        lines = [cells for differs, cells in ledger.compared(table) if differs]
        print_table(f"a = {compare[0]}, b = {compare[1]}", ledger.COMPARED, lines)
        print(f"{table.height - len(lines)} of {table.height} metrics cannot be told apart")


def _export(frame: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".csv":
        frame.write_csv(path)
    else:
        path.write_text(plots.markdown(frame) + "\n")
    print(f"{frame.height} rows in {os.path.relpath(path)}")
