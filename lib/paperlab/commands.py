"""Commands about runs: sweep, keep, check and diff; and what all commands print with."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import digest, records, runs

WHOLE = 48  # characters: names that are no longer are never wrapped


def completions(incomplete: str) -> list[str]:
    """The slugs of the notebooks that begin so, for the shell's completion."""
    try:
        slugs = [path.stem[4:] for path in runs.notebooks(records.project_root())]
    except FileNotFoundError:
        return []
    return [slug for slug in slugs if slug.startswith(incomplete)]


Name = Annotated[
    str, typer.Argument(help="ssr, 101, 101_ssr or a path", autocompletion=completions)
]


def fail(error: object, code: int) -> int:
    print(f"paperlab: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def pairs(items: list[str] | None, option: str = "--set") -> dict[str, str]:
    """The pairs of --set or --grid, NAME=VALUE, as text; raises BadInput."""
    values: dict[str, str] = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals:
            raise runs.BadInput(f"{option} {item}: write {option} NAME=VALUE")
        if key in values:
            raise runs.BadInput(f"{option} {item}: {key} is set twice")
        values[key] = value.strip()
    return values


def table(title: str | None, columns: list[str], lines: list[list[str]], whole: int = 1):
    """A table for the terminal. Cells are text, whatever brackets they hold; None is an empty one.

    Long cells are wrapped, except for the names in the first ``whole`` columns, where these are at
    most WHOLE characters wide together.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    cells = [["" if cell is None else str(cell) for cell in line] for line in lines]
    names = [max(map(len, cell.split("\n"))) for line in cells for cell in line[:whole]]
    fits = max(names, default=0) * whole <= WHOLE
    table = Table(title=title and Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    for i, column in enumerate(columns):
        head = max(map(len, column.split()), default=1)
        table.add_column(Text(column), overflow="fold", no_wrap=fits and i < whole, min_width=head)
    for line in cells:
        table.add_row(*map(Text, line))
    return table


def print_table(title: str, columns: list[str], lines: list[list[str]], whole: int = 1) -> None:
    """Print a `table`, as wide as the terminal; 80 characters where there is none."""
    from rich.console import Console

    Console().print(table(title, columns, lines, whole))


def sweep(
    name: Name,
    grid: Annotated[
        list[str],
        typer.Option("--grid", help="NAME=V1,V2 or NAME=FIRST..LAST: one run a value; repeatable"),
    ],
    profile: Annotated[str, typer.Option(help="quick, or a profile that `list` shows")] = "quick",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE for every run of the sweep; repeatable"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="processes; default: half the cores, or one a GPU")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="tcp://host:port of a Dask cluster instead")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the runs, start none")] = False,
) -> None:
    """Run a notebook once for each combination of parameter values.

    --grid separates runs, --set does not: `--grid seeds=0..4` is five runs of one seed each, `--set
    seeds=0..4` gives every run all five seeds. For a list parameter, lists stand in brackets:
    `--grid 'seeds=[0,1],[2,3]'` is two runs of two seeds.

    Every run has its own record. The same command again continues: a combination that is recorded
    for the same code and parameters is not run again. Sweeps use dask.distributed, on this machine
    or with --scheduler on a cluster whose workers see this folder under the same path. Whoever
    reaches a Dask cluster can run code on it: use one only among people you trust.

    \b
    Examples:
      paperlab sweep ssr --grid strength=0.5,1,2 --grid seeds=0..4 --dry-run
      paperlab sweep ssr --grid strength=0.5,1,2 --set seeds=0..4 --workers 2
    """
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
                lambda state: live.update(_watched(state, root), refresh=sys.stdout.isatty()),
            )  # fmt: skip
    except KeyboardInterrupt:
        raise typer.Exit(fail("interrupted; the same command continues", 130)) from None
    print(progress.title())
    console.print(table(None, *sweeps.rows(progress, root, points)))
    raise typer.Exit(1 if progress.failed else 0)


def _watched(progress, root: Path):
    """The state of a sweep, with at most twenty runs that are running or have failed."""
    from rich.console import Group

    from . import sweep as sweeps

    seen = [p for p in progress.points if p.key in progress.running | progress.failed.keys()]
    return Group(progress.title(), table(None, *sweeps.rows(progress, root, seen[-20:])))


def keep_record(
    folder: Annotated[Path, typer.Argument(help="a run's folder under data/runs")],
) -> None:
    """Copy a successful run's record to data/reference, to be committed.

    The run must be a profile as it is (no --set), on committed code.

    \b
    Example:
      paperlab keep data/runs/20261128-091500-123-101_ssr-full-0123456789ab
    """
    print(f"kept as {os.path.relpath(records.keep(folder, records.project_root()))}")


def check(
    name: Name,
    profile: Annotated[str, typer.Option(help="whose record in data/reference")] = "full",
    seeds: Annotated[
        str | None, typer.Option(help="fewer seeds than the record has, with wider bands: 0..1")
    ] = None,
) -> None:
    """Rerun a committed record's parameters and compare: do its means and outcomes come back?

    Every mean is compared with the band that the seeds of the record give; a faithful rerun has a
    mean outside in at most 5 % of all checks. Exit code 1 where one lies outside.

    \b
    Examples:
      paperlab check loss_lab
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
        print("this run is recorded for the same code: it is not run again")
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
    a: Annotated[
        str, typer.Argument(help="a run's folder, the beginning of its name, or 101_ssr_full")
    ],
    b: Annotated[str, typer.Argument(help="another run")],
    page: Annotated[
        Path | None, typer.Option("--html", help="also write a page that shows both runs' figures")
    ] = None,
) -> None:
    """Compare two runs: parameters, code, machine, results, claims and figures.

    \b
    Example:
      paperlab diff 20261128-0915 101_ssr_full --html both.html
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
