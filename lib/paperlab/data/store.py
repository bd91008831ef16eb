"""The column store: a few matrices a split, memory-mapped, gathered by index.

On disk a log is a folder::

    schema.json                      fields, labels, user key
    train.ids.npy  train.values.npy  valid.*  test.*
    events.ids.npy  events.times.npy train.spans.npy  train.times.npy  ...   with sequences
    train.users.npy  ...             the users' own keys
    notes.json                       rows, rejected rows, source, licence: how it was made

``ids`` (n, categorical) int32; ``values`` (n, numeric + labels) float32 holds the numeric fields,
then the labels. Histories are ragged: all events lie in one table (E, sequences), a user's one
after another in order of time, and a row's history is the span [start, stop) of it, so that the
thousand rows of one user share one copy of the user's events.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import validation
from .schema import Schema

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SPLITS = ("train", "valid", "test")
OPTIONAL = ("spans", "times", "users")  # columns of a split that a log may lack


class Batch(NamedTuple):
    """The input of a model: B rows, and the last T <= ``length`` events of their histories.

    history: oldest first, the most recent event last, padded on the left with 0; T is the longest
        history of the batch, at least 1. An event is real where its first id is not 0, so that one
        whose first field is out of vocabulary counts as padding. None without sequences.
    elapsed: hours from each event to the row's own time, 0 at padding. None without times.
    """

    ids: Int[Tensor, "B C"]  # int32
    numeric: Float[Tensor, "B N"]
    labels: Float[Tensor, "B L"]
    history: Int[Tensor, "B T S"] | None = None  # int32
    elapsed: Float[Tensor, "B T"] | None = None

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(None if t is None else t.to(device) for t in self))


class Events(NamedTuple):
    """Every event that a history of the log may hold, a user's one after another, oldest first.

    ids: int32, one column a sequence field. times: int64 seconds, or None where only the order is
    known.
    """

    ids: Int[Tensor, "E S"]
    times: Int[Tensor, " E"] | None = None


@dataclass(frozen=True)
class Split:
    """The rows of one part of a log, in memory or memory-mapped.

    spans: [start, stop) of each row's history in ``events``; length: the most recent events of it
    that are used. times: time of each row, in seconds on the events' clock.
    users: the users' own keys, for grouped metrics. mapped: whether the columns are memory-mapped
    from a store, whose values were checked when it was written.
    """

    ids: Int[Tensor, "n C"]
    values: Float[Tensor, "n V"]
    n_numeric: int
    spans: Int[Tensor, "n 2"] | None = None
    times: Int[Tensor, " n"] | None = None
    users: Int[Tensor, " n"] | None = None
    events: Events | None = None
    length: int = 0
    mapped: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Int[Tensor, " B"] | slice) -> Batch:
        """Gather rows: one index per matrix, no Python per row."""
        values = self.values[index]
        rows = (self.ids[index], values[:, : self.n_numeric], values[:, self.n_numeric :])
        if self.spans is None:
            return Batch(*rows)
        start, stop = self.spans[index].unbind(1)
        used = (stop - start).clamp(max=self.length)
        longest = max(int(used.max()), 1)
        back = torch.arange(longest, 0, -1, device=used.device)  # T..1: the last column is stop - 1
        real = back <= used[:, None]
        place = torch.where(real, stop[:, None] - back, 0).flatten()
        history = self.events.ids.index_select(0, place).view(*real.shape, -1)
        history.mul_(real[:, :, None])
        if self.times is None or self.events.times is None:
            return Batch(*rows, history)
        then = self.events.times.index_select(0, place).view(real.shape)
        hours = (self.times[index][:, None] - then) / 3600
        return Batch(*rows, history, hours.mul_(real))

    def rows(self, index: Int[Tensor, " B"] | slice) -> Split:
        """The split of these rows alone, with their histories, times and keys."""
        columns = {k: getattr(self, k) for k in ("ids", "values", *OPTIONAL)}
        return replace(self, **{k: c[index] for k, c in columns.items() if c is not None})

    @property
    def labels(self) -> Float[Tensor, "n L"]:
        return self.values[:, self.n_numeric :]

    @property
    def lengths(self) -> Int[Tensor, " n"]:
        """Events that each row uses."""
        return (self.spans[:, 1] - self.spans[:, 0]).clamp(max=self.length)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, events of the other parts included."""
        tensors = (self.ids, self.values, self.spans, self.times, self.users, *(self.events or ()))
        return sum(t.nbytes for t in tensors if t is not None)

    def to(self, device: torch.device | str) -> Split:
        def moved(t: Tensor | None) -> Tensor | None:
            return None if t is None else t.to(device)

        tensors = {k: moved(getattr(self, k)) for k in ("ids", "values", *OPTIONAL)}
        events = self.events and Events(*map(moved, self.events))
        return replace(self, **tensors, events=events)


