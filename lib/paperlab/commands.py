"""Commands about runs: sweep, keep, results, check, diff; and what all commands print with."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import digest, plots, records, runs

if TYPE_CHECKING:
    import polars as pl

Name = Annotated[str, typer.Argument(help="ssr, 101, 101_ssr or a path")]


def fail(error: object, code: int) -> int:
    print(f"paperlab: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def pairs(items: list[str] | None, option: str = "--set") -> dict[str, str]:
    """The pairs of --set or --grid, NAME=VALUE, as text."""
    values = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        if not equals:
            raise runs.BadInput(f"{option} {item}: write {option} NAME=VALUE")
        values[key.strip()] = value.strip()
    return values


def table(title: str | None, columns: list[str], lines: list[list[str]]):
    from rich.table import Table
    from rich.text import Text  # a cell is text, whatever brackets it holds

    table = Table(title=title and Text(title), title_justify="left")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for line in lines:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in line))
    return table


def print_table(title: str, columns: list[str], lines: list[list[str]]) -> None:
    from rich.console import Console

    Console().print(table(title, columns, lines))


def sweep(
    name: Name,
    grid: Annotated[
        list[str], typer.Option("--grid", help="NAME=V1,V2 or NAME=FIRST..LAST, repeatable")
    ],
    profile: Annotated[str, typer.Option(help="quick, or one that `list` names")] = "quick",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, for all runs")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="processes; half the cores, or one a GPU")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="tcp://host:port of a Dask cluster instead")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the runs, start none")] = False,
) -> None:
    """Run the product of parameter values; the same command again goes on where it was stopped."""
    from rich.console import Console
    from rich.live import Live

    from . import sweep as sweeps

    root = records.project_root()
    if workers and scheduler:
        raise runs.BadInput("--workers is for this machine; a --scheduler has workers of its own")
    notebook = runs.find(name, root)
    axes = [pair for item in grid for pair in pairs([item], "--grid").items()]
    points = sweeps.plan(notebook, profile, pairs(set_), axes)
    if dry_run:
        done = {p.key: f for p in points if (f := records.finished(root, p.key))}
        progress = sweeps.Progress(points, done, reused=len(done))
        print_table(f"{notebook.stem}: nothing is started", *sweeps.rows(progress, root, points))
        return
    console = Console()
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            progress = sweeps.sweep(
                notebook, root, profile, points, workers, scheduler,
                lambda state: live.update(_watched(state, root), refresh=console.is_terminal),
            )  # fmt: skip
    except KeyboardInterrupt:
        raise typer.Exit(
            fail("interrupted; the same command goes on with what is missing", 130)
        ) from None
    print(progress.title())
    console.print(table(None, *sweeps.rows(progress, root, points)))
    raise typer.Exit(1 if progress.failed else 0)


def _watched(progress, root: Path):
    """What is seen meanwhile: where the sweep is, and at most twenty runs that run or failed."""
    from rich.console import Group

    from . import sweep as sweeps

    seen = [p for p in progress.points if p.key in progress.running | progress.failed.keys()]
    return Group(progress.title(), table(None, *sweeps.rows(progress, root, seen[-20:])))


def keep_record(folder: Annotated[Path, typer.Argument(help="a folder under data/runs")]) -> None:
    """Copy a successful run's record to data/reference, to be committed."""
    print(f"kept as {os.path.relpath(records.keep(folder, records.project_root()))}")


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
    """All runs, newest first, or two of them side by side.

    Examples: paperlab results --notebook ssr --since 2026-11-01; paperlab results --compare lr=0.01
    lr=0.003; paperlab results --json
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
        columns = ["run", "status", "minutes", "best", "claims"]
        if export:
            import polars as pl

            _export(pl.DataFrame(cells, dict.fromkeys(columns, pl.String), orient="row"), export)
        else:
            print_table("Runs", columns, cells)


def _chosen(root: Path, notebook, status, profile, since) -> dict[str, dict]:
    """The runs that the filters leave, newest first."""
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
    asked = {k: v for k, v in wanted.items() if v}
    order = sorted(every, key=lambda name: every[name].get("started") or "", reverse=True)
    return {
        name: every[name]
        for name in order
        if all(every[name].get(k) == v for k, v in asked.items())
        and (every[name].get("started") or "") >= day
    }


def _result(name: str, record: dict, root: Path) -> dict:
    """A run in short: what it was, its claims with their outcomes, and who leads its tables."""
    from . import ledger

    same = ("notebook", "profile", "status", "started", "seconds", "peak_memory_mb", "machine")
    line = {"run": name} | {k: record.get(k) for k in (*same, "parameters")}
    line["commit"] = (record.get("code") or {}).get("commit")
    line["error"] = (record.get("error") or {}).get("message")
    line["outcomes"] = ledger.outcomes(record, records.place(root, name))
    line["before_the_engine"] = not line["outcomes"] and bool(record.get("verdicts"))
    return line | {"leaders": ledger.leaders(record)}


def _readable(line: dict) -> list[str]:
    minutes = "" if line["seconds"] is None else f"{line['seconds'] / 60:.1f}"
    best = [f"{x['metric']} {x['mean']:.4g}: {x['best']}" for x in line["leaders"]]
    more = [f"and {len(best) - 1} more tables or conditions"] * (len(best) > 1)
    claims = [f"{n} {outcome}" for outcome, n in Counter(line["outcomes"].values()).items()]
    if line["before_the_engine"]:
        from .ledger import BEFORE

        claims = [BEFORE]
    end = "\n".join(claims) or line["error"] or ""
    return [line["run"], line["status"], minutes, "\n".join(best[:1] + more), end]


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


def check(
    name: Name,
    profile: Annotated[str, typer.Option(help="whose record in data/reference")] = "full",
    seeds: Annotated[
        str | None, typer.Option(help="fewer than the record has: 0..1, with wider bands")
    ] = None,
) -> None:
    """Rerun a committed record's parameters: are its means and outcomes found again?

    Every mean is compared with the band that the record's seeds give. Examples: paperlab check ssr;
    paperlab check ssr --seeds 0..1
    """
    import polars as pl

    from . import ledger

    root = records.project_root()
    notebook = runs.find(name, root)
    kept = records.reference(notebook.stem, profile, root)
    if kept is None:
        runs.settle(notebook, profile)  # else the advice below would be of no use
        raise runs.BadInput(
            f"data/reference has no {notebook.stem}_{profile}.json to compare with: "
            f"paperlab run {name} --profile {profile} --keep makes it"
        )
    ledger.declared(kept)  # before a long run, not after it
    values = kept["parameters"] | ({"seeds": seeds} if seeds else {})
    settled = runs.settle(notebook, overrides=values)
    folder = records.finished(root, records.key(notebook.stem, digest.notebook(notebook), settled))
    if folder is None:
        folder = runs.run(notebook, root, overrides=settled)
    else:
        print("this code has made this run before: no rerun")
    record = records.read(folder / "record.json")
    table = ledger.check(kept, record)
    outside = table.filter(pl.col("inside?") != "yes")
    if outside.height:
        lines = [
            [*cell, f"{low:.4g} .. {high:.4g}", f"{new:.4g}" if pairs else "missing", pairs]
            for *cell, _, low, high, new, pairs, _ in outside.iter_rows()
        ]
        print_table("Outside", ["table", "rows", "metric", "band", "new", "seeds"], lines)
    were = ledger.outcomes(kept, root / "data/reference")
    now = ledger.outcomes(record, folder)
    for text in [t for t in were if were[t] != now.get(t)]:
        print(f"was {were[text]}, is {now.get(text, 'not claimed')}: {text}")
    inside = table.height - outside.height
    print(
        f"{inside} of {table.height} means are inside their bands; run: {os.path.relpath(folder)}"
    )
    raise typer.Exit(1 if outside.height else 0)


def diff_runs(
    a: Annotated[str, typer.Argument(help="a run's folder, how its name begins, or 101_ssr_full")],
    b: Annotated[str, typer.Argument(help="another")],
    page: Annotated[
        Path | None, typer.Option("--html", help="also to a page that shows both runs' figures")
    ] = None,
) -> None:
    """Two runs side by side: what differs in parameters, code, machine, results and figures.

    Example: paperlab diff 20261128-0915 101_ssr_full --html both.html
    """
    from . import diff

    root = records.project_root()
    if page and page.suffix != ".html":
        raise runs.BadInput(f"--html {page}: a name that ends with .html")
    first, second = diff.find(a, root), diff.find(b, root)
    print(f"a = {first.name}\nb = {second.name}")
    for section in diff.sections(first, second):
        lines = [cells for differs, cells in section.lines if differs]
        if lines:
            print_table(section.title, section.columns, lines)
        print(f"{section.title}: {section.note}")
    if page:
        page.parent.mkdir(parents=True, exist_ok=True)
        records.replace(page, diff.page(first, second))
        print(f"page: {os.path.relpath(page)}")
