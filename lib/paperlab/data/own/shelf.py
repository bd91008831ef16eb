"""Named sets of your own: made from files, listed, opened and removed; they lie in data/local."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .. import catalogue
from ..sources import Source
from ..stores import locked
from . import clicks, sequences, tables
from .files import opened

VERSION = 1  # raise when a set's bytes change: a preparation that was cut is then begun anew


class Kind(NamedTuple):
    """The functions of a kind; their keyword arguments are the options of `add` and of `load`."""

    plan: Callable[..., Any]
    make: Callable[[Any, Source, Path, dict], None]
    read: Callable[..., Any]


KINDS = {
    "clicks": Kind(clicks.plan, clicks.make, clicks.read),
    "sequences": Kind(sequences.plan, sequences.make, sequences.read),
    "preferences": Kind(tables.preferences, tables.make, tables.read),
    "bandit": Kind(tables.bandit, tables.make, tables.read),
    "relevance": Kind(tables.relevance, tables.make, tables.read),
    "problems": Kind(tables.problems, tables.make, tables.read),
}


@dataclass(frozen=True)
class OwnSet:
    """A set in data/local: its kind, its folder, and how it was made."""

    name: str
    kind: str
    folder: Path
    notes: dict

    def reasons(self) -> Counter[str]:
        """Why rows were set aside, and how many for each reason."""
        path = self.folder / "rejected.tsv"
        if not path.is_file():
            return Counter()
        with path.open(errors="replace", newline="\n") as file:
            return Counter(line.split("\t")[1] for line in file)


def root() -> Path:
    """PAPERLAB_LOCAL, or data/local of the project."""
    return Path(os.environ.get("PAPERLAB_LOCAL") or catalogue.data_root() / "local")


def planned(paths: Sequence[Path], kind: str, **options) -> tuple[Source, Any]:
    """Open files and plan how their columns are used; nothing is written.

    The plan has ``columns`` with their kinds and the ``sample`` from which they were inferred.
    Raises ValueError in one line for an unknown kind, option or column, and for files without rows.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    catalogue.check_options(kind, KINDS[kind].plan, options)
    source = opened(paths)
    return source, KINDS[kind].plan(source, **options)


def add(
    paths: Sequence[Path], kind: str, *, name: str | None = None, force: bool = False, **options
) -> OwnSet:
    """Make a named set from files or folders; resume where a killed call stopped.

    kind: clicks, sequences, preferences, bandit, relevance or problems; its options are the keyword
        arguments of the kind's plan.
    name: that of the first file or folder by default. force: whether to replace a set of this name.
    Raises ValueError as `planned` does, and where the name is taken.
    """
    name = _free(_default_name(paths) if name is None else name, force)
    source, plan = planned(paths, kind, **options)
    key = json.dumps([VERSION, kind, options, source.stamp], default=str)
    drafts = root() / f".{name}"
    draft = drafts / hashlib.sha256(key.encode()).hexdigest()[:10] / name
    notes = {"kind": kind, "source": [str(Path(p).name) for p in paths], "options": options}
    with locked(root() / name):
        _free(name, force)  # another process may have made it meanwhile
        draft.parent.mkdir(parents=True, exist_ok=True)
        try:
            with warnings.catch_warnings(action="ignore"):  # what is set aside is in the notes
                KINDS[kind].make(plan, source, draft, notes)
            KINDS[kind].read(draft, name)
        except ValueError:
            shutil.rmtree(drafts)
            raise
        shutil.rmtree(root() / name, ignore_errors=True)
        draft.rename(root() / name)
        shutil.rmtree(drafts)
    return sets()[name]


def sets() -> dict[str, OwnSet]:
    """All sets in data/local by name."""
    found = {}
    for path in sorted(root().glob("[!.]*/notes.json")):
        notes = json.loads(path.read_text())
        found[path.parent.name] = OwnSet(path.parent.name, notes["kind"], path.parent, notes)
    return found


def load(name: str, **options):
    """Open a set of `sets`; its kind's ``read`` names the options.

    Raises ValueError for an unknown option or value.
    """
    own = sets()[name]
    catalogue.check_options(name, KINDS[own.kind].read, options)
    return KINDS[own.kind].read(own.folder, name, **options)


def remove(name: str) -> Path:
    """Delete a set of `sets` from the disk; returns where it was. Raises ValueError for other names."""
    if name not in (known := sets()):
        there = ", ".join(known) or "none"
        raise ValueError(f"no set {name!r} of your own; there are: {there}")
    with locked(root() / name):
        shutil.rmtree(known[name].folder)
    return known[name].folder


def _default_name(paths: Sequence[Path]) -> str:
    stem = Path(paths[0]).resolve().name.split(".")[0]
    return re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_") or "data"


def _free(name: str, force: bool) -> str:
    """The name; raises ValueError where it cannot be given to a set."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"--name {name}: a name holds letters, digits, - and _")
    if name in catalogue.entries() or name in ("add", "remove"):
        raise ValueError(f"--name {name}: the catalogue has a set of this name")
    if name in sets() and not force:
        raise ValueError(f"{name} is there already: --force replaces it, --name makes another")
    return name
