"""Training speed on both sides: the same model, rows, batch and threads, in turn (ours)."""

from __future__ import annotations

import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from ..data.schema import Schema
from ..data.store import open_store
from ..nn import ClickModel

MODELS = ("DCNv2", "DeepFM")
DIM, LR, BATCH_SIZE, THREADS = 16, 1e-3, 4096, 2
CROSSES, DCN_WIDTHS, FM_WIDTHS = 3, [400, 400, 400], [64, 32]


def build(name: str, schema: Schema, seed: int) -> ClickModel:
    """Our side of a model, at the sizes of the bench."""
    from .. import ctr

    torch.manual_seed(seed)
    if name == "DCNv2":
        return ctr.DCNv2(schema, DIM, crosses=CROSSES, widths=DCN_WIDTHS, lr=LR)
    return ctr.DeepFM(schema, DIM, widths=FM_WIDTHS, lr=LR)


def measure(name: str, folder: str, pairs: int) -> dict:
    """Runs of both sides in turn, each in its own process."""
    trials = {w: alone(train_theirs, name, folder, 0, w) for w in (0, 1)}
    workers = min(trials, key=lambda w: trials[w]["seconds"])
    runs = []
    for seed in range(pairs):
        runs.append(
            {
                "ours": alone(train_ours, name, folder, seed),
                "theirs": alone(train_theirs, name, folder, seed, workers),
            }
        )
    return {"name": name, **summary(runs), "workers": workers, "runs": runs}


def train_ours(name: str, folder: str, seed: int) -> dict[str, float]:
    """One epoch with `paperlab.train.fit` on a stored log: seconds, rows, test AUC."""
    from .. import train

    torch.set_num_threads(THREADS)
    log = open_store(Path(folder))
    done = train.fit(build(name, log.schema, seed), log, batch_size=BATCH_SIZE, seed=seed)
    rows = round(done.samples_per_second * done.seconds)
    return {"seconds": done.seconds, "rows": rows, "auc": done.test["auc"]}


def train_theirs(name: str, folder: str, seed: int, workers: int) -> dict[str, float]:
    """The same from the same weights in FuxiCTR."""
    from . import fuxictr as peer

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


def alone(call, *args):
    """What a call returns from a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *args).result()
