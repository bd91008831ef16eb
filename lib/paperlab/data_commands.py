"""`paperlab data`: list the data sets, prepare one, and make sets from files of your own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .commands import pairs, print_table


class _NamesToo(TyperGroup):
    """A word that is no command is the name of a set: `paperlab data frappe`."""

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["prepare", *args]
        return super().parse_args(ctx, args)


FIELDED = "clicks, funnel, amounts, delays"  # kinds of logs of fields
TIMED = "daily, stream, sequences, requests"  # kinds that need user, item and time

app = typer.Typer(cls=_NamesToo, invoke_without_command=True)


@app.callback()
def list_sets(ctx: typer.Context) -> None:
    """List the data sets, those of your own last; with a name, prepare that one, whatever its kind.

    Examples: paperlab data · paperlab data frappe · paperlab data amazon-sasrec --set part=beauty ·
    paperlab data add clicks.csv --label click --user user_id --time ts
    """
    if ctx.invoked_subcommand is not None:
        return
    from .data import catalogue
    from .data.own import shelf

    lines = [[e.name, e.kind, e.title, e.terms, e.home] for e in catalogue.entries().values()]
    lines += [
        [s.name, s.kind, _rows(s), "your own", _shown(s.folder)] for s in shelf.sets().values()
    ]
    print_table("Data sets", ["name", "kind", "title", "terms", "home"], lines)


@app.command(hidden=True)
def prepare(
    name: str,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of its loader, like part=beauty")
    ] = None,
) -> None:
    """Prepare a set of the catalogue, or open one of your own: paperlab data NAME."""
    from .data import load
    from .data.own import shelf

    shelf.check_known(name)
    print(load(name, **{k: _number(v) for k, v in pairs(set_).items()}))


@app.command()
def add(
    files: Annotated[
        list[Path],
        typer.Argument(help=".csv, .tsv, .jsonl, .parquet, each also .gz, or folders of them"),
    ],
    kind: Annotated[
        str, typer.Option(help=f"{FIELDED}, {TIMED}, preferences, bandit, relevance or problems")
    ] = "clicks",
    name: Annotated[str | None, typer.Option(help="of the set; the file's by default")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a set of this name")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show columns and five rows; write nothing")
    ] = False,
    seed: Annotated[int | None, typer.Option(help=f"of the split; {FIELDED}, sequences")] = None,
    user: Annotated[str | None, typer.Option(help=f"column; {FIELDED}, {TIMED}")] = None,
    time: Annotated[str | None, typer.Option(help=f"column; {FIELDED}, {TIMED}")] = None,
    drop: Annotated[str | None, typer.Option(help="columns to leave out: a,b")] = None,
    label: Annotated[
        str | None, typer.Option(help="column of 0 and 1; clicks, daily, stream, requests")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="columns of 0 and 1, dense to sparse: a,b; funnel")
    ] = None,
    amount: Annotated[str | None, typer.Option(help="column of numbers from 0 on; amounts")] = None,
    length: Annotated[str | None, typer.Option(help="column of numbers above 0; amounts")] = None,
    click: Annotated[str | None, typer.Option(help="column of times; delays")] = None,
    conversion: Annotated[
        str | None, typer.Option(help="column of times, empty without one; delays")
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="of the observation: a column of times, or a time; delays")
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(help="within which a conversion counts (7), delays; to test (3), daily"),
    ] = None,
    numeric: Annotated[
        str | None, typer.Option(help=f"columns of numbers: a,b; {FIELDED}, daily, requests")
    ] = None,
    categorical: Annotated[
        str | None, typer.Option(help=f"columns of categories: a,b; {FIELDED}, daily, requests")
    ] = None,
    user_fields: Annotated[
        str | None, typer.Option(help="fields of the user, not the item: a,b; daily")
    ] = None,
    split: Annotated[str | None, typer.Option(help=f"time, user or random; {FIELDED}")] = None,
    label_threshold: Annotated[
        float | None, typer.Option(help="from which a graded label is 1; clicks")
    ] = None,
    min_count: Annotated[
        int | None,
        typer.Option(help=f"training rows that give a value an id (2); {FIELDED}, daily, requests"),
    ] = None,
    numbers: Annotated[str | None, typer.Option(help="buckets or standardised; clicks")] = None,
    item: Annotated[str | None, typer.Option(help=f"column; {TIMED}")] = None,
    request: Annotated[str | None, typer.Option(help="column; requests")] = None,
    category: Annotated[str | None, typer.Option(help="column; sequences")] = None,
    behaviour: Annotated[
        str | None, typer.Option(help="COLUMN=VALUE of the events that count; sequences")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="column; preferences, problems")] = None,
    chosen: Annotated[str | None, typer.Option(help="column; preferences")] = None,
    rejected: Annotated[str | None, typer.Option(help="column; preferences")] = None,
    answer: Annotated[str | None, typer.Option(help="column; problems")] = None,
    query: Annotated[str | None, typer.Option(help="column; relevance")] = None,
    document: Annotated[str | None, typer.Option(help="column; relevance")] = None,
    grade: Annotated[str | None, typer.Option(help="column; relevance")] = None,
    action: Annotated[str | None, typer.Option(help="column; bandit")] = None,
    reward: Annotated[str | None, typer.Option(help="column; bandit")] = None,
    propensity: Annotated[str | None, typer.Option(help="column; bandit")] = None,
    context: Annotated[str | None, typer.Option(help="columns: a,b; bandit")] = None,
) -> None:
    """Make a named set from files of your own; `paperlab data` lists it, `data.load` opens it.

    What a column holds is inferred from a sample and shown. Columns of the kinds are named like the
    options by default. Rows that cannot be used are set aside and counted.

    Examples: paperlab data add clicks.csv --label click --user user_id --time ts --dry-run ·
    paperlab data add events/ --kind sequences --user visitor --item sku --time ts ·
    paperlab data add shop.csv --kind funnel --labels click,order --user user_id ·
    paperlab data add pairs.jsonl --kind preferences
    """
    options = {k: v for k, v in locals().items() if v is not None}
    for own in ("files", "kind", "name", "force", "dry_run"):
        options.pop(own, None)
    from .data.own import shelf

    shelf.free_name(files, name, force)
    _, plan = shelf.planned(files, kind, **options)
    _show_plan(plan, dry_run)
    if dry_run:
        return
    made = shelf.add(files, kind, name=name, force=force, **options)
    print(f"{made.name}: {made.kind}, {_rows(made)}; in {_shown(made.folder)}")
    for column, n in (made.notes.get("missing") or {}).items():
        if n:
            print(f"{column}: {n:,} values are missing (empty, nan, inf or no number)")
    if reasons := made.reasons():
        why = "; ".join(f"{n:,} {reason}" for reason, n in reasons.most_common(3))
        path = _shown(made.folder / "rejected.tsv")
        print(f"{reasons.total():,} rows set aside in {path}: {why}")


@app.command()
def remove(name: str) -> None:
    """Delete a set of your own from data/local; the files that it was made from stay.

    Example: paperlab data remove clicks
    """
    from .data.own import shelf

    print(f"removed {_shown(shelf.remove(name))}")


def _show_plan(plan: Any, rows: bool) -> None:
    from .data.own import infer

    lines = [[c.name, c.kind, c.why, f"{c.distinct:,}", f"{c.empty:,}"] for c in plan.columns]
    title = f"Columns, inferred from {plan.sample.height:,} rows"
    print_table(title, ["column", "kind", "why", "different", "empty"], lines)
    if rows:
        short = [
            [v if len(v) <= 40 else v[:39] + "…" for v in row] for row in plan.sample.head().rows()
        ]
        print_table("First rows", plan.sample.columns, short)
    infer.refuse_text(plan.columns)


def _rows(made) -> str:
    rows = made.notes["rows"]
    if isinstance(rows, int):
        return f"{rows:,} rows"
    counts = " / ".join(f"{n:,}" for n in rows.values())
    return f"{counts} rows (train / valid / test), split by {made.notes['split']}"


def _shown(path: Path) -> str:
    """A path from here where it lies below, else whole."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
