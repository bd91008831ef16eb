"""The command line: `paperlab` and its commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from . import __version__, commands, data_commands, listing, machine, plots, records, runs
from .commands import Name, fail, pairs, print_table

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
WRONG_PATHS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)  # fmt: skip


def main() -> None:
    """Run the command; a user's mistake is one line on stderr and exit code 2."""
    try:
        sys.exit(app(prog_name="paperlab", standalone_mode=False))
    except (
        TyperException
    ) as error:  # a command or an option that does not exist, a missing argument
        message, context = error.format_message(), getattr(error, "ctx", None)
        if "\n" in message:  # the help of a command that needs another word
            print(message)
            sys.exit(2)
        command = context.command_path if context else "paperlab"
        sys.exit(fail(f"{message.rstrip('.')}; {command} --help has an example", 2))
    except (ValueError, *WRONG_PATHS) as error:  # the library refuses bad input by ValueError
        sys.exit(fail(error, 2))
    except (runs.RunFailed, OSError) as error:
        sys.exit(fail(error, 1))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"paperlab {__version__}")
        raise typer.Exit


@app.callback()
def front(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    """Papers as notebooks: list them, rerun them with other values, read what came out.

    `paperlab COMMAND --help` shows a command's options with an example. Exit codes: 0 done, 1 a run
    or a check failed, 2 wrong input, 130 interrupted. Tab completes commands, options and names of
    notebooks after `paperlab --install-completion` and a new shell.

    \b
    Examples:
      paperlab list
      paperlab show ssr
      paperlab run ssr --set seeds=0..4 --set strength=1.0
      paperlab results
    """


app.command("list")(listing.list_notebooks)
app.command()(listing.show)


@app.command()
def run(
    name: Name,
    profile: Annotated[str, typer.Option(help="quick, or a profile that `list` shows")] = "quick",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, of `show`; repeatable")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="copy the record to data/reference, to be committed")
    ] = False,
) -> None:
    """Rerun a notebook with other parameters and print its verdict.

    `--set seeds=0..4` is one run with the five seeds 0 to 4; five runs of one seed each are a sweep
    (`paperlab sweep ssr --grid seeds=0..4`). Lists stand in brackets and need quotes in most
    shells. The executed notebook, its figures and record.json go to a new folder under data/runs.

    \b
    Examples:
      paperlab run ssr
      paperlab run ssr --set seeds=0..4 --set 'rates=[0.002,0.005]'
      paperlab run ssr --profile full --keep
    """
    root = records.project_root()
    if keep and (
        set_ or Path(profile).suffix or machine.code_version(root)["dirty"]
    ):  # before a long run, not after it
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
    if not record["figures"] and plots.browser() is None:
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
    only: Annotated[
        list[str] | None, typer.Option(help="a contender beside the method, repeatable; all else")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="of the processor")] = 2,
) -> None:
    """Does a paper's method help on your data? Fair rivals, tuned rates, one verdict.

    Settings are such as budget, rates and epochs; `paperlab show NAME` lists them.

    \b
    Examples:
      paperlab data add clicks.csv --kind clicks --label click
      paperlab try ssr --data clicks
      paperlab try ctr_leaderboard --data frappe --only DNN --set epochs=3
    """
    from . import trying

    root, settings = records.project_root(), pairs(set_)
    try:
        tried, folder = trying.run(name, data, root, seeds, settings, only or (), threads, print)
    except KeyboardInterrupt:
        raise typer.Exit(fail("interrupted; the run is marked failed", 130)) from None
    board = [{k: v for k, v in row.items() if k not in ("best?", "seeds")} for row in tried.board()]
    lines = [
        [plots.number(v, 4) if plots.is_number(v) else v for v in row.values()] for row in board
    ]
    print_table(f"{tried.name} on {tried.data}", list(map(plots.heading, board[0])), lines)
    print("\n".join(tried.sentences()))
    print(f"record and picture: {os.path.relpath(folder)}")


for command in (commands.sweep, listing.results, commands.check):
    app.command()(command)
app.command("keep")(commands.keep_record)
app.command("diff")(commands.diff_runs)


@app.command("teach")
def teach_notebook(
    name: Name,
    to: Annotated[Path | None, typer.Option(help="a folder; default: data/teach")] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite copies that exist")] = False,
) -> None:
    """Make two copies of a notebook for a class: without solutions and outputs, and whole.

    \b
    Example:
      paperlab teach ssr --to ../course
    """
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
        str | None, typer.Option(help="ctr, interest, ...; default: that of the first digit")
    ] = None,
) -> None:
    """Start a paper from a working example: manifest, model, test and notebook.

    No other file changes. CONTRIBUTING.md has the next steps.

    \b
    Example:
      paperlab new 104_name --title "Name: does it work?"
    """
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
    """Write from the manifests: cards, the README's table and pictures, the start page's list.

    \b
    Examples:
      paperlab index
      paperlab index --check
    """
    from . import index

    root = records.project_root()
    if check:
        names = ", ".join(sorted(os.path.relpath(path) for path in index.drifted(root)))
        if names:
            raise runs.RunFailed(f"differs from the manifests, run paperlab index: {names}")
        return
    for path in index.write(root):
        print(os.path.relpath(path))


app.add_typer(data_commands.app, name="data")


@app.command()
def refresh(name: Name) -> None:
    """Execute a notebook in place with its defaults, as the committed notebooks are.

    \b
    Example:
      paperlab refresh ssr
    """
    notebook = runs.find(name, records.project_root())
    drawn = runs.refresh(notebook)
    print(f"{os.path.relpath(notebook)}: {drawn} figures drawn")


@app.command("book")
def make_book() -> None:
    """Build a static site in build/book from the notebooks' committed outputs; nothing is run.

    \b
    Example:
      paperlab book
    """
    from . import book

    root = records.project_root()
    pages = book.build(root, root / "build/book")
    print(f"{len(pages)} pages; open {os.path.relpath(root / 'build/book/index.html')}")


@app.command()
def bench(
    parts: Annotated[list[str] | None, typer.Argument(help="training, startup, ...")] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="instead, print where the training time of dcnv2 or deepfm goes"),
    ] = None,
) -> None:
    """Measure speed beside FuxiCTR, RecBole, POT and a plain loop; notebook 920 draws the records.

    Parts: training, sequences, alignment, environments, startup, preparation; all by default, in
    about ten minutes on a quiet machine. Records go to data/reference/bench_PART.json.

    \b
    Examples:
      paperlab bench training startup
      paperlab bench --profile dcnv2
    """
    if profile is not None:
        from .bench.profile import print_profile

        print_profile(profile)
        return
    from .bench import main as measure

    measure(parts or [])
