"""The front door: list, run, results, data, figures, refresh, keep, bench."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import plots, records, runs

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Papers as notebooks: list them, rerun them, read what came out.",
)
Name = Annotated[str, typer.Argument(help="ssr, 101, 101_ssr or a path")]


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


def _pairs(items: list[str] | None) -> dict[str, str]:
    """What --set says: NAME=VALUE, as text."""
    found = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        if not equals:
            raise runs.BadInput(f"--set {item}: write --set NAME=VALUE")
        found[key.strip()] = value.strip()
    return found


def _print_table(title: str, columns: list[str], lines: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*map(str, line))
    Console().print(table)


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


@app.command("keep")
def keep_record(folder: Annotated[Path, typer.Argument(help="a folder under data/runs")]) -> None:
    """Copy a successful run's record to data/reference, to be committed."""
    print(f"kept as {os.path.relpath(records.keep(folder, records.project_root()))}")


@app.command()
def results(
    notebook: Annotated[str | None, typer.Option(help="only this notebook")] = None,
    status: Annotated[str | None, typer.Option(help="only ok, failed or running")] = None,
) -> None:
    """All runs, newest first."""
    root = records.project_root()
    stem = runs.find(notebook, root).stem if notebook else None
    lines = []
    for r in records.read_all(root).iter_rows(named=True):
        if (stem and r["notebook"] != stem) or (status and r["status"] != status):
            continue
        verdicts = json.loads(r["verdicts"]) or []
        outcome = ", ".join(v["outcome"] for v in verdicts) or r["error"] or ""
        lines.append([r["run"], r["notebook"], r["profile"], r["status"], r["seconds"], outcome])
    _print_table("Runs", ["run", "notebook", "profile", "status", "seconds", "verdicts"], lines)


@app.command()
def data(
    name: Annotated[str | None, typer.Argument(help="prepare this set")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of its loader, like part=beauty")
    ] = None,
) -> None:
    """The data sets that have loaders; with a name, prepare that one."""
    if name is not None:
        from .data import load

        options = {k: int(v) if v.lstrip("-").isdigit() else v for k, v in _pairs(set_).items()}
        print(load(name, **options))
        return
    from .data import catalogue

    lines = [[e.name, e.title, e.terms, e.home] for e in catalogue.entries().values()]
    _print_table("Data sets", ["name", "title", "terms", "home"], lines)


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
