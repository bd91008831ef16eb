"""Data sets: schema, column store, batches, and the catalogue of real sets with their loaders."""

from importlib import import_module

from . import catalogue
from .batches import Batches
from .schema import Field, Schema
from .store import Batch, Events, Log, Split, from_arrays, open_store, save

__all__ = [
    "Batch",
    "Batches",
    "Events",
    "Field",
    "Log",
    "Schema",
    "Split",
    "from_arrays",
    "from_frame",
    "kind",
    "load",
    "open_store",
    "save",
]


def load(name: str, **options):
    """Load a data set by its name: of data/catalogue.toml, prepared at the first call, or of your own.

    Returns a `Log` for the kinds clicks and sequences, else a table of `paperlab.data.kinds`.
    options: the keyword arguments of the set's loader, ``data/sets/LOADER.py``; for sequences of your
        own those of ``data/own/sequences.py``'s ``read``.
    Raises ValueError for an unknown name, option or value, FileNotFoundError where there is neither
    a copy nor a network, with where to get the files and where to put them.
    """
    if name not in catalogue.entries() and name in _shelf().sets():
        return _shelf().load(name, **options)
    entry = _entry(name)
    loader = import_module(entry.module).load  # imports the loader of this set alone
    catalogue.check_options(name, loader, options)
    return loader(entry, **options)


def kind(name: str) -> str:
    """What the rows of a set are: clicks, sequences, preferences, bandit, relevance, problems, ...

    Raises ValueError, which lists the names, where there is no such set.
    """
    if name not in catalogue.entries() and name in (own := _shelf().sets()):
        return own[name].kind
    return _entry(name).kind


def from_frame(frame, kind: str = "clicks", *, name: str = "frame", **options):
    """A set from a table in memory, as ``paperlab data add`` makes it from files.

    frame: a polars or pandas frame, or a dict of columns.
    kind: clicks, sequences, preferences, bandit, relevance or problems.
    name: of the log or table.
    options: those of the command, for clicks ``label="click", user="user_id", time="ts"`` and others;
        lists of columns are lists.
    Returns what `load` returns for the kind, in memory; nothing is left on disk.
    Raises ValueError in one line for an unknown kind, option or column, and where nothing can be made.
    """
    return import_module("paperlab.data.own.frames").from_frame(frame, kind, name=name, **options)


def _entry(name: str) -> catalogue.Entry:
    own = [] if name in catalogue.entries() else [*_shelf().sets()]
    return catalogue.entry(name, own)


def _shelf():
    return import_module("paperlab.data.own.shelf")  # polars is imported where it is needed
