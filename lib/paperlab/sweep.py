"""Sweeps: one run for each combination of parameter values, through dask.distributed.

The same code serves a few processes of this machine and any Dask cluster whose workers see the
project's folder under the same path. The name of a run's folder under data/runs ends with its key
(notebook, code and parameters). A run with a successful record of its key is not repeated, so a
sweep that was killed continues when the same command is given again.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import digest, records, runs
from .parameters import Parameter, as_text, inspect

LARGEST = 10_000  # runs of one sweep
_ALONE = threading.Lock()  # a process runs one notebook at a time: its folder is in the environment


@dataclass(frozen=True)
class Point:
    """One run of a sweep: the values that it sets, and the key of its record."""

    values: dict[str, Any]
    key: str


@dataclass
class Progress:
    """The state of a sweep; ``done`` and ``failed`` are by key."""

    points: list[Point]
    done: dict[str, Path] = field(default_factory=dict)  # the run's folder
    failed: dict[str, str] = field(default_factory=dict)  # one line
    running: set[str] = field(default_factory=set)
    reused: int = 0  # of done: recorded before this sweep
    workers: int = 0
    seconds: list[float] = field(default_factory=list)  # of the runs that ended in this sweep

    def left(self) -> float | None:
        """Seconds until the end, by the mean time of the runs that ended; None before the first."""
        to_come = len(self.points) - len(self.done) - len(self.failed)
        if not self.seconds or not self.workers:
            return None
        return sum(self.seconds) / len(self.seconds) * -(-to_come // self.workers)

    def title(self) -> str:
        """How many runs are done, running and failed, and about how long the rest takes."""
        done, failed = len(self.done), len(self.failed)
        title = f"{done} done ({self.reused} of them before), {len(self.running)} running, "
        title += f"{failed} failed, {len(self.points)} in all"
        left = self.left()
        if not left:
            return title
        return f"{title}; about {f'{left:.0f} s' if left < 100 else f'{left / 60:.0f} min'} left"


def grid_values(parameter: Parameter, text: str) -> list[Any]:
    """The values that --grid NAME=TEXT gives a parameter: one run each, cast as --set casts them.

    Commas separate runs; ``first..last`` is a run for each whole number. For a list parameter each
    item is a list of one, ``0..2`` giving [0], [1] and [2]; a list of several stands in brackets,
    ``[0,1],[2,3]``. Raises BadInput.
    """
    inside = parameter.type.removeprefix("list[").removesuffix("]")
    single, several = replace(parameter, type=inside), replace(parameter, type=f"list[{inside}]")
    as_list = inside != parameter.type
    pieces = re.findall(r"\[[^\]]*\]|[^,]+", text) if as_list else text.split(",")
    values = []
    for piece in map(str.strip, pieces):
        if as_list and piece.startswith("["):
            values.append(parameter.cast(piece))
            continue
        if inside == "int" and ".." in piece:
            try:
                items = several.cast(piece)
            except runs.BadInput:
                items = [single.cast(piece)]  # refuses a bad range by what one run takes
        else:
            items = [single.cast(piece)]
        values += [[v] for v in items] if as_list else items
    if not values:
        raise runs.BadInput(f"--grid {parameter.name}={text}: write NAME=V1,V2 or NAME=FIRST..LAST")
    return values


def plan(
    notebook: Path, profile: str, fixed: dict[str, str], grid: list[tuple[str, str]]
) -> list[Point]:
    """The runs of a grid, in its order, none twice. Starts nothing; raises BadInput.

    fixed: what --set says, for all runs. grid: name and text of every --grid.
    """
    known, slug = inspect(notebook), runs.NOTEBOOK.fullmatch(notebook.stem)[2]
    base = runs.settle(notebook, profile, fixed)
    taken = list(dict.fromkeys(runs.pick(known, name, slug).name for name in fixed))
    axes: dict[str, list] = {}
    for name, text in grid:
        parameter = runs.pick(known, name, slug)
        if parameter.name in axes or parameter.name in taken:
            raise runs.BadInput(f"{parameter.name} is set twice: one --grid or --set a name")
        axes[parameter.name] = grid_values(parameter, text)
    size = 1
    for values in axes.values():
        size *= len(values)
    if size > LARGEST:
        raise runs.BadInput(f"--grid makes {size:,} runs; a sweep takes at most {LARGEST:,}")
    code, points = digest.notebook(notebook), {}
    for combination in itertools.product(*axes.values()):
        values = dict(zip(axes, combination, strict=True))
        key = records.key(notebook.stem, code, base | values)
        points.setdefault(key, Point({n: base[n] for n in taken} | values, key))
    return list(points.values())


@contextmanager
def run_lock(root: Path, key: str) -> Iterator[None]:
    """Let one process at a time do a run; the system releases the lock of a process that dies.

    Meanwhile the standard streams of the process and its kernel go to data/runs/.sweep/KEY.log, not
    into the table on the terminal.
    """
    from filelock import FileLock

    folder = root / "data/runs/.sweep"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{key}.lock"), (folder / f"{key}.log").open("a") as file:
        streams = {stream: os.dup(stream) for stream in (1, 2)}
        try:
            for stream in streams:
                os.dup2(file.fileno(), stream)
            yield
        finally:
            for stream, saved in streams.items():
                os.dup2(saved, stream)
                os.close(saved)


def do(root: Path, stem: str, profile: str, point: Point, code: str) -> str:
    """One run, in a worker; returns the name of its folder. Raises RunFailed, BadInput.

    Where another process does the same run, this waits for it and returns its folder.
    """
    notebook = root / "notebooks" / f"{stem}.ipynb"
    with _ALONE, run_lock(root, point.key):
        folder = records.finished(root, point.key)
        if folder is None:
            if not notebook.is_file() or digest.notebook(notebook) != code:
                raise runs.BadInput("the code has changed since the sweep started: start it again")
            folder = runs.run(notebook, root, profile, point.values, progress=False)
        return folder.name


def sweep(
    notebook: Path,
    root: Path,
    profile: str,
    points: list[Point],
    workers: int | None = None,
    scheduler: str | None = None,
    show: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Do the runs that have no record yet; ``show`` is called a few times a second.

    A failed run does not stop the others.

    workers: processes on this machine, by default half as many as it has cores (a quick run takes
    two threads) or one a GPU. scheduler: tcp://host:port of a Dask cluster instead; its workers
    need this library and this folder. Where workers have a resource GPU, a run takes one. Raises
    BadInput for more workers than GPUs, OSError where no scheduler answers.
    """
    progress = Progress(points)
    for point in points:
        folder = records.finished(root, point.key)
        if folder:
            progress.done[point.key] = folder
    progress.reused = len(progress.done)
    show(progress)
    waiting = [p for p in points if p.key not in progress.done]
    if not waiting:
        return progress
    with _client(workers, scheduler, len(waiting)) as client:
        _follow(client, notebook, root, profile, waiting, progress, show)
    return progress


