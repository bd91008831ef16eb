"""How fast we train, next to FuxiCTR on the same model and rows; how fast we start (ours).

Every training run is one epoch in a fresh process, ours and theirs in turn, so that neither warms a
cache or an allocator for the other; what is reported is the median over pairs. Making data and
scoring are not timed. FuxiCTR trains with its in-memory loader, with 0 or 1 worker processes,
whichever a trial run on this machine finds faster.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import torch

from .data.schema import Schema
from .data.store import Log, open_store, save
from .nn.click import ClickModel

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "data" / "reference" / "bench.json"
README = ROOT / "README.md"
MARKERS = ("<!-- bench -->", "<!-- /bench -->")

MODELS = ("DCNv2", "DeepFM")
PAIRS, ROWS, IDS = 5, 400_000, 1_090_000
DIM, LR, BATCH_SIZE, THREADS = 16, 1e-3, 4096, 2
CROSSES, DCN_WIDTHS, FM_WIDTHS = 3, [400, 400, 400], [64, 32]

# What one has to load before the first model, and the floors under it.
IMPORTS = ("torch", "lightning", "paperlab", "paperlab.ctr", "paperlab.train")
PEER_IMPORT = "fuxictr.pytorch.models"
NOTEBOOK = {"ours": "from paperlab import ctr, data, train", "theirs": f"import {PEER_IMPORT}"}


def main(pairs: int = PAIRS, rows: int = ROWS, profile: str | None = None) -> dict | None:
    """Measure, print the tables, and return the record.

    The record goes to data/reference/bench.json and into the README only when pairs and rows are at
    least the defaults: anything less is a trial.
    pairs: runs of each side, >= 1. rows: of the generated log, all parts together, >= 1000.
    profile: the name of a model (any case): print its most costly operators instead.

    Raises ValueError for values out of range, ModuleNotFoundError without FuxiCTR.
    """
    if pairs < 1 or rows < 1000:
        raise ValueError(
            f"bench needs pairs >= 1 and rows >= 1000, got pairs={pairs}, rows={rows}"
        )
    from .data.criteo_shaped import criteo_shaped

    if profile is not None:
        name = model_name(profile)
        return print_profile(name, criteo_shaped(rows=rows, ids=IDS, seed=0))
    if find_spec("fuxictr") is None:
        raise ModuleNotFoundError("bench needs FuxiCTR: pip install -e '.[bench]'")
    with tempfile.TemporaryDirectory() as folder:
        log = criteo_shaped(rows=rows, ids=IDS, seed=0)
        save(log, Path(folder))
        _alone(_save_npz, folder)
        found = {
            "machine": machine(),
            "date": date.today().isoformat(),
            "versions": {p: version(p) for p in ("torch", "lightning", "fuxictr", "paperlab")},
            "setting": {
                "log": repr(log),
                "pairs": pairs,
                "dim": DIM,
                "batch_size": BATCH_SIZE,
                "threads": THREADS,
            },
            "rows": [measure(name, folder, pairs) for name in MODELS],
            "startup": startup(),
        }
    print_tables(found)
    if pairs < PAIRS or rows < ROWS:
        print(f"A trial, not recorded: that takes at least {PAIRS} pairs of {ROWS:,} rows.")
        return found
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(found, indent=1) + "\n")
    if not rewrite(README, markdown(found)):
        print(f"README.md has no {MARKERS[0]} … {MARKERS[1]}: its table is left alone.")
    return found


# training speed ----------------------------------------------------------------------------------


def build(name: str, schema: Schema, seed: int) -> ClickModel:
    """Our side of a model, at the sizes of the bench."""
    from . import ctr

    torch.manual_seed(seed)
    if name == "DCNv2":
        return ctr.DCNv2(schema, DIM, crosses=CROSSES, widths=DCN_WIDTHS, lr=LR)
    return ctr.DeepFM(schema, DIM, widths=FM_WIDTHS, lr=LR)


def measure(name: str, folder: str, pairs: int) -> dict:
    """Runs of both sides in turn, each in its own process."""
    trials = {w: _alone(train_theirs, name, folder, 0, w) for w in (0, 1)}
    workers = min(trials, key=lambda w: trials[w]["seconds"])
    runs = []
    for seed in range(pairs):
        runs.append(
            {
                "ours": _alone(train_ours, name, folder, seed),
                "theirs": _alone(train_theirs, name, folder, seed, workers),
            }
        )
    return {"name": name, **summary(runs), "workers": workers, "runs": runs}


def train_ours(name: str, folder: str, seed: int) -> dict[str, float]:
    """One epoch with `paperlab.train.fit` on a stored log: seconds, rows, test AUC."""
    from . import train

    torch.set_num_threads(THREADS)
    log = open_store(Path(folder))
    done = train.fit(build(name, log.schema, seed), log, batch_size=BATCH_SIZE, seed=seed)
    rows = round(done.samples_per_second * done.seconds)
    return {"seconds": done.seconds, "rows": rows, "auc": done.test["auc"]}


def train_theirs(name: str, folder: str, seed: int, workers: int) -> dict[str, float]:
    """The same from the same weights in FuxiCTR."""
    from . import bench_fuxictr as peer

    torch.set_num_threads(THREADS)
    log = open_store(Path(folder))
    ours = build(name, log.schema, seed)
    if name == "DCNv2":
        theirs = peer.DCNv2(log.schema, DIM, LR, CROSSES, DCN_WIDTHS)
    else:
        theirs = peer.DeepFM(log.schema, DIM, LR, FM_WIDTHS)
    return peer.train(ours, theirs, log, Path(folder), BATCH_SIZE, workers)


def summary(runs: list[dict]) -> dict[str, float | list[float]]:
    """Medians over pairs: samples per second of both, their ratio pair by pair, test AUC."""
    speed = {s: [r[s]["rows"] / r[s]["seconds"] for r in runs] for s in ("ours", "theirs")}
    ratios = [a / b for a, b in zip(speed["ours"], speed["theirs"], strict=True)]
    return {
        "ours": statistics.median(speed["ours"]),
        "theirs": statistics.median(speed["theirs"]),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "auc_ours": statistics.median(r["ours"]["auc"] for r in runs),
        "auc_theirs": statistics.median(r["theirs"]["auc"] for r in runs),
    }


def _save_npz(folder: str) -> None:
    from .bench_fuxictr import save_npz

    save_npz(open_store(Path(folder)), Path(folder))


def _alone(call, *args):
    """What a call returns from a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *args).result()


