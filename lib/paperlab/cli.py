"""The front door: list, run, sweep, results, check, diff, teach, new, data, figures, bench and others."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import digest, plots, records, runs

if TYPE_CHECKING:
    import polars as pl

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Papers as notebooks: list them, rerun them, read what came out.",
)
Name = Annotated[str, typer.Argument(help="ssr, 101, 101_ssr or a path")]

SHOWN = ["run", "notebook", "profile", "status", "seconds"]


def main() -> None:
    """The command; a user's mistake is one line on stderr and exit code 2."""
    try:
        app()
    except (runs.BadInput, FileNotFoundError) as error:
        sys.exit(_fail(error, 2))
    except (runs.RunFailed, ValueError, OSError) as error:
        sys.exit(_fail(error, 1))


def _fail(error: object, code: int) -> int:
    print(f"paperlab: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _pairs(items: list[str] | None, option: str = "--set") -> dict[str, str]:
    """What --set or --grid says: NAME=VALUE, as text."""
    found = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        if not equals:
            raise runs.BadInput(f"{option} {item}: write {option} NAME=VALUE")
        found[key.strip()] = value.strip()
    return found


def _table(title: str | None, columns: list[str], lines: list[list[str]]):
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*("" if cell is None else str(cell) for cell in line))
    return table


def _print_table(title: str, columns: list[str], lines: list[list[str]]) -> None:
    from rich.console import Console

    Console().print(_table(title, columns, lines))


@app.command("list")
def list_notebooks() -> None:
    """The notebooks and their papers."""
    root = records.project_root()
    lines = []
    for path in runs.notebooks(root):
        about = runs.card(path)
        line = [path.stem, about["title"], about.get("status", ""), about.get("run time", "")]
        lines.append(line)
    _print_table("Notebooks", ["name", "title", "status", "run time"], lines)


@app.command()
def run(
    name: Name,
    profile: Annotated[
        str, typer.Option(help="quick, or one of notebooks/profiles.yaml")
    ] = "quick",
    set_: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE, repeatable")] = None,
    keep: Annotated[bool, typer.Option(help="copy the record to data/reference")] = False,
) -> None:
    """Rerun a notebook with other parameters; ends with its verdict."""
    root = records.project_root()
    if keep and (set_ or records.code_version(root)["dirty"]):  # before a long run, not after it
        raise runs.BadInput("--keep takes a profile as it is, on code that is committed")
    try:
        folder = runs.run(runs.find(name, root), root, profile, _pairs(set_))
    except KeyboardInterrupt:
        raise typer.Exit(_fail("interrupted; the run is marked failed", 130)) from None
    record = records.read(folder / "record.json")
    lines = [[v["text"], v["evidence"], v["outcome"]] for v in record["verdicts"]]
    if lines:
        _print_table("Verdict", ["claim", "evidence here", "verdict"], lines)
    shown = os.path.relpath(folder)
    print(f"{record['seconds']:.0f} s; executed notebook: {shown}/{record['notebook']}.ipynb")
    print(f"record: {shown}/record.json; figures: {len(record['figures'])} PNGs in {shown}")
    if not record["figures"]:
        print("no figures were drawn: install chromium, or set BROWSER_PATH to a Chrome")
    if keep:
        print(f"kept as {os.path.relpath(records.keep(folder, root))}")


@app.command()
def sweep(
    name: Name,
    grid: Annotated[
        list[str], typer.Option("--grid", help="NAME=V1,V2 or NAME=FIRST..LAST, repeatable")
    ],
    profile: Annotated[
        str, typer.Option(help="quick, or one of notebooks/profiles.yaml")
    ] = "quick",
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
    axes = [pair for item in grid for pair in _pairs([item], "--grid").items()]
    points = sweeps.plan(notebook, profile, _pairs(set_), axes)
    if dry_run:
        found = {p.key: records.finished(root, p.key) for p in points}
        done = {key: folder for key, folder in found.items() if folder}
        progress = sweeps.Progress(points, done, found=len(done))
        _print_table(f"{notebook.stem}: nothing is started", *_sweep_rows(progress, root, points))
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
            _fail("interrupted; the same command goes on with what is missing", 130)
        ) from None
    print(_sweep_title(progress))
    console.print(_table(None, *_sweep_rows(progress, root, points)))
    raise typer.Exit(1 if progress.failed else 0)


