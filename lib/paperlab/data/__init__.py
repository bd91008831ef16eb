"""Click logs: schema, column store, batches, catalogue, loaders and known-truth generators."""

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


def load(name: str, **options) -> Log:
    """A real data set by its name in the catalogue: see `paperlab.data.loaders.load`."""
    from .loaders import load  # polars and pooch load only where they are used

    return load(name, **options)
