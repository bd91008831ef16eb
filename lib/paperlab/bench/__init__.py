"""Speed beside a peer, and as a share of what this processor can do: each part measures one thing.

A part is a module here with ``measure() -> dict``; its record data/reference/bench_PART.json has
``rows``, one a line of its table, and says on what and how quietly it was measured. Notebook 920
draws the records. Times are processor seconds of one thread, see `paperlab.bench.clock`.
"""

from __future__ import annotations

import os
import time
import warnings
from datetime import date
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from .. import machine, records

PARTS = ("training", "sequences", "ranking_transformers", "alignment", "environments")
PARTS += ("startup", "preparation")
PACKAGES = ("torch", "lightning", "polars", "gymnasium", "pot", "fuxictr", "recbole")
QUIET = 1.0  # load average of a minute above which a machine is not quiet


def main(parts: list[str]) -> None:
    """Measure parts, all of them when none is named; print and record each.

    On a busy machine it warns, and the record says so. Raises ValueError for an unknown part.
    """
    wrong = sorted(set(parts) - set(PARTS))
    if wrong:
        raise ValueError(f"bench has no part {', '.join(wrong)}; it has {', '.join(PARTS)}")
    load = os.getloadavg()[0]
    if load > QUIET:
        text = f"not a quiet machine: load {load:.1f} before the bench; the records will say so"
        warnings.warn(text, stacklevel=2)
    for name in parts or PARTS:
        start = time.perf_counter()
        found = import_module(f"{__name__}.{name}").measure()
        about = {"part": name, "date": date.today().isoformat(), "machine": machine.describe()}
        about |= {"versions": versions(), "load": load, "quiet": load <= QUIET}
        about["minutes"] = (time.perf_counter() - start) / 60
        show(name, found["rows"])
        path = records.project_root() / "data/reference" / f"bench_{name}.json"
        records.write(path, about | found)


def versions() -> dict[str, str]:
    """Versions of the packages that are compared; those not installed are left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package).split("+")[0]
        except PackageNotFoundError:  # peers are extras
            continue
    return found


def show(name: str, rows: list[dict]) -> None:
    """Print the text and numbers of rows as a table."""
    from rich.console import Console
    from rich.table import Table

    from ..plots import number

    table = Table(title=name)
    kept = {k: None for row in rows for k, v in row.items() if isinstance(v, str | int | float)}
    for column in kept:
        table.add_column(column)
    for row in rows:
        cells = (row.get(column) for column in kept)
        table.add_row(*(c if isinstance(c, str) else "" if c is None else number(c) for c in cells))
    Console().print(table)
