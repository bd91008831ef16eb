"""What real data sets there are: source, terms, files, hashes. The list itself is data/catalogue.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class File:
    """One file of a set. sha256 "unverified": pinned at the first download; url None: by hand."""

    name: str
    sha256: str
    url: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Entry:
    """A data set. ``files`` are the official ones, ``local`` other forms that a copy may have.

    folder: where a copy may lie besides a folder of the set's own name.
    """

    name: str
    title: str
    home: str
    terms: str
    citation: str
    files: tuple[File, ...] = ()
    local: tuple[File, ...] = ()
    folder: str | None = None


@cache
def entries() -> dict[str, Entry]:
    """Every entry of data/catalogue.toml by name."""
    raw = tomllib.loads((data_root() / "catalogue.toml").read_text())
    found = {}
    for name, fields in raw.items():
        kinds = {k: tuple(File(**f) for f in fields.pop(k, ())) for k in ("files", "local")}
        found[name] = Entry(name, **fields, **kinds)
    return found


def entry(name: str) -> Entry:
    """One entry; raises ValueError that lists the known names."""
    if name not in entries():
        raise ValueError(f"no data set {name!r}; there are: {', '.join(sorted(entries()))}")
    return entries()[name]


def data_root() -> Path:
    """The project's data folder."""
    return Path(__file__).resolve().parents[3] / "data"
