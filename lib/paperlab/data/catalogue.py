"""What real data sets there are: kind, loader, source, terms, files. The list is data/catalogue.toml."""

from __future__ import annotations

import inspect
import math
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args, get_origin

KINDS = ("clicks", "sequences", "preferences", "bandit", "relevance", "problems", "graphs", "model")
LARGEST_SEED = 2**32 - 1


class BadOption(ValueError):
    """A name, an option or a value that no data set takes."""


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

    kind: one of `KINDS`, what its rows are. loader: name of its file in data/sets.
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


def entry(name: str) -> Entry:
    """One entry; raises BadOption, a ValueError, that lists the known names."""
    if name not in entries():
        raise BadOption(f"no data set {name!r}; there are: {', '.join(sorted(entries()))}")
    return entries()[name]


def check_options(name: str, loader: Callable, options: dict) -> None:
    """Hold options against the keyword arguments of a loader and their annotations.

    An int is at least 1, a seed in 0..2^32-1, a float finite, a Literal one of its values.
    Raises BadOption, a ValueError, in one line that says what is right.
    """
    arguments = inspect.signature(loader, eval_str=True).parameters.values()
    takes = {a.name: a.annotation for a in arguments if a.kind is a.KEYWORD_ONLY}
    if wrong := sorted(set(options) - set(takes)):
        raise BadOption(f"{name} takes {', '.join(takes) or 'no options'}, not {', '.join(wrong)}")
    for option, value in options.items():
        wanted = takes[option]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if get_origin(wanted) is Literal:
            one_of(name, option, value, get_args(wanted))
        elif option == "seed" and not (type(value) is int and 0 <= value <= LARGEST_SEED):
            raise BadOption(f"{name}: seed must be in 0..{LARGEST_SEED}, not {value!r}")
        elif wanted is int and option != "seed" and not (type(value) is int and value >= 1):
            raise BadOption(f"{name}: {option} must be at least 1, a whole number, not {value!r}")
        elif wanted is float and not (is_number and math.isfinite(value)):
            raise BadOption(f"{name}: {option} must be a finite number, not {value!r}")


def one_of(name: str, option: str, value, choices: Iterable) -> None:
    """Raise BadOption when a set's option is not one of the choices."""
    if value not in (choices := tuple(choices)):
        raise BadOption(f"{name}: {option} must be one of {', '.join(choices)}, not {value!r}")


def data_root() -> Path:
    """The project's data folder."""
    return Path(__file__).resolve().parents[3] / "data"
