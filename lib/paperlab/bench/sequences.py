"""Training on histories beside FuxiCTR's DIN, and what a longer history costs.

The same rows, batch, threads and, for DIN, the same function from the same weights; one epoch in a
fresh process a run, in turn, as `paperlab.bench.training` does it. All histories are full: batches
of like length, which save us padding elsewhere, save nothing here. Without decay in the planted
truth and with few categories one epoch is enough to learn it, so that AUCs can be compared.
"""

from __future__ import annotations

import statistics
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch

from ..data.schema import Schema
from ..data.store import open_store, save
from ..interest.worlds.interest_sequences import interest_sequences
from ..machine import peak_memory_mb, use_threads
from ..nn.click import ClickModel
from .training import OPENMP_SPIN, THREADS, alone

MODELS = ("DIN", "TIN")
DIM, STD, LR, BATCH_SIZE = 16, 0.2, 0.01, 1024  # an event is two fields wide: d = 32
ATTENTION, WIDTHS = [64], [200, 80]
PAIRS, ROWS, LENGTH, CATEGORIES, ITEMS = 5, 125_000, 50, 4, 5000  # 100,000 rows of them train
LENGTHS = (20, 50, 100, 200, 400, 800)
COST_ROWS, COST_EPOCHS = 7680, 3  # 6 batches an epoch


def measure(
    pairs: int = PAIRS, rows: int = ROWS, lengths: tuple[int, ...] = LENGTHS
) -> dict[str, object]:
    """Both of our models and FuxiCTR's DIN on one log; then ours over histories of ``lengths``.

    pairs: runs of each side, >= 1. rows: of the generated log, all parts together, >= 1000.
    Raises ValueError for values out of range, ModuleNotFoundError without FuxiCTR.
    """
    if pairs < 1 or rows < 1000:
        raise ValueError(f"sequences bench needs pairs >= 1 and rows >= 1000, got {pairs}, {rows}")
    if find_spec("fuxictr") is None:
        raise ModuleNotFoundError("bench needs FuxiCTR: pip install -e '.[bench]'")
    from .fuxictr_din import save_npz

    with tempfile.TemporaryDirectory() as folder:
        log = planted(rows, LENGTH)
        save(log, Path(folder))
        save_npz(log, Path(folder))
        found = {"log": repr(log), "pairs": pairs, **side_by_side(folder, pairs)}
    return found | {"lengths": [cost(name, n) for n in lengths for name in MODELS]}


def planted(rows: int, length: int):
    """A log in which all histories have ``length`` events and none is forgotten."""
    return interest_sequences(
        rows, rate=1.0, lengths=(length, length), categories=CATEGORIES, items=ITEMS
    )


def markdown(found: dict) -> str:
    """A line a model; then seconds and memory by length of history."""
    theirs = statistics.median(r["rows"] / r["seconds"] for r in found["theirs"])
    lines = [
        ("model", "samples/s", "FuxiCTR's DIN, samples/s", "ratio", "AUC", "AUC of FuxiCTR's DIN"),
        ("---", *["---:"] * 5),
    ]
    auc_theirs = statistics.median(r["auc"] for r in found["theirs"])
    for name in MODELS:
        mine = found[name]
        speed = [r["rows"] / r["seconds"] for r in mine]
        ratios = [s * t["seconds"] / t["rows"] for s, t in zip(speed, found["theirs"], strict=True)]
        auc = statistics.median(r["auc"] for r in mine)
        ratio = f"{statistics.median(ratios):.1f} ({min(ratios):.1f}–{max(ratios):.1f})"
        ours = f"{statistics.median(speed):,.0f}"
        lines.append((name, ours, f"{theirs:,.0f}", ratio, f"{auc:.4f}", f"{auc_theirs:.4f}"))
    about = (
        f"{found['log']}, histories of {LENGTH}, d={2 * DIM}, batch {BATCH_SIZE}, {THREADS} threads; "
        f"medians of {found['pairs']} alternating runs, ratio with its range; worker processes of "
        f"FuxiCTR's loader: {found['workers']}."
    )
    lengths = list(dict.fromkeys(c["length"] for c in found["lengths"]))
    costs = [("history", *map(str, lengths)), ("---", *["---:"] * len(lengths))]
    for name in MODELS:
        mine = {c["length"]: c for c in found["lengths"] if c["name"] == name}
        costs.append((f"{name}, ms a batch", *(f"{mine[n]['ms']:.0f}" for n in lengths)))
        costs.append((f"{name}, peak MB", *(f"{mine[n]['peak_mb']:,.0f}" for n in lengths)))
    table, second = (["| " + " | ".join(line) + " |" for line in t] for t in (lines, costs))
    return "\n".join([*table, "", about, "", *second, "", "Peak MB: above what was in use before."])


def build(name: str, schema: Schema, seed: int) -> ClickModel:
    """Our side of a model, at the sizes of the bench."""
    from ..interest.baselines.din import DIN
    from ..interest.tin import TIN

    torch.manual_seed(seed)
    if name == "DIN":
        return DIN(schema, DIM, attention=ATTENTION, widths=WIDTHS, std=STD, lr=LR)
    return TIN(schema, DIM, widths=WIDTHS, std=STD, lr=LR)


def side_by_side(folder: str, pairs: int) -> dict:
    """Runs of all sides in turn, each in its own process."""
    trials = {w: alone(train_theirs, folder, 0, w, spin=OPENMP_SPIN) for w in (0, 1)}
    workers = min(trials, key=lambda w: trials[w]["seconds"])
    runs = {name: [] for name in (*MODELS, "theirs")}
    for seed in range(pairs):
        for name in MODELS:
            runs[name].append(alone(train_ours, name, folder, seed))
        runs["theirs"].append(alone(train_theirs, folder, seed, workers, spin=OPENMP_SPIN))
    return {"workers": workers, **runs}


def train_ours(name: str, folder: str, seed: int, epochs: int = 1) -> dict[str, float]:
    """`paperlab.loop.fit` on a stored log: seconds, rows, test AUC."""
    from .. import loop

    use_threads(THREADS)
    log = open_store(Path(folder))
    model = build(name, log.schema, seed)
    done = loop.fit(model, log, batch_size=BATCH_SIZE, epochs=epochs, seed=seed)
    rows = round(done.samples_per_second * done.seconds)
    return {"seconds": done.seconds, "rows": rows, "auc": done.test["auc"]}


def train_theirs(folder: str, seed: int, workers: int) -> dict[str, float]:
    """One epoch of FuxiCTR's DIN from the weights of ours."""
    from . import fuxictr_din as peer

    use_threads(THREADS)
    log = open_store(Path(folder))
    theirs = peer.DIN(log.schema, DIM, LR, ATTENTION, WIDTHS)
    return peer.train(
        build("DIN", log.schema, seed), theirs, log, Path(folder), BATCH_SIZE, workers
    )


def cost(name: str, length: int) -> dict[str, float | str]:
    """Milliseconds a batch and peak memory of training on histories of one length."""
    with tempfile.TemporaryDirectory() as folder:
        save(planted(COST_ROWS, length), Path(folder))
        return {"name": name, "length": length, **alone(train_long, name, folder)}


def train_long(name: str, folder: str) -> dict[str, float]:
    """Milliseconds a batch; peak memory in MB above what imports and an opened log take."""
    from .. import loop  # noqa: F401  (what it imports is not the model's memory)

    before = peak_memory_mb()
    done = train_ours(name, folder, 0, COST_EPOCHS)
    batches = done["rows"] / BATCH_SIZE
    return {"ms": 1000 * done["seconds"] / batches, "peak_mb": peak_memory_mb() - before}
