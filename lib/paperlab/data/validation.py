"""Validation of logs when they are made: each error is one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from . import store
    from .schema import Schema


def parts(name: str, part: np.ndarray, columns: dict[str, np.ndarray | None]) -> None:
    """Raise ValueError unless every row is of part 0, 1 or 2 and all columns have a value for it."""
    part = np.asarray(part)
    if part.ndim != 1 or not np.isin(part, (0, 1, 2)).all():
        raise ValueError(f"{name}: part must hold 0 (train), 1 (valid) or 2 (test) for each row")
    for column, array in columns.items():
        rows = "no" if np.ndim(array) == 0 else len(array)
        if array is not None and rows != len(part):
            raise ValueError(f"{name}: {column} has {rows} rows, part has {len(part)}")


def whole(what: str, array: np.ndarray, dtype: type) -> None:
    """Raise ValueError unless an array holds whole numbers that fit into an integer dtype."""
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{what} must be whole numbers, got {array.dtype}")
    if array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.floor(array))).all():
        raise ValueError(f"{what} must be whole numbers")
    limits = np.iinfo(dtype)
    if array.size and not limits.min <= array.min() <= array.max() <= limits.max:
        raise ValueError(f"{what} must lie in {limits.min}..{limits.max}")


def split(name: str, schema: Schema, part: store.Split) -> None:
    """Raise ValueError unless a part has the schema's columns, rows, and values in range.

    Values of memory-mapped columns are not read: they were checked when the store was written.
    """
    events = part.events
    dimensions = {"ids": (part.ids, 2), "values": (part.values, 2), "spans": (part.spans, 2)}
    dimensions |= {"times": (part.times, 1), "users": (part.users, 1)}
    if events is not None:
        dimensions |= {"event ids": (events.ids, 2), "event times": (events.times, 1)}
    for column, (tensor, wanted) in dimensions.items():
        if tensor is not None and tensor.ndim != wanted:
            raise ValueError(f"{name}: {column} must have {wanted} dimensions, got {tensor.ndim}")
    want = (
        len(schema.categorical),
        len(schema.numeric) + len(schema.labels),
        len(schema.sequences),
    )
    event_columns = events.ids.shape[1] if events and len(events.ids) else 0
    have = (part.ids.shape[1], part.values.shape[1], event_columns)
    if want != have:
        raise ValueError(f"{name}: the schema needs {want} id, value and event columns, got {have}")
    if schema.sequences and (part.spans is None or part.spans.shape != (len(part), 2)):
        raise ValueError(f"{name}: histories need spans of shape (n, 2)")
    if (part.n_numeric, part.length) != (len(schema.numeric), schema.length):
        raise ValueError(
            f"{name}: n_numeric and length must be the schema's {len(schema.numeric)} and "
            f"{schema.length}, got {part.n_numeric} and {part.length}"
        )
    if events and events.times is not None and len(events.times) != len(events.ids):
        raise ValueError(f"{name}: {len(events.times)} event times for {len(events.ids)} events")
    if not len(part):
        raise ValueError(f"{name} is empty: a log needs rows in train, valid and test")
    for column in ("values", "times", "users"):
        values = getattr(part, column)
        if values is not None and len(values) != len(part):
            raise ValueError(f"{name}: {column} has {len(values)} rows, ids has {len(part)}")
    if part.mapped:
        return
    for column in ("spans", "times", "users"):
        values = getattr(part, column)
        if values is not None and (values.is_floating_point() or values.dtype == torch.bool):
            raise ValueError(f"{name}: {column} must be integers, got {values.dtype}")
    sizes = {f.name: f.size for f in schema.categorical}
    _ids(name, part.ids, sizes)
    bad = ~part.values.isfinite().all(0)
    if bad.any():
        names = [f.name for f in schema.numeric] + list(schema.labels)
        wrong = ", ".join(n for n, b in zip(names, bad.tolist(), strict=True) if b)
        raise ValueError(f"{name}: {wrong} must be finite")
    if schema.sequences:
        start, stop = part.spans.unbind(1)
        if start.min() < 0 or (start > stop).any() or stop.max() > len(events.ids):
            raise ValueError(
                f"{name}: spans must be 0 <= start <= stop <= {len(events.ids):,} events"
            )
        _ids(
            f"{name}: events",
            events.ids,
            {f.name: f.size or sizes[f.shares] for f in schema.sequences},
        )


def _ids(name: str, ids: torch.Tensor, sizes: dict[str, int]) -> None:
    """Each column holds ids of its field, in 0..size-1."""
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(f"{name}: ids must be integers, got {ids.dtype}")
    if not sizes:
        return
    low, high = ids.amin(0).tolist(), ids.amax(0).tolist()
    for (field, size), least, most in zip(sizes.items(), low, high, strict=True):
        if least < 0 or most >= size:
            raise ValueError(f"{name}: {field} must lie in 0..{size - 1}, got {least}..{most}")
