"""Training speed beside FuxiCTR: the same model, rows and batch, in turn, and the share of the limit.

Each side has a process of its own and one thread. Runs alternate; a run is one epoch from new
weights, and what counts is the processor's time after the first steps (`paperlab.bench.clock`).
Reported are medians over pairs of runs. Making data and scoring are not timed. FuxiCTR trains
through its in-memory loader without worker processes, which is its faster way here.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch

from ..data.schema import Schema
from ..data.store import open_store, save
from ..machine import use_threads
from ..nn.click import ClickModel
from .processes import lasting

MODELS = ("LR", "FM", "DeepFM", "DCNv2", "FinalMLP", "MaskNet")
DIM, LR, BATCH_SIZE, THREADS = 16, 1e-3, 4096, 1
PAIRS, ROWS, IDS = 3, 80_000, 1_090_000


def measure(pairs: int = PAIRS, rows: int = ROWS) -> dict:
    """Both sides of every model on a Criteo-shaped log, and the least time of our steps.

    pairs: runs of each side, >= 1. rows: of the generated log, all parts together, >= 1000.
    Raises ValueError for values out of range, ModuleNotFoundError without FuxiCTR.
    """
    require(pairs, rows)
    from .criteo_shaped import criteo_shaped
    from .fuxictr import save_npz

    log = criteo_shaped(rows=rows, ids=IDS, seed=0)
    with tempfile.TemporaryDirectory() as folder, lasting() as ours, lasting() as theirs:
        save(log, Path(folder))
        save_npz(log, Path(folder))
        found = []
        for name in MODELS:
            runs = []
            for seed in range(pairs):
                run = {"ours": ours(train_ours, name, folder, seed)}
                runs.append(run | {"theirs": theirs(train_theirs, name, folder, seed)})
            limit = ours(least, name, folder)
            found.append(row(name, "FuxiCTR", runs, limit, BATCH_SIZE))
    about = {"log": repr(log), "dim": DIM, "batch_size": BATCH_SIZE, "threads": THREADS}
    return {**about, "pairs": pairs, "rows": found}


def require(pairs: int, rows: int) -> None:
    """Refuse sizes that cannot be timed, and a machine without FuxiCTR."""
    if pairs < 1 or rows < 1000:
        raise ValueError(f"the bench needs pairs >= 1 and rows >= 1000, got {pairs} and {rows}")
    if find_spec("fuxictr") is None:
        raise ModuleNotFoundError("bench needs FuxiCTR: pip install -e '.[bench]'")


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


def train_ours(name: str, folder: str, seed: int) -> dict[str, float]:
    """One epoch with `paperlab.loop.fit` on a stored log: seconds, rows, test AUC."""
    use_threads(THREADS)
    log = open_store(Path(folder))
    return timed_fit(build(name, log.schema, seed), log, BATCH_SIZE, seed)


def timed_fit(model: ClickModel, log, batch_size: int, seed: int) -> dict[str, float]:
    """One epoch: processor seconds of training, rows trained on in them, test AUC."""
    from .. import loop
    from .clock import ClockCallback

    timer = ClockCallback()
    log = replace(log, valid=log.valid.rows(slice(1000)))  # `fit` scores it; nobody reads it here
    done = loop.fit(model, log, batch_size=batch_size, seed=seed, callbacks=timer)
    return timer.clock.run() | {"auc": done.test["auc"]}


def least(name: str, folder: str) -> dict:
    """The least time of our training step: see `paperlab.bench.limits`."""
    from . import limits

    use_threads(THREADS)
    log = open_store(Path(folder))
    return limits.of_model(build(name, log.schema, 0), log.train, BATCH_SIZE)


def train_theirs(name: str, folder: str, seed: int) -> dict[str, float]:
    """One epoch of the same model in FuxiCTR, from the same weights."""
    from . import fuxictr as peer

    use_threads(THREADS)
    log = open_store(Path(folder))
    ours = build(name, log.schema, seed)
    theirs = getattr(peer, name)(log.schema, **settings(name, log.schema))
    peer.copy_weights(ours, theirs)
    return peer.train(theirs, log, Path(folder), BATCH_SIZE)


def row(name: str, peer: str, runs: list[dict], limit: dict, batch_size: int) -> dict:
    """One line of a table: medians over pairs, the ratio with its range, the share of the limit.

    runs: for each pair the run of each side, ``ours`` and ``theirs``: seconds, rows, auc or None.
    limit: `paperlab.bench.limits.least` of our step.
    """
    speed = {s: [r[s]["rows"] / r[s]["seconds"] for r in runs] for s in ("ours", "theirs")}
    ratios = [a / b for a, b in zip(speed["ours"], speed["theirs"], strict=True)]
    step_ms = 1000 * batch_size / statistics.median(speed["ours"])
    aucs = {s: [r[s]["auc"] for r in runs] for s in ("ours", "theirs")}
    auc, auc_peer = (None if None in a else statistics.median(a) for a in aucs.values())
    return {
        "model": name,
        "peer": peer,
        "ours": statistics.median(speed["ours"]),
        "theirs": statistics.median(speed["theirs"]),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "auc": auc,
        "auc_peer": auc_peer,
        "step_ms": step_ms,
        "share": limit["least_ms"] / step_ms,
        "limit": limit,
        "runs": runs,
    }
