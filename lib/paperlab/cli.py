"""The front door: list, run, sweep, results, check, diff, teach, new, index, data, bench and others."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import commands, machine, manifest, records, runs
from .commands import Name, fail, pairs, print_table

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Papers as notebooks: list them, rerun them, read what came out.",
)


def main() -> None:
    """The command; a user's mistake is one line on stderr and exit code 2."""
    try:
        app()
    except (ValueError, FileNotFoundError) as error:  # the library refuses bad input by ValueError
        sys.exit(fail(error, 2))
    except (runs.RunFailed, OSError) as error:
        sys.exit(fail(error, 1))


@app.command("list")
def list_notebooks() -> None:
    """The notebooks: question, status, seconds of the quick run, profiles."""
    lines = []
    for m in manifest.every(records.project_root()):
        seconds = m.measured.get("quick", {}).get("seconds")
        lines.append([m.stem, f"{m.name}: {m.question}", m.status, seconds, " ".join(m.profiles)])
    print_table("Notebooks", ["name", "question", "status", "seconds", "profiles"], lines)


@app.command()
def run(
    name: Name,
    profile: Annotated[str, typer.Option(help="quick, or one that `list` names")] = "quick",
    set_: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE, repeatable")] = None,
    keep: Annotated[bool, typer.Option(help="copy the record to data/reference")] = False,
) -> None:
    """Rerun a notebook with other parameters; ends with its verdict."""
    root = records.project_root()
    if keep and (set_ or machine.code_version(root)["dirty"]):  # before a long run, not after it
        raise runs.BadInput("--keep takes a profile as it is, on code that is committed")
    try:
        folder = runs.run(runs.find(name, root), root, profile, pairs(set_))
    except KeyboardInterrupt:
        raise typer.Exit(fail("interrupted; the run is marked failed", 130)) from None
    record = records.read(folder / "record.json")
    lines = [[v["text"], v["evidence"], v["outcome"]] for v in record["verdicts"]]
    if lines:
        print_table("Verdict", ["claim", "evidence here", "verdict"], lines)
    shown = os.path.relpath(folder)
    print(f"{record['seconds']:.0f} s; executed notebook: {shown}/{record['notebook']}.ipynb")
    print(f"record: {shown}/record.json; figures: {len(record['figures'])} PNGs in {shown}")
    if not record["figures"]:
        print("no figures were drawn: install chromium, or set BROWSER_PATH to a Chrome")
    if keep:
        print(f"kept as {os.path.relpath(records.keep(folder, root))}")


@app.command("try")
def try_paper(
    name: Name,
    data: Annotated[str, typer.Option(help="a set of `paperlab data`, NAME or NAME/PART")],
    seeds: Annotated[
        str, typer.Option(help="0..2 or 0,1,2: runs, each with its own weights")
    ] = "0..2",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, a setting: see `paperlab show`")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="of the processor")] = 2,
) -> None:
    """Does the paper's method help on your data? Fair rivals, tuned rates, one verdict.

    Example: paperlab data add clicks.csv --kind clicks --label click; paperlab try ssr --data clicks
    """
    from . import plots, trying

    tried, folder = trying.run(
        name, data, records.project_root(), seeds, pairs(set_), threads, print
    )
    board = [{k: v for k, v in row.items() if k not in ("best?", "seeds")} for row in tried.board()]
    lines = [
        [plots.number(v, 4) if plots.is_number(v) else v for v in row.values()] for row in board
    ]
    print_table(f"{tried.name} on {tried.data}", list(map(plots.heading, board[0])), lines)
    print("\n".join(tried.sentences()))
    print(f"record and picture: {os.path.relpath(folder)}")


for command in (commands.sweep, commands.results, commands.check):
    app.command()(command)
app.command("keep")(commands.keep_record)
app.command("diff")(commands.diff_runs)


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
    title: Annotated[str, typer.Option(help='the heading, like "Name: does it work?"')],
    family: Annotated[
        str | None, typer.Option(help="ctr, interest, ...; that of the first digit by default")
    ] = None,
) -> None:
    """Start a paper from a working example: manifest, model, test and notebook; nothing else changes."""
    from . import new

    made = new.new(name, title, family, records.project_root())
    for path in made:
        print(os.path.relpath(path))
    print("running the notebook ...", flush=True)
    runs.refresh(made[-1])
    print(
        f"next: put the paper into these files and set the manifest's status; then\n"
        f"  paperlab refresh {name}\n  paperlab index"
    )


@app.command("index")
def write_index(
    check: Annotated[
        bool, typer.Option("--check", help="change nothing; exit code 1 where anything differs")
    ] = False,
) -> None:
    """Write cards, the README's table and pictures, and the start page's list from the manifests."""
    from . import index

    root = records.project_root()
    if check:
        names = ", ".join(sorted(os.path.relpath(path) for path in index.drifted(root)))
        if names:
            raise runs.RunFailed(f"differs from the manifests, run paperlab index: {names}")
        return
    for path in index.write(root):
        print(os.path.relpath(path))


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
        print(load(name, **{k: _number(v) for k, v in pairs(set_).items()}))
        return
    lines = [[e.name, e.kind, e.title, e.terms, e.home] for e in catalogue.entries().values()]
    print_table("Data sets", ["name", "kind", "title", "terms", "home"], lines)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@app.command()
def refresh(name: Name) -> None:
    """Execute a notebook in place with its defaults: how the committed notebooks are made."""
    notebook = runs.find(name, records.project_root())
    drawn = runs.refresh(notebook)
    print(f"{os.path.relpath(notebook)}: {drawn} figures drawn")


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
    """Measure parts of the bench, all by default, and write them into data/reference/BENCH.md."""
    if profile is not None:
        from .bench.profile import print_profile

        print_profile(profile)
        return
    from .bench import main as measure

    measure(parts or [])
