"""Training speed beside FuxiCTR: the same model, rows, batch and threads, in turn.

Every run is one epoch in a fresh process, so that neither side warms a cache or an allocator for
the other; what is reported is the median over pairs. Making data and scoring are not timed.
FuxiCTR trains through its in-memory loader with 0 or 1 worker processes, whichever trial run is
faster on the machine at hand, and with OpenMP's own default of waiting.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import torch

from ..data.schema import Schema
from ..data.store import open_store, save
from ..machine import use_threads
from ..nn.click import ClickModel

MODELS = ("LR", "FM", "DeepFM", "DCNv2", "FinalMLP", "MaskNet")
DIM, LR, BATCH_SIZE, THREADS = 16, 1e-3, 4096, 2
PAIRS, ROWS, IDS = 5, 400_000, 1_090_000
TITLES = ("model", "ours, samples/s", "FuxiCTR, samples/s", "ratio", "AUC ours", "AUC FuxiCTR")
OPENMP_SPIN = "300000"  # libgomp's own default, which paperlab changes for itself


def measure(pairs: int = PAIRS, rows: int = ROWS) -> dict:
    """Both sides of every model on a Criteo-shaped log.

    pairs: runs of each side, >= 1. rows: of the generated log, all parts together, >= 1000.
    Raises ValueError for values out of range, ModuleNotFoundError without FuxiCTR.
    """
    if pairs < 1 or rows < 1000:
        raise ValueError(f"training bench needs pairs >= 1 and rows >= 1000, got {pairs}, {rows}")
    if find_spec("fuxictr") is None:
        raise ModuleNotFoundError("bench needs FuxiCTR: pip install -e '.[bench]'")
    from .criteo_shaped import criteo_shaped
    from .fuxictr import save_npz

    log = criteo_shaped(rows=rows, ids=IDS, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        save(log, Path(folder))
        save_npz(log, Path(folder))
        return {
            "log": repr(log),
            "pairs": pairs,
            "rows": [compare(name, folder, pairs) for name in MODELS],
        }


def markdown(found: dict) -> str:
    """A line a model, then what was measured on what."""
    workers = ", ".join(f"{r['name']} {r['workers']}" for r in found["rows"])
    lines = [TITLES, ["---", *["---:"] * (len(TITLES) - 1)]]
    for r in found["rows"]:
        low, high = r["ratio_range"]
        speeds = [
            f"{r['ours']:,.0f}",
            f"{r['theirs']:,.0f}",
            f"{r['ratio']:.1f} ({low:.1f}–{high:.1f})",
        ]
        lines.append([r["name"], *speeds, f"{r['auc_ours']:.4f}", f"{r['auc_theirs']:.4f}"])
    mean = statistics.geometric_mean(r["ratio"] for r in found["rows"])
    about = (
        f"Geometric mean of the ratios: {mean:.1f}. {found['log']}, E={DIM}, batch {BATCH_SIZE}, {THREADS} threads; medians of "
        f"{found['pairs']} alternating pairs, ratio with its range; worker processes of FuxiCTR's "
        f"loader: {workers}."
    )
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", about])


def settings(name: str, schema: Schema) -> dict:
    """Arguments of a model, the same on both sides: BARS's sizes on Criteo, without dropout."""
    names = [f.name for f in schema.fields]
    deep = [400, 400, 400]
    return {"lr": LR} | {
        "LR": {},
        "FM": {"dim": DIM},
        "DeepFM": {"dim": DIM, "widths": [64, 32]},
        "DCNv2": {"dim": DIM, "crosses": 3, "widths": deep},
        "FinalMLP": {
            "dim": DIM,
            "widths": [deep, [1000]],
            "heads": 200,
            "contexts": [names[: len(names) // 3], names[len(names) // 2 :][:1]],
            "gate_hidden": 800,
        },
        "MaskNet": {"dim": DIM, "widths": deep, "ratio": 0.2},
    }[name]


def build(name: str, schema: Schema, seed: int) -> ClickModel:
    """Our side of a model, at the sizes of the bench."""
    folder = "ctr" if name == "FinalMLP" else "ctr.baselines"
    module = import_module(f"paperlab.{folder}.{name.lower()}")
    torch.manual_seed(seed)
    return getattr(module, name)(schema, **settings(name, schema))


def compare(name: str, folder: str, pairs: int) -> dict:
    """Runs of both sides in turn, each in its own process."""
    trials = {w: alone(train_theirs, name, folder, 0, w, spin=OPENMP_SPIN) for w in (0, 1)}
    workers = min(trials, key=lambda w: trials[w]["seconds"])
    runs = []
    for seed in range(pairs):
        runs.append(
            {
                "ours": alone(train_ours, name, folder, seed),
                "theirs": alone(train_theirs, name, folder, seed, workers, spin=OPENMP_SPIN),
            }
        )
    return {"name": name, **summary(runs), "workers": workers, "runs": runs}


def train_ours(name: str, folder: str, seed: int) -> dict[str, float]:
    """One epoch with `paperlab.loop.fit` on a stored log: seconds, rows, test AUC."""
    from .. import loop

    use_threads(THREADS)
    log = open_store(Path(folder))
    done = loop.fit(build(name, log.schema, seed), log, batch_size=BATCH_SIZE, seed=seed)
    rows = round(done.samples_per_second * done.seconds)
    return {"seconds": done.seconds, "rows": rows, "auc": done.test["auc"]}


def train_theirs(name: str, folder: str, seed: int, workers: int) -> dict[str, float]:
    """The same from the same weights in FuxiCTR."""
    from . import fuxictr as peer

    use_threads(THREADS)
    log = open_store(Path(folder))
    ours = build(name, log.schema, seed)
    theirs = getattr(peer, name)(log.schema, **settings(name, log.schema))
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


def alone(call, *args, spin: str | None = None):
    """What a call returns from a fresh process; ``spin`` is its GOMP_SPINCOUNT."""
    before = os.environ.get("GOMP_SPINCOUNT")
    if spin is not None:
        os.environ["GOMP_SPINCOUNT"] = spin
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(call, *args).result()
    finally:
        if before is not None:  # paperlab has set it, or the user
            os.environ["GOMP_SPINCOUNT"] = before
