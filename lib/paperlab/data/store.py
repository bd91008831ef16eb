"""The column store: one int32 and one float32 matrix a split, memory-mapped, gathered by index (ours).

On disk a log is a folder::

    schema.json                      fields, labels, user key
    train.ids.npy  train.values.npy  valid.*  test.*
    notes.json                       rows, rejected rows, source, licence: how it was made

``ids`` (n, id_columns) int32 holds categorical and sequence ids; ``values`` (n, numeric + labels)
float32 holds the numeric fields, then the labels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .schema import Schema

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SPLITS = ("train", "valid", "test")


class Batch(NamedTuple):
    """What a model sees: B rows."""

    ids: Int[Tensor, "B C"]  # int32; categorical columns, then sequences
    numeric: Float[Tensor, "B N"]
    labels: Float[Tensor, "B L"]


@dataclass(frozen=True)
class Split:
    """The rows of one part of a log, in memory or memory-mapped."""

    ids: Int[Tensor, "n C"]
    values: Float[Tensor, "n V"]
    n_numeric: int

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Int[Tensor, " B"] | slice) -> Batch:
        """Gather rows: one index per matrix, no Python per row."""
        values = self.values[index]
        return Batch(self.ids[index], values[:, : self.n_numeric], values[:, self.n_numeric :])

    @property
    def labels(self) -> Float[Tensor, "n L"]:
        return self.values[:, self.n_numeric :]

    def to(self, device: torch.device | str) -> Split:
        return Split(self.ids.to(device), self.values.to(device), self.n_numeric)


@dataclass(frozen=True)
class Log:
    """A click log in three parts. ``truth`` holds what a generator knows (None for real data)."""

    name: str
    schema: Schema
    train: Split
    valid: Split
    test: Split
    truth: object = None
    notes: dict = field(default_factory=dict)

    def __post_init__(self):
        for part in SPLITS:
            split = getattr(self, part)
            want = (self.schema.id_columns, len(self.schema.numeric) + len(self.schema.labels))
            have = (split.ids.shape[1], split.values.shape[1])
            if want != have:
                raise ValueError(
                    f"{self.name}.{part}: the schema asks for {want} id and value columns, found {have}"
                )

    def user(self, part: str) -> Int[Tensor, " n"] | None:
        """The user key of every row of a part, for grouped metrics."""
        column = self.schema.user_column
        return None if column is None else getattr(self, part).ids[:, column]

    def __repr__(self) -> str:
        rows = " / ".join(f"{len(getattr(self, p)):,}" for p in SPLITS)
        ids = sum(f.size for f in self.schema.categorical)
        return f"Log({self.name}: {rows} rows, {len(self.schema.fields)} fields, {ids:,} ids)"


def from_arrays(
    name: str, schema: Schema, ids: np.ndarray, values: np.ndarray, part: np.ndarray, **extra
) -> Log:
    """A log from matrices in memory; ``part`` (n,) holds 0 train, 1 valid, 2 test."""
    n_numeric = len(schema.numeric)
    splits = [
        Split(
            torch.from_numpy(np.ascontiguousarray(ids[part == k], dtype=np.int32)),
            torch.from_numpy(np.ascontiguousarray(values[part == k], dtype=np.float32)),
            n_numeric,
        )
        for k in range(3)
    ]
    return Log(name, schema, *splits, **extra)


def save(log: Log, folder: Path) -> None:
    """Write a log as a folder that ``open_store`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in SPLITS:
        split = getattr(log, part)
        np.save(folder / f"{part}.ids.npy", split.ids.numpy())
        np.save(folder / f"{part}.values.npy", split.values.numpy())
    (folder / "notes.json").write_text(json.dumps(log.notes, indent=1))
    (folder / "schema.json").write_text(log.schema.to_json())


def open_store(folder: Path, name: str | None = None) -> Log:
    """Map a stored log; nothing is read until rows are gathered.

    Raises FileNotFoundError, in one line, when a part is missing.
    """
    missing = [
        n
        for n in ("schema.json", *(f"{p}.{m}.npy" for p in SPLITS for m in ("ids", "values")))
        if not (folder / n).is_file()
    ]
    if missing:
        raise FileNotFoundError(f"{folder} is not a column store: {', '.join(missing)} missing")
    schema = Schema.from_json((folder / "schema.json").read_text())
    splits = [
        Split(*(_map(folder / f"{part}.{m}.npy") for m in ("ids", "values")), len(schema.numeric))
        for part in SPLITS
    ]
    notes = folder / "notes.json"
    return Log(
        name or folder.name,
        schema,
        *splits,
        notes=json.loads(notes.read_text()) if notes.is_file() else {},
    )


def _map(path: Path) -> Tensor:
    array = np.load(path, mmap_mode="c")  # copy-on-write: torch wants a writable buffer
    return torch.from_numpy(array) if array.size else torch.from_numpy(np.array(array))
