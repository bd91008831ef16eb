"""Named sets of your own: made from files, listed, opened and removed; they lie in data/local."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import os
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ... import checks
from .. import catalogue
from ..sources import Source
from ..stores import locked
from . import clicks, daily, infer, outcomes, requests, sequences, streams, tables
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
    "funnel": Kind(outcomes.funnel, outcomes.make, outcomes.read),
    "amounts": Kind(outcomes.amounts, outcomes.make, outcomes.read),
    "delays": Kind(outcomes.delays, outcomes.make, outcomes.read),
    "daily": Kind(daily.daily, outcomes.make, outcomes.read),
    "stream": Kind(streams.stream, streams.make, streams.read),
    "requests": Kind(requests.requests, requests.make, requests.read),
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
    check_kind(kind, options)
    source = opened(paths)
    return source, plan(source, kind, **options)


def check_kind(kind: str, options: dict) -> None:
    """Raise ValueError for an unknown kind, and for options that its plan does not take."""
    checks.one_of(KINDS, kind=kind)
    catalogue.check_options(kind, KINDS[kind].plan, options)


def plan(source: Source, kind: str, **options) -> Any:
    """Plan how the columns of a source are used.

    Raises ValueError in one line; where a column is missing it names the kinds that the columns fit.
    """
    try:
        return KINDS[kind].plan(source, **options)
    except infer.NoColumn as error:
        fits = [k for k in KINDS if k != kind and _columns_of(k) <= {*source.columns}]
        hint = f"; these fit --kind {' or '.join(fits)}" if fits else ""
        raise ValueError(f"{error}{hint}") from None


def add(
    paths: Sequence[Path], kind: str, *, name: str | None = None, force: bool = False, **options
) -> OwnSet:
    """Make a named set from files or folders; resume where a killed call stopped.

    kind: one of `KINDS`; its options are the keyword arguments of the kind's plan.
    name: that of the first file or folder by default. force: whether to replace a set of this name.
    Raises ValueError as `planned` does, and where the name is taken.
    """
    name = free_name(paths, name, force)
    source, planned_use = planned(paths, kind, **options)
    key = json.dumps([VERSION, kind, options, source.stamp], default=str)
    drafts = root() / f".{name}"
    draft = drafts / hashlib.sha256(key.encode()).hexdigest()[:10] / name
    notes = {"kind": kind, "source": [str(Path(p).name) for p in paths], "options": options}
    with _alone(name):
        free_name(paths, name, force)  # another process may have made it meanwhile
        draft.parent.mkdir(parents=True, exist_ok=True)
        try:
            with warnings.catch_warnings(action="ignore"):  # what is set aside is in the notes
                KINDS[kind].make(planned_use, source, draft, notes)
            KINDS[kind].read(draft, name)
        except ValueError:
            shutil.rmtree(drafts)
            raise
        notes = json.loads((draft / "notes.json").read_text()) | {"sha256": _hash(draft)}
        (draft / "notes.json").write_text(json.dumps(notes, indent=1))
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


def check_known(name: str) -> None:
    """Raise ValueError, with the nearest names, where neither the catalogue nor `sets` has the name."""
    known = [*catalogue.entries(), *sets()]
    if name not in known:
        near = difflib.get_close_matches(name, known)
        near = f"near it: {', '.join(near)}; " if near else ""
        raise ValueError(f"no data set {name!r}; {near}`paperlab data` lists all")


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
    with _alone(name):
        shutil.rmtree(known[name].folder)
    return known[name].folder


def free_name(paths: Sequence[Path], name: str | None, force: bool) -> str:
    """The name of a new set; for the arguments see `add`.

    Raises ValueError for a name that no set can have, and one that is taken.
    """
    if name is None:
        stem = Path(paths[0]).resolve().name.split(".")[0]
        name = re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_") or "data"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"--name {name}: a name holds letters, digits, - and _")
    if name in catalogue.entries() or name in ("add", "remove"):
        raise ValueError(f"--name {name}: the catalogue has a set of this name")
    if name in sets() and not force:
        raise ValueError(f"{name} is there already: --force replaces it, --name makes another")
    return name


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """`locked`, without a file that stays: who waited for it takes a new one."""
    with locked(root() / name):
        try:
            yield
        finally:
            (root() / f".{name}.lock").unlink(missing_ok=True)


def _columns_of(kind: str) -> set[str]:
    """The columns that a kind needs, by the names that they have by default."""
    arguments = inspect.signature(KINDS[kind].plan).parameters.values()
    needed = [a.default for a in arguments if a.annotation == "str"]
    return {name for names in needed for name in names.split(",")}


def _hash(folder: Path) -> str:
    """SHA-256 of the names and bytes of a set's files, without its notes and the rows set aside."""
    whole = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path.name not in ("notes.json", "rejected.tsv"):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{path.relative_to(folder)} {content}\n".encode())
    return whole.hexdigest()