# start-up ----------------------------------------------------------------------------------------


def startup(times: int = 5) -> list[dict]:
    """Median seconds to import each module in a fresh interpreter, and to a ready notebook."""
    modules = (*IMPORTS, PEER_IMPORT)
    imports = {m: [] for m in modules}
    kernels = {side: [] for side in NOTEBOOK}
    for _ in range(times):  # in turn, so that a busy moment does not fall on one of them alone
        for m in modules:
            imports[m].append(_import_seconds(m))
        for side, cell in NOTEBOOK.items():
            kernels[side].append(_kernel_seconds(cell))
    rows = [{"name": f"import {m}", "seconds": statistics.median(s)} for m, s in imports.items()]
    for side, seconds in kernels.items():
        name = f"kernel, then {NOTEBOOK[side]}"
        rows.append({"name": name, "seconds": statistics.median(seconds)})
    return rows


def _import_seconds(module: str) -> float:
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _kernel_seconds(cell: str) -> float:
    """From asking for a kernel to the end of its first cell."""
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3")
    start = time.perf_counter()
    manager.start_kernel()
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        reply = client.execute_interactive(cell, timeout=120)
        seconds = time.perf_counter() - start
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok":
        raise RuntimeError(f"{cell!r} failed in a kernel: {reply['content']['evalue']}")
    return seconds


# where the time goes -----------------------------------------------------------------------------


def model_name(text: str) -> str:
    """A model of the bench by its name in any case; ValueError lists them."""
    for name in MODELS:
        if name.lower() == text.lower():
            return name
    raise ValueError(f"bench has no model {text!r}; it has {', '.join(MODELS)}")


def print_profile(name: str, log: Log, top: int = 12) -> None:
    """Train one epoch under torch's profiler and print the operators with most CPU time."""
    from rich.console import Console
    from rich.table import Table
    from torch.profiler import ProfilerActivity, profile

    from . import train

    torch.set_num_threads(THREADS)
    # One row of each other part: scoring would hide what training does.
    log = Log(log.name, log.schema, log.train, _head(log.valid), _head(log.test))
    model = build(name, log.schema, 0)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        done = train.fit(model, log, batch_size=BATCH_SIZE)
    operators = sorted(profiler.key_averages(), key=lambda o: -o.self_cpu_time_total)
    total = sum(o.self_cpu_time_total for o in operators)
    table = Table(title=f"{name}: {done.steps} steps, {done.seconds:.1f} s under the profiler")
    for column, side in (("operator", "left"), ("calls", "right"), ("self CPU %", "right")):
        table.add_column(column, justify=side)
    for o in operators[:top]:
        table.add_row(o.key, f"{o.count:,}", f"{100 * o.self_cpu_time_total / total:.1f}")
    Console().print(table)


# tables ------------------------------------------------------------------------------------------
