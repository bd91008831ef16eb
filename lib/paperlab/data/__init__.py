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
    "load",
    "open_store",
    "save",
]


def load(name: str, **options):
    """Load a real data set by its name in data/catalogue.toml; prepare it at the first call.

    Returns a `Log` for the kinds clicks and sequences, else a table of `paperlab.data.kinds`.
    options: the keyword arguments of the set's loader, ``data/sets/LOADER.py``.
    Raises ValueError for an unknown name, option or value, FileNotFoundError where there is neither
    a copy nor a network, with where to get the files and where to put them.
    """
    entry = catalogue.entry(name)
    loader = import_module(entry.module).load  # imports the loader of this set alone
    catalogue.check_options(name, loader, options)
    return loader(entry, **options)
