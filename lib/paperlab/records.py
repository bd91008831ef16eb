"""One JSON record a run: what was run, on what, how long, and what came out.

The front door names the run's folder in the environment variable PAPERLAB_RUN. A notebook that
somebody opens by hand keeps its record in memory and leaves no trace.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import time
import warnings
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import digest, machine, plots, verdict
from .evidence import Units

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from jaxtyping import Float, Int

RUN_VARIABLE = "PAPERLAB_RUN"
LOCK = ".running"
FIELDS = dict.fromkeys(("notebook", "profile", "status", "started", "machine"), str)
FIELDS |= dict.fromkeys(("parameters", "code", "error"), dict)
FIELDS |= {"seconds": float | int, "peak_memory_mb": int}
COLUMNS = (
    *("run", "notebook", "profile", "status", "started", "seconds", "peak_memory_mb", "machine"),
    *("commit", "parameters", "verdicts", "metrics", "error"),
)


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
        value = _plain(value)
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
                raise ValueError(f"{said}: a row has no {', '.join(lacks)}; it has {', '.join(row)}")
            key = tuple(json.dumps(row[c]) for c in keys)
            if key in seen:
                found = ", ".join(f"{c}={row[c]}" for c in keys)
                raise ValueError(f"{said}: two rows with {found}; name what tells them apart in where")  # fmt: skip
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
        self.units[name] = Units(values, labels, weights, clusters)

    def save(self) -> None:
        """Add this to the run's record, where the front door started the run; else do nothing."""
        folder = os.environ.get(RUN_VARIABLE)
        if not folder:
            return
        path, files = Path(folder) / "record.json", {}
        for name, units in self.units.items():
            files[name] = f"scores_{_file_name(name)}.parquet"
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


def start(notebook: str, seed: int = 0, threads: int = 2) -> Record:
    """Seed everything, pin the threads, find the device; prints one line. threads >= 1."""
    import torch
    from lightning import seed_everything

    seed_everything(seed, verbose=False)
    torch.set_num_threads(threads)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    print(f"{notebook}: {device}, {threads} threads, torch {torch.__version__.split('+')[0]}")
    return Record(notebook, threads, device)


