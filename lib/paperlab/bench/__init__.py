"""What is measured and told in the README: each part measures one thing beside a peer.

A part is a module here with ``measure() -> dict`` and ``markdown(found) -> str``. Its record goes to
data/reference/bench_PART.json and its table between ``<!-- bench PART -->`` and
``<!-- /bench PART -->`` in the README.
"""

from __future__ import annotations

from datetime import date
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import machine, records

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
        if not rewrite(ROOT / "README.md", name, text):
            print(f"README.md holds no markers of {name}: left as it is.")


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


def rewrite(file: Path, name: str, text: str) -> bool:
    """Put a text between the markers of a part; False, and nothing done, when the file has none."""
    opening, closing = f"<!-- bench {name} -->", f"<!-- /bench {name} -->"
    before, opened, rest = file.read_text().partition(opening) if file.is_file() else ("",) * 3
    _, closed, after = rest.partition(closing)
    if not opened or not closed:
        return False
    file.write_text(f"{before}{opening}\n{text}\n{closing}{after}")
    return True