@dataclass(frozen=True)
class Log:
    """A click log in three parts. ``truth`` holds what a generator knows (None for real data).

    Raises ValueError in one line when a part is empty, lacks a column of the schema, or holds ids
    outside their field, values that are not finite, or spans outside the events.
    """

    name: str
    schema: Schema
    train: Split
    valid: Split
    test: Split
    truth: object = None
    notes: dict = field(default_factory=dict)

    def __post_init__(self):
        for part in SPLITS:
            validation.split(f"{self.name}.{part}", self.schema, getattr(self, part))

    @property
    def events(self) -> Events | None:
        """The event table that the spans of all parts point into; None without sequences."""
        return self.train.events

    def user(self, part: str) -> Int[Tensor, " n"] | None:
        """The user key of every row of a part, for grouped metrics; None where there is none.

        The users' own keys where the log has them, else the ids of the schema's user field.
        """
        split, column = getattr(self, part), self.schema.user_column
        if split.users is not None or column is None:
            return split.users
        return split.ids[:, column]

    def __repr__(self) -> str:
        rows = " / ".join(f"{len(getattr(self, p)):,}" for p in SPLITS)
        ids = sum(f.size for f in self.schema.categorical)
        return f"Log({self.name}: {rows} rows, {len(self.schema.fields)} fields, {ids:,} ids)"


def from_arrays(
    name: str,
    schema: Schema,
    ids: np.ndarray,
    values: np.ndarray,
    part: np.ndarray,
    *,
    spans: np.ndarray | None = None,
    times: np.ndarray | None = None,
    users: np.ndarray | None = None,
    events: tuple[np.ndarray, np.ndarray | None] | None = None,
    **extra,
) -> Log:
    """A log from matrices in memory; ``part`` (n,) holds 0 train, 1 valid, 2 test.

    events: ids (E, sequences) and seconds (E,) or None; spans (n, 2) point into it. times (n,):
    seconds of the rows. users (n,): the users' own keys, integers. extra: truth, notes.
    Columns may be arrays, tensors or lists.
    Raises ValueError as `Log` does, for columns of another length than ``part``, for an unknown part,
    and for ids, spans, times or keys that are not whole numbers.
    """
    optional = {"spans": spans, "times": times, "users": users}
    ids, values, part = np.asarray(ids), np.asarray(values), np.asarray(part)
    optional = {n: None if a is None else np.asarray(a) for n, a in optional.items()}
    validation.parts(name, part, {"ids": ids, "values": values} | optional)
    of_events = dict(zip(("event ids", "event times"), events or (), strict=False))
    for column, array in ({"ids": ids} | optional | of_events).items():
        if array is not None:
            dtype = np.int32 if column.endswith("ids") else np.int64
            validation.whole(f"{name}: {column}", array, dtype)
    if events is not None:
        events = Events(_tensor(events[0], np.int32), _tensor(events[1], np.int64))
    splits = [
        Split(
            _tensor(ids[part == k], np.int32),
            _tensor(values[part == k], np.float32),
            len(schema.numeric),
            **{n: _tensor(a[part == k], np.int64) for n, a in optional.items() if a is not None},
            events=events,
            length=schema.length,
        )
        for k in range(3)
    ]
    return Log(name, schema, *splits, **extra)


def _tensor(array: np.ndarray | None, dtype: type) -> Tensor | None:
    return None if array is None else torch.from_numpy(np.ascontiguousarray(array, dtype=dtype))


def save(log: Log, folder: Path) -> None:
    """Write a log as a folder that ``open_store`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {p: getattr(log, p) for p in SPLITS} | ({"events": log.events} if log.events else {})
    for part, table in tables.items():
        for name in ("ids", "values", *OPTIONAL):
            if (column := getattr(table, name, None)) is not None:
                np.save(folder / f"{part}.{name}.npy", column.numpy())
    (folder / "notes.json").write_text(json.dumps(log.notes, indent=1))
    (folder / "schema.json").write_text(log.schema.to_json())


def open_store(folder: Path, name: str | None = None) -> Log:
    """Map a stored log; nothing is read until rows are gathered.

    Raises FileNotFoundError, in one line, when a part is missing.
    """
    needed = ["schema.json", *(f"{p}.{m}.npy" for p in SPLITS for m in ("ids", "values"))]
    if (folder / "schema.json").is_file():
        schema = Schema.from_json((folder / "schema.json").read_text())
        if schema.sequences:
            needed += ["events.ids.npy", *(f"{p}.spans.npy" for p in SPLITS)]
    missing = [n for n in needed if not (folder / n).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} is not a column store: {', '.join(missing)} missing")
    events = None
    if schema.sequences:
        events = Events(_map(folder / "events.ids.npy"), _map(folder / "events.times.npy"))
    splits = [
        Split(
            _map(folder / f"{part}.ids.npy"),
            _map(folder / f"{part}.values.npy"),
            len(schema.numeric),
            **{n: _map(folder / f"{part}.{n}.npy") for n in OPTIONAL},
            events=events,
            length=schema.length,
            mapped=True,
        )
        for part in SPLITS
    ]
    notes = folder / "notes.json"
    return Log(
        name or folder.name,
        schema,
        *splits,
        notes=json.loads(notes.read_text()) if notes.is_file() else {},
    )


def _map(path: Path) -> Tensor | None:
    if not path.is_file():
        return None
    array = np.load(path, mmap_mode="c")  # copy-on-write: torch wants a writable buffer
    return torch.from_numpy(array) if array.size else torch.from_numpy(np.array(array))
