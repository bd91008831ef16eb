"""What a run writes: the notebook's part of its record, and files that are whole or absent."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import machine

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int

    from .evidence import Units

RUN_VARIABLE = "PAPERLAB_RUN"


class Record:
    """The notebook's part of a record.

    metrics: values and rows by name; tables: the roles of the columns of those rows that claims,
    checks and comparisons may read; units: values by test unit; verdicts: the claims with their
    outcomes, the paper's main claim first.
    """

    def __init__(self, notebook: str, threads: int, device: str):
        self.notebook, self.verdicts, self._began = notebook, [], time.perf_counter()
        self.metrics: dict[str, Any] = {}
        self.tables: dict[str, dict[str, Any]] = {}
        self.units: dict[str, Units] = {}
        self.device, self.threads = device, threads

    def __setitem__(self, name: str, value) -> None:
        """Store a number, text, list, dict, or a polars or pandas table (as rows).

        Raises TypeError for what JSON cannot hold, here and not at the end of a long run.
        """
        if hasattr(value, "to_dicts"):
            value = value.to_dicts()
        elif hasattr(value, "to_dict"):
            value = value.to_dict("records")
        value = plain(value)
        try:
            json.dumps(value)
        except TypeError as error:
            raise TypeError(f"record[{name!r}]: {error}; store numbers, texts or rows") from None
        self.metrics[name] = value

    def __getitem__(self, name: str):
        return self.metrics[name]

    def table(
        self,
        name: str,
        rows,
        *,
        group: str = "model",
        where: Sequence[str] = (),
        metric: str | Sequence[str] = "auc",
        better: str | Sequence[str] = "higher",
        pair: str = "seed",
    ) -> None:
        """Store rows and declare what their columns are.

        rows: a list of dicts, or a polars or pandas table.
        group: the column that names the methods.
        where: columns of the conditions under which methods are compared (a log, a noise level).
        metric: the column that is compared, or several, the main one first.
        better: "higher" or "lower", for all metrics or one each.
        pair: the column of independent repetitions; methods are compared within its values.

        Raises ValueError where a row lacks one of these columns, or two rows share group, where
        and pair.
        """
        self[name] = rows
        metrics = [metric] if isinstance(metric, str) else list(metric)
        ways = [better] * len(metrics) if isinstance(better, str) else list(better)
        said = f"record.table({name!r})"
        if not metrics or len(ways) != len(metrics) or set(ways) - {"higher", "lower"}:
            raise ValueError(f"{said}: better takes higher or lower, for all metrics or one each")
        where = [where] if isinstance(where, str) else list(where)
        keys, seen = [group, *where, pair], set()
        for row in self[name]:
            if lacks := [c for c in (*keys, *metrics) if c not in row]:
                raise ValueError(
                    f"{said}: a row has no {', '.join(lacks)}; it has {', '.join(row)}"
                )
            key = tuple(json.dumps(row[c]) for c in keys)
            if key in seen:
                both = ", ".join(f"{c}={row[c]}" for c in keys)
                raise ValueError(f"{said}: two rows with {both}; name what tells them apart in where")  # fmt: skip
            seen.add(key)
        directions = dict(zip(metrics, ways, strict=True))
        self.tables[name] = {"group": group, "where": where, "pair": pair, "metric": metrics[0]}
        self.tables[name] |= {"better": ways[0], "metrics": directions}

    def scores(
        self,
        name: str,
        values: dict[tuple[Hashable, int], Float[np.ndarray, " units"]],
        *,
        labels: Int[np.ndarray, " units"] | None = None,
        weights: Float[np.ndarray, " units"] | None = None,
        clusters: Int[np.ndarray, " units"] | None = None,
    ) -> None:
        """Store what every (method, seed) achieved on each test unit: see `evidence.Units`.

        At most 20,000 units; `save` writes them to a parquet file beside the record.
        """
        from .evidence import Units

        self.units[name] = Units(values, labels, weights, clusters)

    def save(self) -> None:
        """Add this to the run's record, where the front door started the run; else do nothing."""
        if folder := os.environ.get(RUN_VARIABLE):
            self.save_in(Path(folder))

    def save_in(self, folder: Path) -> None:
        """Add this to the record of a run's folder."""
        path, files = folder / "record.json", {}
        for name, units in self.units.items():
            files[name] = f"scores_{file_name(name)}.parquet"
            units.write(path.with_name(files[name]))
        whole = json.loads(path.read_text()) if path.is_file() else {}
        whole |= {
            "device": self.device,
            "threads": self.threads,
            "notebook_seconds": round(time.perf_counter() - self._began, 2),
            "peak_memory_mb": round(machine.peak_memory_mb()),
            "metrics": self.metrics,
            "tables": self.tables,
            "units": files,
            "verdicts": self.verdicts,
        }
        write(path, whole)


def write(path: Path, record: dict) -> None:
    """A record as JSON, whole or not at all: see `replace`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, json.dumps(record, indent=1))


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all: a temporary name, flushed to disk, renamed.

    The name is flushed too, so that a power cut after the return finds the new file, one before it
    the old one.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)  # what is left when the disk is full
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def file_name(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"\W+", "_", name)


def plain(value):
    """JSON's own types; numbers that are not finite become None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