def _follow(client, notebook, root, profile, waiting, progress, show) -> None:
    seen = client.scheduler_info(n_workers=-1)["workers"].values()
    progress.workers = sum(w["nthreads"] for w in seen)
    resources = {"GPU": 1} if any("GPU" in w["resources"] for w in seen) else None
    code, began = digest.notebook(notebook), datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    task = (do, root, notebook.stem, profile)
    futures = {
        p.key: client.submit(*task, p, code, key=p.key, resources=resources, priority=-i)
        for i, p in enumerate(waiting)  # in the grid's order
    }
    while futures:
        time.sleep(0.3)
        for key in [k for k, future in futures.items() if future.done()]:
            future = futures.pop(key)
            error = "the scheduler was lost" if future.cancelled() else future.exception()
            if error is None:
                folder = root / "data/runs" / future.result()
                progress.done[key] = folder
                progress.seconds.append(records.read(folder / "record.json")["seconds"])
            else:
                progress.failed[key] = " ".join(f"{error}".split()) or type(error).__name__
        folders = [f.name for f in (root / "data/runs").glob("*-*") if f.name >= began]
        progress.running = {name.rsplit("-", 1)[-1] for name in folders} & futures.keys()
        show(progress)


@contextmanager
def _client(workers: int | None, scheduler: str | None, most: int) -> Iterator:
    """A client of the cluster at an address, or of one on loopback that ends with this process."""
    from distributed import Client

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # the table shows it
    if scheduler is not None:
        with Client(scheduler, timeout=10, set_as_default=False) as client:
            yield client
        return
    with _local(workers, most) as cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(len(cluster.worker_spec))
        yield client


def _local(workers: int | None, most: int):
    import torch
    from distributed import Nanny, Scheduler, SpecCluster

    named = [d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
    gpus = (named or list(map(str, range(torch.cuda.device_count())))) if torch.cuda.is_available() else []  # fmt: skip
    if gpus and workers and workers > len(gpus):
        raise runs.BadInput(f"--workers {workers}: a run takes a GPU, and there are {len(gpus)}")
    count = min(workers or len(gpus) or max(1, (os.cpu_count() or 1) // 2), most)
    # no limit of memory: what a run needs is in its kernel, not in the worker
    quiet = {"nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    quiet |= {"host": "127.0.0.1", "dashboard": False}
    spec = {
        i: quiet | ({"resources": {"GPU": 1}, "env": {"CUDA_VISIBLE_DEVICES": gpus[i]}} if gpus else {})
        for i in range(count)
    }  # fmt: skip
    return SpecCluster(
        workers={i: {"cls": Nanny, "options": options} for i, options in spec.items()},
        scheduler={"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard": False}},
        silence_logs=logging.CRITICAL,
    )


def label(point: Point) -> str:
    """The values of a run, as one would write them after --set."""
    return " ".join(f"{name}={as_text(value)}" for name, value in point.values.items())


def rows(progress: Progress, root: Path, points: list[Point]) -> tuple[list[str], list[list[str]]]:
    """Columns and lines: what each run sets, its state, and its name or its error.

    The name is the beginning of its folder's under data/runs, as `results` and `diff` take it.
    """
    lines = []
    for point in points:
        end = ""
        if point.key in progress.done:
            state, end = "done", progress.done[point.key].name[:19]
        elif point.key in progress.failed:
            state, end = "failed", progress.failed[point.key]
            log = root / f"data/runs/.sweep/{point.key}.log"
            where = [*sorted((root / "data/runs").glob(f"*-{point.key}"))[-1:], log]
            seen = " and ".join(os.path.relpath(w) for w in where if w.exists())
            end += f" (see {seen})" if seen else ""
        else:
            state = "running" if point.key in progress.running else "to do"
        lines.append([label(point), state, end])
    return ["values", "state", "run or error"], lines
