"""Speed beside a peer: each part measures one thing.

A part is a module here with ``measure() -> dict`` and ``markdown(found) -> str``. Its record goes to
data/reference/bench_PART.json and its table between ``<!-- bench PART -->`` and
``<!-- /bench PART -->`` in data/reference/BENCH.md.
"""

from __future__ import annotations

from datetime import date
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import machine, records
from ..index import between

ROOT = Path(__file__).resolve().parents[3]
PARTS = ("training", "startup", "preparation", "sequences", "environments", "alignment")
PEERS = ("torch", "lightning", "polars", "gymnasium", "pot", "fuxictr")


def main(parts: list[str]) -> None:
    """Measure parts, all of them when none is named; print, record and publish each.

    Raises ValueError for an unknown part.
    """
    wrong = sorted(set(parts) - set(PARTS))
    if wrong:
        raise ValueError(f"bench has no part {', '.join(wrong)}; it has {', '.join(PARTS)}")
    for name in parts or PARTS:
        part = import_module(f"{__name__}.{name}")
        found = {"machine": machine.describe(), "date": date.today().isoformat()}
        found |= {"versions": versions(), **part.measure()}
        text = f"{part.markdown(found)} {caption(found)}"
        print(text)
        path = ROOT / "data/reference" / f"bench_{name}.json"
        records.write(path, found)
        page = ROOT / "data/reference/BENCH.md"
        page.write_text(between(page.read_text(), f"bench {name}", text))


def versions() -> dict[str, str]:
    found = {}
    for package in PEERS:
        try:
            found[package] = version(package).split("+")[0]
        except PackageNotFoundError:  # FuxiCTR is an extra
            continue
    return found


def caption(found: dict) -> str:
    packages = ", ".join(f"{p} {v}" for p, v in found["versions"].items())
    return f"{found['machine']}, {found['date']}; {packages}."
