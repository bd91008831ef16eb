"""Click logs: schema, column store, batches, catalogue, loaders and known-truth generators."""

from .batches import Batches
from .schema import Field, Schema
from .store import Batch, Log, Split, from_arrays, open_store, save

__all__ = [
    "Batch",
    "Batches",
    "Field",
    "Log",
    "Schema",
    "Split",
    "from_arrays",
    "open_store",
    "save",
]