def begin(notebook: str, profile: str, parameters: dict, root: Path) -> dict:
    """A run's record before its kernel starts. Its key says what is run: see `key`."""
    code = digest.notebook(root / "notebooks" / f"{notebook}.ipynb")
    return {
        "notebook": notebook,
        "profile": profile,
        "parameters": _plain(parameters),
        "parameters_hash": fingerprint(parameters),
        "key": key(notebook, code, parameters),
        "code": machine.code_version(root) | {"digest": code},
        "versions": machine.versions(),
        "machine": machine.describe(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": "running",
        "metrics": {},
        "verdicts": [],
        "figures": [],
    }


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


def read(path: Path) -> dict | None:
    """A record, or None with a warning in one line where the file is not one."""
    try:
        record = json.loads(path.read_text())
        if not isinstance(record, dict) or not {"notebook", "status", "parameters"} <= set(record):
            raise ValueError("not a record")
        if not all(isinstance(record.get(k), kind | None) for k, kind in FIELDS.items()):
            raise ValueError("not a record")
    except (OSError, ValueError) as error:
        warnings.warn(f"{path.name} in {path.parent.name} is passed over: {error}", stacklevel=2)
        return None
    return record


def every(root: Path) -> dict[str, dict]:
    """All records by name: the folder under data/runs, or the file's stem in data/reference.

    A run whose process was killed could not say so: it counts as failed here.
    """
    kept = (root / "data/reference").glob("[0-9]*.json")  # bench and golden numbers are no runs
    paths = {p.parent.name: p for p in sorted((root / "data/runs").glob("*/record.json"))}
    paths |= {p.stem: p for p in sorted(kept)}
    return {name: record for name, p in paths.items() if (record := read_final(p)) is not None}


def read_final(path: Path) -> dict | None:
    """A record as `read` gives it; a run whose process died without a word is marked failed."""
    record = read(path)
    if record and record["status"] == "running" and not _is_running(path.parent):
        record = read(path) or record  # it may have ended in between
        if record["status"] == "running":
            end = "killed, or its end could not be written"
            record |= {"status": "failed", "error": {"cell": None, "message": end}}
    return record


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Lock a run's folder while it goes on; the system releases the lock of a process that dies.

    Machines that share the folder must share its locks (flock), or each takes the others' runs for
    killed.
    """
    from filelock import FileLock

    with FileLock(folder / LOCK):
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


def _is_running(folder: Path) -> bool:
    from filelock import FileLock

    if not (folder / LOCK).is_file():
        return False
    try:  # long enough for another reader, who holds the lock for a moment in this very place
        with FileLock(folder / LOCK, timeout=0.1, poll_interval=0.01):
            return False
    except OSError:  # taken, or we may not ask
        return True


def finished(root: Path, key: str) -> Path | None:
    """The newest folder under data/runs with a successful record of that key, or None."""
    for path in sorted((root / "data/runs").glob(f"*-{key}/record.json"), reverse=True):
        record = read(path)
        if record and record["status"] == "ok":
            return path.parent
    return None


def read_all(root: Path | None = None) -> pl.DataFrame:
    """Every run under data/runs and data/reference as one table, a row a run, newest first.

    Metrics and verdicts are JSON text; parameters too. The columns are there with no run as well.
    """
    import polars as pl

    same = ("notebook", "profile", "status", "started", "seconds", "peak_memory_mb", "machine")
    rows = []
    for name, record in every(root or project_root()).items():
        flat = {"run": name} | {k: record.get(k) for k in same}
        flat |= {"commit": (record.get("code") or {}).get("commit")}
        flat |= {k: json.dumps(record.get(k)) for k in ("parameters", "verdicts", "metrics")}
        rows.append(flat | {"error": (record.get("error") or {}).get("message")})
    numbers = {"seconds": pl.Float64, "peak_memory_mb": pl.Int64}
    schema = {name: numbers.get(name, pl.String) for name in COLUMNS}
    return pl.DataFrame(rows, schema, strict=False).sort("started", descending=True)


def reference(notebook: str, profile: str, root: Path | None = None) -> dict | None:
    """The committed record of a notebook's profile, or None."""
    path = (root or project_root()) / "data/reference" / f"{notebook}_{profile}.json"
    return read(path) if path.is_file() else None


def show_reference(notebook: Record | str, profile: str = "full") -> dict | None:
    """Print where a committed record comes from, in one line, and return it.

    notebook: NNN_slug, or the notebook's own record. None where there is no such record: the line
    then says how to make it.
    """
    name = notebook if isinstance(notebook, str) else notebook.notebook
    record = reference(name, profile)
    if record is None:
        slug = name.partition("_")[2]
        print(f"not recorded yet: paperlab run {slug} --profile {profile} --keep")
        return None
    minutes, seeds = record.get("seconds", 0) / 60, len(record["parameters"].get("seeds", []))
    commit = ((record.get("code") or {}).get("commit") or "unknown")[:7]
    day = (record.get("started") or "an unknown day")[:10]
    print(
        f"recorded, profile {profile}: {seeds} seeds, {minutes:.0f} min on {record.get('machine')}, "
        f"{day}, commit {commit}"
    )
    return record


def show_claims(record: dict | None, folder: Path | None = None) -> None:
    """Show a stored record's claims with their outcomes, computed again from its tables.

    folder: where its per-unit files lie, data/reference by default. Shows nothing for None.
    """
    if record is None:
        return
    try:
        judged = verdict.rejudge(record, folder or project_root() / "data/reference")
    except ValueError as error:
        print(error)
        return
    plots.table(verdict.table(judged))


def keep(folder: Path, root: Path) -> Path:
    """Copy a run's record and its per-unit files to data/reference, to be committed.

    Raises ValueError, in one line, when the run failed, changed the profile's values, or ran on code
    that was not committed.
    """
    path = folder / "record.json"
    record = read(path) if path.is_file() else None
    if record is None or record["status"] != "ok":
        raise ValueError(f"{folder} has no record of a successful run; paperlab results lists them")
    if record.get("overrides"):
        changed = ", ".join(record["overrides"])
        raise ValueError(f"{folder.name} is not the profile: --set changed {changed}")
    if record["code"]["dirty"]:
        raise ValueError(f"{folder.name} ran on code that is not committed: commit, and run again")
    kept = root / "data/reference" / f"{record['notebook']}_{record['profile']}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    for old in kept.parent.glob(f"{kept.stem}.*.parquet"):
        old.unlink()
    for name, file in (record.get("units") or {}).items():
        record["units"][name] = f"{kept.stem}.{_file_name(name)}.parquet"
        shutil.copyfile(folder / file, kept.with_name(record["units"][name]))
    write(kept, record)
    return kept


def project_root(start: Path | None = None) -> Path:
    """The nearest folder above (the current one, then this file) with notebooks/ and pyproject.toml.

    Raises FileNotFoundError when there is none.
    """
    for place in (start or Path.cwd(), Path(__file__)):
        for folder in (place.resolve(), *place.resolve().parents):
            if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
                return folder
    raise FileNotFoundError("no Paperlab project here: a folder with notebooks/ and pyproject.toml")


def fingerprint(parameters: dict) -> str:
    """A short hash of parameters, whatever their order."""
    return hashlib.sha256(json.dumps(_plain(parameters), sort_keys=True).encode()).hexdigest()[:12]


def key(notebook: str, code: str, parameters: dict) -> str:
    """What makes two runs the same run: notebook, digest of the code, parameters."""
    return fingerprint({"notebook": notebook, "code": code, "parameters": parameters})


def _file_name(name: str) -> str:
    return re.sub(r"\W+", "_", name)


def _plain(value):
    """JSON's own types; numbers that are not finite become None."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
