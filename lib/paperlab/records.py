"""One JSON record a run: code, parameters, machine, time, results and claims.

`runs.run` passes the run's folder to the kernel in the environment variable PAPERLAB_RUN. A notebook
that is opened by hand has no such folder: its record stays in memory.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from . import checks, digest, machine
from .manifest import project_root
from .recording import RUN_VARIABLE as RUN_VARIABLE  # also importable from here
from .recording import Record, file_name, plain, write
from .recording import replace as replace

if TYPE_CHECKING:
    import polars as pl

LOCK = ".running"
FIELDS = dict.fromkeys(("notebook", "profile", "status", "started", "machine"), str)
FIELDS |= dict.fromkeys(("parameters", "code", "error"), dict)
FIELDS |= {"seconds": float | int, "peak_memory_mb": int}
COLUMNS = (
    *("run", "notebook", "profile", "status", "started", "seconds", "peak_memory_mb", "machine"),
    *("commit", "parameters", "verdicts", "metrics", "error"),
)


def start(notebook: str, seed: int = 0, threads: int = 2) -> Record:
    """Seed everything, pin the threads, find the device; prints one line. threads >= 1."""
    import torch
    from lightning import seed_everything

    checks.whole(threads=threads)
    seed_everything(seed, verbose=False)
    threads = machine.use_threads(threads)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    print(f"{notebook}: {device}, {threads} threads, torch {torch.__version__.split('+')[0]}")
    return Record(notebook, threads, device)


def begin(notebook: str, profile: str, parameters: dict, root: Path) -> dict:
    """A run's record before its kernel starts. Its key says what is run: see `key`."""
    code = digest.notebook(root / "notebooks" / f"{notebook}.ipynb")
    return {
        "notebook": notebook,
        "profile": profile,
        "parameters": plain(parameters),
        "parameters_hash": fingerprint(parameters),
        "key": key(notebook, code, parameters),
        "code": machine.code_version(root) | {"digest": code},
        "own_sets": digest.own_sets(parameters),
        "versions": machine.versions(),
        "machine": machine.describe(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": "running",
        "metrics": {},
        "verdicts": [],
        "figures": [],
    }


def read(path: Path) -> dict | None:
    """A record, or None with a warning in one line where the file is not one."""
    try:
        record = json.loads(path.read_text())
        if not isinstance(record, dict) or not {"notebook", "status", "parameters"} <= set(record):
            raise ValueError("not a record")
        if not all(isinstance(record.get(k), kind | None) for k, kind in FIELDS.items()):
            raise ValueError("not a record")
    except (OSError, ValueError) as error:
        warnings.warn(f"{path.name} in {path.parent.name} is skipped: {error}", stacklevel=2)
        return None
    return record


def every(root: Path) -> dict[str, dict]:
    """All records by name: the folder under data/runs, or the file's stem in data/reference.

    A run whose process was killed counts as failed: it could not record its end.
    """
    kept = (root / "data/reference").glob("[0-9]*.json")  # bench and golden numbers are no runs
    paths = {p.parent.name: p for p in sorted((root / "data/runs").glob("*/record.json"))}
    paths |= {p.stem: p for p in sorted(kept)}
    return {name: record for name, p in paths.items() if (record := read_final(p)) is not None}


def place(root: Path, name: str) -> Path:
    """The folder of a record that `every` names, with its per-unit files."""
    folder = root / "data/runs" / name
    return folder if folder.is_dir() else root / "data/reference"


def read_final(path: Path) -> dict | None:
    """A record as `read` gives it; a run whose process was killed is marked failed."""
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

    Machines that share the folder must share its locks (flock); otherwise each sees the others' runs
    as killed.
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
    try:  # another reader may hold the lock here for a moment
        with FileLock(folder / LOCK, timeout=0.1, poll_interval=0.01):
            return False
    except OSError:  # taken, or not ours to test
        return True


def finished(root: Path, key: str) -> Path | None:
    """The newest folder under data/runs with a successful record of that key, or None."""
    for path in sorted((root / "data/runs").glob(f"*-{key}/record.json"), reverse=True):
        record = read(path)
        if record and record["status"] == "ok":
            return path.parent
    return None


def read_all(root: Path | None = None) -> pl.DataFrame:
    """All runs under data/runs and data/reference as one table, a row a run, newest first.

    Metrics, verdicts and parameters are JSON text. Without any run the table has its columns, too.
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
    from . import verdict

    try:
        judged = verdict.rejudge(record, folder or project_root() / "data/reference")
    except ValueError as error:
        print(error)
        return
    verdict.table(judged)


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
        record["units"][name] = f"{kept.stem}.{file_name(name)}.parquet"
        shutil.copyfile(folder / file, kept.with_name(record["units"][name]))
    write(kept, record)
    return kept


def fingerprint(parameters: dict) -> str:
    """A short hash of parameters, whatever their order."""
    return hashlib.sha256(json.dumps(plain(parameters), sort_keys=True).encode()).hexdigest()[:12]


def key(notebook: str, code: str, parameters: dict) -> str:
    """The key of a run: equal for the same notebook, digest of the code, parameters and own sets."""
    what = {"notebook": notebook, "code": code, "parameters": parameters}
    sets = digest.own_sets(parameters)
    return fingerprint(what | ({"own_sets": sets} if sets else {}))