def _sweep_title(progress) -> str:
    done, failed = len(progress.done), len(progress.failed)
    title = f"{done} done ({progress.found} of them before), {len(progress.running)} running, "
    title += f"{failed} failed, {len(progress.points)} in all"
    left = progress.left()
    if not left:
        return title
    return (
        f"{title}; about {left:.0f} s left"
        if left < 100
        else f"{title}; about {left / 60:.0f} min left"
    )


def _sweep_rows(progress, root: Path, points: list) -> tuple[list[str], list[list[str]]]:
    """Columns and lines: what each run sets, where it stands, and its folder or its error."""
    from .sweep import label

    lines = []
    for point in points:
        if point.key in progress.done:
            state, told = "done", os.path.relpath(progress.done[point.key])
        elif point.key in progress.failed:
            state, told = "failed", progress.failed[point.key]
            log = root / f"data/runs/.sweep/{point.key}.log"
            where = [*sorted((root / "data/runs").glob(f"*-{point.key}"))[-1:], log]
            seen = " and ".join(os.path.relpath(w) for w in where if w.exists())
            told += f" (see {seen})" if seen else ""
        else:
            state, told = ("running" if point.key in progress.running else "to do"), ""
        lines.append([label(point), state, told])
    return ["run", "state", "folder or error"], lines


def _watched(progress, root: Path):
    """What is seen meanwhile: where the sweep is, and at most twenty runs that run or failed."""
    from rich.console import Group

    seen = [p for p in progress.points if p.key in progress.running | progress.failed.keys()]
    return Group(_sweep_title(progress), _table(None, *_sweep_rows(progress, root, seen[-20:])))


@app.command("keep")
def keep_record(folder: Annotated[Path, typer.Argument(help="a folder under data/runs")]) -> None:
    """Copy a successful run's record to data/reference, to be committed."""
    print(f"kept as {os.path.relpath(records.keep(folder, records.project_root()))}")


@app.command()
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
) -> None:
    """All runs, newest first; or two of them side by side; either into a file."""
    import polars as pl

    root = records.project_root()
    try:
        day = datetime.fromisoformat(since).date().isoformat() if since else ""
    except ValueError:
        raise runs.BadInput(f"--since {since}: write YYYY-MM-DD") from None
    if export and export.suffix not in (".parquet", ".csv", ".md"):
        raise runs.BadInput(f"--export {export}: a name that ends with .parquet, .csv or .md")
    if status not in (None, "ok", "failed", "running"):
        raise runs.BadInput(f"--status {status}: ok, failed or running")
    wanted = {"notebook": runs.find(notebook, root).stem if notebook else None}
    wanted |= {"status": status, "profile": profile}
    table = records.read_all(root)
    if profile and profile not in table["profile"]:
        raise runs.BadInput(f"--profile {profile}: no run has it")
    table = table.filter(pl.col("started").fill_null("") >= day)
    for column, value in wanted.items():
        table = table if value is None else table.filter(pl.col(column) == value)
    if compare:
        from . import ledger

        every = records.every(root)
        listed = {name: every[name] for name in table["run"]}
        table = ledger.compare(*(ledger.pick(listed, word, root) for word in compare))
    elif not export or export.suffix == ".md":  # for readers: no JSON in it
        outcomes = [
            ", ".join(v["outcome"] for v in json.loads(verdicts) or []) or error
            for verdicts, error in table.select("verdicts", "error").iter_rows()
        ]
        table = table.select(SHOWN).with_columns(pl.Series("verdicts", outcomes, pl.String))
    if export:
        _export(table, export)
        print(f"{table.height} rows in {os.path.relpath(export)}")
    elif compare:
        apart = table.filter(pl.col("apart?") != "no")
        lines = [
            [*names, f"{a:.4g}", f"{b:.4g}", f"{gap:+.3g} [{low:+.3g}, {high:+.3g}]", seeds]
            for *names, a, b, gap, low, high, seeds, _ in apart.iter_rows()
        ]
        columns = ["table", "rows", "measure", "a", "b", "a - b, paired", "seeds"]
        _print_table(f"a = {compare[0]}, b = {compare[1]}", columns, lines)
        print(f"{table.height - apart.height} of {table.height} measures cannot be told apart")
    else:
        _print_table("Runs", table.columns, table.rows())


