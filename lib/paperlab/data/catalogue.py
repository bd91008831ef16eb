"""The catalogue of real data sets, data/catalogue.toml: kind, loader, source, terms, files."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args, get_origin

from .. import checks

KINDS = ("clicks", "sequences", "preferences", "bandit", "relevance", "problems", "graphs", "model")
LARGEST_SEED = 2**32 - 1


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

    kind: one of `KINDS`. loader: name of its file in data/sets.
    folder: where a copy may lie besides a folder of the set's own name. package: a Python package that
    carries the local files, which `make models` installs.
    """

    name: str
    kind: str
    loader: str
    title: str
    home: str
    terms: str
    citation: str
    files: tuple[File, ...] = ()
    local: tuple[File, ...] = ()
    folder: str | None = None
    package: str | None = None

    @property
    def module(self) -> str:
        """Dotted name of the module whose ``load(entry, **options)`` reads the set."""
        return f"paperlab.data.sets.{self.loader}"


@cache
def entries() -> dict[str, Entry]:
    """Every entry of data/catalogue.toml by name."""
    raw = tomllib.loads((data_root() / "catalogue.toml").read_text())
    known = {}
    for name, fields in raw.items():
        forms = {k: tuple(File(**f) for f in fields.pop(k, ())) for k in ("files", "local")}
        known[name] = Entry(name, **fields, **forms)
    return known


def entry(name: str, own: Sequence[str] = ()) -> Entry:
    """One entry; raises ValueError that lists the known names, with those of the ``own`` sets."""
    if name not in entries():
        known = ", ".join(sorted([*entries(), *own]))
        raise ValueError(f"no data set {name!r}; there are: {known}")
    return entries()[name]


def check_options(name: str, loader: Callable, options: dict) -> None:
    """Check options by the keyword arguments of a loader and their annotations.

    An int is at least 1, a seed in 0..2^32-1, a Literal one of its values; loaders check the rest.
    Raises ValueError in one line that says what is right.
    """
    arguments = inspect.signature(loader, eval_str=True).parameters.values()
    takes = {a.name: a.annotation for a in arguments if a.kind is a.KEYWORD_ONLY}
    if wrong := sorted(set(options) - set(takes)):
        raise ValueError(f"{name} takes {', '.join(takes) or 'no options'}, not {', '.join(wrong)}")
    for option, value in options.items():
        if get_origin(takes[option]) is Literal:
            checks.one_of(get_args(takes[option]), **{option: value})
        elif takes[option] is int:
            checks.whole(int(option != "seed"), **{option: value})
    if options.get("seed", 0) > LARGEST_SEED:
        raise ValueError(f"seed must be at most {LARGEST_SEED}, got {options['seed']}")


def data_root() -> Path:
    """The project's data folder."""
    return Path(__file__).resolve().parents[3] / "data"
