"""Training on histories beside FuxiCTR's DIN and RecBole's DIN and SASRec, and what length costs.

Rows, batch, thread and clock are as in `paperlab.bench.training`. FuxiCTR's DIN is the same function
as ours, from the same weights; RecBole's models are of the same sizes. All histories are full:
batches of like length, which save us padding elsewhere, save nothing here. Without decay in the
planted truth and with few categories one epoch is enough to learn it, so that AUCs can be compared.
"""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch

from ..data.schema import Schema
from ..data.store import open_store, save
from ..interest.worlds.interest_sequences import interest_sequences
from ..machine import peak_memory_mb, use_threads
from ..nn.click import ClickModel
from .processes import alone, lasting
from .training import THREADS, require, row, timed_fit

MODELS = ("DIN", "TIN", "SASRec")
AGAINST = (("DIN", "FuxiCTR DIN"), ("TIN", "FuxiCTR DIN"))
AGAINST_RECBOLE = (("DIN", "RecBole DIN"), ("SASRec", "RecBole SASRec"))
DIM, STD, LR, BATCH_SIZE = 16, 0.2, 0.01, 1024  # an event is two fields wide: d = 32
ATTENTION, WIDTHS = [64], [200, 80]
PAIRS, ROWS, LENGTH, CATEGORIES, ITEMS = 3, 50_000, 50, 4, 5000  # 40,000 of the rows train
LENGTHS, COST_ROWS = (50, 200, 800), 7680  # 6 batches train


def measure(pairs: int = PAIRS, rows: int = ROWS, lengths: tuple[int, ...] = LENGTHS) -> dict:
    """Our models and their peers on one log; then DIN and TIN over histories of ``lengths``.

    pairs: runs of each side, >= 1. rows: of the generated log, all parts together, >= 1000.
    Without RecBole its rows are left out. Raises ValueError for values out of range,
    ModuleNotFoundError without FuxiCTR.
    """
    require(pairs, rows)
    from .fuxictr_din import save_npz

    against = AGAINST + (AGAINST_RECBOLE if find_spec("recbole") else ())
    log = planted(rows, LENGTH)
    with tempfile.TemporaryDirectory() as folder, lasting() as ours, lasting() as theirs:
        save(log, Path(folder))
        save_npz(log, Path(folder))
        runs: dict[str, list[dict]] = {}
        for seed in range(pairs):
            for name in dict.fromkeys(a for a, _ in against):
                runs.setdefault(name, []).append(ours(train_ours, name, folder, seed))
            for peer in dict.fromkeys(b for _, b in against):
                runs.setdefault(peer, []).append(theirs(train_theirs, peer, folder, seed))
        limits = {name: ours(least, name, folder) for name in dict.fromkeys(a for a, _ in against)}
    found = []
    for name, peer in against:
        pairs_of = zip(runs[name], runs[peer], strict=True)
        both = [{"ours": a, "theirs": b} for a, b in pairs_of]
        found.append(row(name, peer, both, limits[name], BATCH_SIZE))
    about = {"log": repr(log), "length": LENGTH, "batch_size": BATCH_SIZE, "threads": THREADS}
    costs = [cost(name, n) for n in lengths for name in ("DIN", "TIN")]
    return {**about, "pairs": pairs, "rows": found, "lengths": costs}


def planted(rows: int, length: int):
    """A log in which all histories have ``length`` events and none is forgotten."""
    return interest_sequences(
        rows, rate=1.0, lengths=(length, length), categories=CATEGORIES, items=ITEMS
    )


def build(name: str, schema: Schema, seed: int) -> ClickModel:
    """Our side of a model, at the sizes of the bench."""
    from ..interest.baselines.din import DIN
    from ..interest.baselines.sasrec import SASRec
    from ..interest.tin import TIN

    torch.manual_seed(seed)
    if name == "DIN":
        return DIN(schema, DIM, attention=ATTENTION, widths=WIDTHS, std=STD, lr=LR)
    if name == "SASRec":
        return SASRec(schema, DIM, widths=WIDTHS, std=STD, lr=LR)
    return TIN(schema, DIM, widths=WIDTHS, std=STD, lr=LR)


def train_ours(name: str, folder: str, seed: int) -> dict[str, float]:
    """One epoch of `paperlab.loop.fit` on a stored log: seconds, rows, test AUC."""
    use_threads(THREADS)
    log = open_store(Path(folder))
    return timed_fit(build(name, log.schema, seed), log, BATCH_SIZE, seed)


def least(name: str, folder: str) -> dict:
    """The least time of our training step: see `paperlab.bench.limits`."""
    from . import limits

    use_threads(THREADS)
    log = open_store(Path(folder))
    return limits.of_model(build(name, log.schema, 0), log.train, BATCH_SIZE)


def train_theirs(peer: str, folder: str, seed: int) -> dict[str, float]:
    """One epoch of a peer; FuxiCTR's DIN starts from the weights of ours."""
    use_threads(THREADS)
    log = open_store(Path(folder))
    library, name = peer.split()
    if library == "RecBole":
        from . import recbole

        torch.manual_seed(seed)
        model = recbole.build(name, log, DIM, WIDTHS, ATTENTION)
        return recbole.train(model, log, LR, BATCH_SIZE, seed)
    from . import fuxictr, fuxictr_din

    theirs = fuxictr_din.DIN(log.schema, DIM, LR, ATTENTION, WIDTHS)
    fuxictr_din.copy_weights(build("DIN", log.schema, seed), theirs)
    return fuxictr.train(theirs, log, Path(folder), BATCH_SIZE)


def cost(name: str, length: int) -> dict[str, float | str]:
    """Milliseconds a batch and peak memory of training on histories of one length."""
    with tempfile.TemporaryDirectory() as folder:
        save(planted(COST_ROWS, length), Path(folder))
        return {"model": name, "length": length, **alone(train_long, name, folder)}


def train_long(name: str, folder: str) -> dict[str, float]:
    """Milliseconds a batch; peak memory in MB above what imports and an opened log take."""
    from .. import loop  # noqa: F401  (what it imports is not the model's memory)

    before = peak_memory_mb()
    run = train_ours(name, folder, 0)
    ms = 1000 * BATCH_SIZE * run["seconds"] / run["rows"]
    return {"ms": ms, "peak_mb": peak_memory_mb() - before}