def _export(table: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table.write_parquet(path)
    elif path.suffix == ".csv":
        table.write_csv(path)
    else:
        path.write_text(plots.markdown(table) + "\n")


@app.command()
def check(
    name: Name,
    profile: Annotated[str, typer.Option(help="whose record in data/reference")] = "full",
    seeds: Annotated[
        str | None, typer.Option(help="fewer than the record has: 0..1, with wider bands")
    ] = None,
) -> None:
    """Rerun a kept record's parameters and hold the means against the bands that its seeds give."""
    import polars as pl

    from .ledger import hold

    root = records.project_root()
    notebook = runs.find(name, root)
    kept = records.reference(notebook.stem, profile, root)
    if kept is None:
        runs.settle(notebook, profile)  # else the advice below would be of no use
        raise runs.BadInput(
            f"data/reference has no {notebook.stem}_{profile}.json to hold against: "
            f"paperlab run {name} --profile {profile} --keep makes it"
        )
    values = kept["parameters"] | ({"seeds": seeds} if seeds else {})
    settled = runs.settle(notebook, overrides=values)
    key = records.key(notebook.stem, digest.notebook(notebook), settled)
    folder = records.finished(root, key)
    if folder is None:
        folder = runs.run(notebook, root, overrides=settled)
    else:
        print("this code has made this run before: no rerun")
    record = records.read(folder / "record.json")
    table = hold(kept, record)
    outside = table.filter(pl.col("inside?") != "yes")
    if outside.height:
        lines = [
            [*names, f"{low:.4g} .. {high:.4g}", f"{new:.4g}" if seeds else "missing", seeds]
            for *names, _, low, high, new, seeds, _ in outside.iter_rows()
        ]
        columns = ["table", "rows", "measure", "band", "new", "seeds"]
        _print_table("Outside", columns, lines)
    were = {v["text"]: v["outcome"] for v in kept["verdicts"]}
    now = {v["text"]: v["outcome"] for v in record["verdicts"]}
    for text in were.keys() & now.keys():
        if were[text] != now[text]:
            print(f"the verdict was {were[text]} and is {now[text]}: {text}")
    told = f"{table.height - outside.height} of {table.height} means are inside their bands"
    print(f"{told}; run: {os.path.relpath(folder)}")
    raise typer.Exit(1 if outside.height else 0)


@app.command("diff")
def diff_runs(
    a: Annotated[str, typer.Argument(help="a run's folder, how its name begins, or 101_ssr_full")],
    b: Annotated[str, typer.Argument(help="another")],
    page: Annotated[
        Path | None, typer.Option("--html", help="also to a page that shows both runs' figures")
    ] = None,
) -> None:
    """Two runs side by side: what differs in parameters, code, machine, results and figures."""
    from . import diff

    root = records.project_root()
    if page and page.suffix != ".html":
        raise runs.BadInput(f"--html {page}: a name that ends with .html")
    first, second = diff.find(a, root), diff.find(b, root)
    print(f"a = {first.name}\nb = {second.name}")
    for section in diff.sections(first, second):
        lines = [cells for differs, cells in section.lines if differs]
        if lines:
            _print_table(section.title, section.columns, lines)
        print(f"{section.title}: {section.note}")
    if page:
        page.parent.mkdir(parents=True, exist_ok=True)
        records.replace(page, diff.page(first, second))
        print(f"page: {os.path.relpath(page)}")


@app.command("teach")
def teach_notebook(
    name: Name,
    to: Annotated[Path | None, typer.Option(help="a folder; data/teach by default")] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite copies that exist")] = False,
) -> None:
    """A student's copy, without solutions and outputs, and a solution copy of a notebook."""
    from . import teach

    root = records.project_root()
    made, count = teach.teach(runs.find(name, root), to or root / "data/teach", root, force)
    for path in made:
        print(os.path.relpath(path))
    print(f"{count} solution{'s' * (count != 1)} blanked; no output in the student's copy")


@app.command("new")
def new_paper(
    name: Annotated[str, typer.Argument(help="NNN_slug, like 104_name")],
    title: Annotated[str, typer.Option(help="what the notebook's card and the README say")],
    family: Annotated[
        str | None, typer.Option(help="ctr, interest, ...; that of the first digit by default")
    ] = None,
) -> None:
    """A new paper: notebook, model, test, card and rows, all of which pass make test as they are."""
    from . import new

    root = records.project_root()
    start = runs.find("000", root)
    made = new.new(name, title, family, root)
    for path in made:
        print(os.path.relpath(path))
    print("and rows in notebooks/profiles.yaml and README.md; running the notebook ...", flush=True)
    for notebook in (made[-1], start):  # the start page lists all notebooks
        for drawn in runs.refresh(notebook, root):
            print(os.path.relpath(drawn))
    print(
        f"next: put the paper into these files, then paperlab refresh {name}; make test holds all"
    )


@app.command()
def data(
    name: Annotated[str | None, typer.Argument(help="prepare this set")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of its loader, like part=beauty")
    ] = None,
) -> None:
    """List the real data sets; with a name, prepare that one, whatever its kind.

    Examples: paperlab data frappe · paperlab data amazon-sasrec --set part=beauty
    """
    from .data import catalogue, load

    if name is not None:
        options = {k: _number(v) for k, v in _pairs(set_).items()}
        try:
            print(load(name, **options))
        except catalogue.BadOption as error:
            raise runs.BadInput(str(error)) from None
        return
    lines = [[e.name, e.kind, e.title, e.terms, e.home] for e in catalogue.entries().values()]
    _print_table("Data sets", ["name", "kind", "title", "terms", "home"], lines)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@app.command()
def figures(
    name: Annotated[str | None, typer.Argument(help="default: every notebook")] = None,
) -> None:
    """Draw the committed notebooks' figures anew, into figures/."""
    root = records.project_root()
    if plots.browser() is None:
        raise OSError("no figure can be drawn: install chromium, or set BROWSER_PATH to a Chrome")
    for path in [runs.find(name, root)] if name else runs.notebooks(root):
        for drawn in runs.redraw(path, root):
            print(os.path.relpath(drawn))


@app.command()
def refresh(name: Name) -> None:
    """Execute a notebook in place with its defaults: how the committed notebooks are made."""
    root = records.project_root()
    for drawn in runs.refresh(runs.find(name, root), root):
        print(os.path.relpath(drawn))


@app.command("book")
def make_book() -> None:
    """All notebooks as a static site in build/book, from their committed outputs; nothing is run."""
    from . import book

    root = records.project_root()
    pages = book.build(root, root / "build/book")
    print(f"{len(pages)} pages; open {os.path.relpath(root / 'build/book/index.html')}")


@app.command()
def bench(
    parts: Annotated[list[str] | None, typer.Argument(help="training, startup, ...")] = None,
    profile: Annotated[
        str | None, typer.Option(help="dcnv2 or deepfm: where its training time goes instead")
    ] = None,
) -> None:
    """Measure parts of the bench, all by default, and write them into the README."""
    if profile is not None:
        from .bench.profile import print_profile

        print_profile(profile)
        return
    from .bench import main as measure

    measure(parts or [])
