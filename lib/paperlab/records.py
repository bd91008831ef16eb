"""One JSON record a run: what was run, on what, how long, and what came out.

The front door names the run's folder in the environment variable PAPERLAB_RUN. A notebook that
somebody opens by hand keeps its record in memory and leaves no trace.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import digest
from .manifest import project_root

if TYPE_CHECKING:
    import polars as pl

RUN_VARIABLE = "PAPERLAB_RUN"
FIELDS = dict.fromkeys(("notebook", "profile", "status", "started", "machine"), str)
FIELDS |= dict.fromkeys(("parameters", "code", "error"), dict)
FIELDS |= {"seconds": float | int, "peak_memory_mb": int}
COLUMNS = (
    *("run", "notebook", "profile", "status", "started", "seconds", "peak_memory_mb", "machine"),
    *("commit", "parameters", "verdicts", "metrics", "error"),
)


class Record:
    """The notebook's part of a record: metrics by name, verdicts, device, seconds, peak memory."""

    def __init__(self, notebook: str, threads: int, device: str):
        self.notebook, self.verdicts, self._began = notebook, [], time.perf_counter()
        self.metrics: dict[str, Any] = {}
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

    def save(self) -> None:
        """Add this to the run's record, where the front door started the run; else do nothing."""
        folder = os.environ.get(RUN_VARIABLE)
        if not folder:
            return
        path = Path(folder) / "record.json"
        whole = json.loads(path.read_text()) if path.is_file() else {}
        whole |= {
            "device": self.device,
            "threads": self.threads,
            "notebook_seconds": round(time.perf_counter() - self._began, 2),
            "peak_memory_mb": round(peak_memory_mb()),
            "metrics": self.metrics,
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
        "code": code_version(root) | {"digest": code},
        "versions": _versions(),
        "machine": machine(),
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
    return {name: record for name, p in paths.items() if (record := told(p)) is not None}


def told(path: Path) -> dict | None:
    """A record, with what became of a run that could not say it itself."""
    record = read(path)
    if record and record["status"] == "running" and not _is_held(path.parent):
        record = read(path) or record  # it may have ended in between
        if record["status"] == "running":
            end = "killed, or its end could not be written"
            record |= {"status": "failed", "error": {"cell": None, "message": end}}
    return record


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Marks a run's folder while it goes on by a lock, which no process keeps when it dies.

    Machines that share the folder must share its locks (flock), else each takes the others' runs
    for killed.
    """
    with (folder / ".running").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            Path(file.name).unlink(missing_ok=True)


def _is_held(folder: Path) -> bool:
    try:
        with (folder / ".running").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # readers do not disturb each other
    except FileNotFoundError:
        return False
    except OSError:  # it is taken, or we may not ask
        return True
    return False


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


def keep(folder: Path, root: Path) -> Path:
    """Copy a run's record to data/reference, to be committed.

    Raises ValueError, in one line, when the run failed, changed the profile's values, or ran on code
    that was not committed.
    """
    record = read(folder / "record.json")
    if record is None or record["status"] != "ok":
        raise ValueError(f"{folder.name} has no record of a successful run")
    if record.get("overrides"):
        changed = ", ".join(record["overrides"])
        raise ValueError(f"{folder.name} is not the profile: --set changed {changed}")
    if record["code"]["dirty"]:
        raise ValueError(f"{folder.name} ran on code that is not committed: commit, and run again")
    path = root / "data/reference" / f"{record['notebook']}_{record['profile']}.json"
    write(path, record)
    return path


def peak_memory_mb() -> float:
    """The most memory that this process has held so far, in MB.

    Linux's VmHWM where there is one: getrusage's number begins at what the parent process held.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        found = [x for x in status.read_text().splitlines() if x.startswith("VmHWM:")]
        if found:
            return int(found[0].split()[1]) / 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1024 if sys.platform == "linux" else 1024**2)


def fingerprint(parameters: dict) -> str:
    """A short hash of parameters, whatever their order."""
    return hashlib.sha256(json.dumps(_plain(parameters), sort_keys=True).encode()).hexdigest()[:12]


def key(notebook: str, code: str, parameters: dict) -> str:
    """What makes two runs the same run: notebook, digest of the code, parameters."""
    return fingerprint({"notebook": notebook, "code": code, "parameters": parameters})


def code_version(root: Path) -> dict:
    """Commit, and whether library or notebooks differ from it (outputs of notebooks included)."""

    def git(*words: str) -> str:
        try:
            done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
        except FileNotFoundError:  # no git on this machine: the code counts as not committed
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    return {
        "commit": commit,
        "dirty": not commit or bool(git("status", "--porcelain", "lib", "notebooks")),
    }


def machine() -> str:
    """Processor and number of cores; no host name."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{model}, {os.cpu_count()} cores"


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("paperlab", "torch", "lightning", "polars", "plotly", "papermill")
    return {"python": platform.python_version()} | {n: version(n).split("+")[0] for n in names}


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
