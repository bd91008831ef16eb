"""Tables compared: on a stream with known weights, with ids that die, on Criteo, and their time."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product

import numpy as np
import torch
from torch.nn import functional as F

from .. import checks, loop, metrics, trials
from ..data.store import Log
from ..nn.table_adam import TableAdam
from ..nn.tables import BoundedTable, GrowingTable, HashedTable, Setting, Table, Tables
from . import raw_criteo
from .recis import Recis, codes, excess, frequent
from .worlds.zipf_stream import zipf_stream

Maker = Callable[..., Table]  # of a width and the initial weights' standard deviation
RULES = {  # updates of a growing table; the first is RecIS's
    "growing": {},
    "dense Adam": {"lazy": False},
    "row counter": {"counter": "row"},
    "mean of duplicates": {"reduce": "mean"},
    "TF decay .01": {"weight_decay": 0.01, "decay": "tf"},
}
NAMES = {1.0: "1", 0.5: "1/2", 0.25: "1/4"}
HELD = {"held": 20_000, "valid": 10_000}  # rows of a stream
ON_CPU = {"precision": "32-true", "accelerator": "cpu"}


def sized(log: Log, share: float, hash_seed: int | None = None) -> dict[str, Maker]:
    """Hashed and bounded tables whose rows are a share of the distinct ids in training.

    The bounded one has the ids that were most frequent in the first half of the training part.
    hash_seed: None draws one for each table, by torch's seed.
    """
    checks.inside("(0, 1]", share=share)
    m = max(2, int(share * len(codes(log.train.ids).unique())))
    head = frequent(log.train.rows(slice(0, max(1, len(log.train) // 2))), m - 1)
    name = NAMES.get(share, f"{share:g}")

    def hashed(d: int, std: float = 0.0) -> HashedTable:
        drawn = int(torch.randint(1 << 31, ())) if hash_seed is None else hash_seed
        return HashedTable(m, d, std, hash_seed=drawn)

    return {
        f"hashed {name}": hashed,
        f"bounded {name}": lambda d, std=0.0: BoundedTable(head, d, std),
    }


def constant(log: Log) -> dict[str, float]:
    """Scores of the training part's rate as the prediction of every test row."""
    logit, y = log.train.labels[:, 0].mean().logit(), log.test.labels[:, 0]
    scores = {"model": "constant", "kind": "constant", "auc": 0.5, "lr": None}
    scores |= {"dense": 1, "embedding": 0, "seconds": 0.0}
    scores["logloss"] = metrics.logloss(logit.expand(len(y)), y)
    if log.truth is not None:
        scores |= excess(logit.expand(len(y)), log.truth)
    return scores


def shared_cost(log: Log, table: Table) -> float:
    """Excess log loss (mn) of the best weights that a table's ids can have, given what they share."""
    ids = torch.arange(log.truth.weights.shape[1]).expand(len(log.truth.weights), -1)
    every = codes(ids.T).T
    places = table.place(every.flatten(), False).view_as(every)
    best = log.truth.logits_of(log.truth.best_shared(places))
    return 1e3 * metrics.kl(best, log.truth.logits.sigmoid())


def stream(
    rows: int, seed: int, shares: Sequence[float], rates: Sequence[float], batch_size: int
) -> Iterator[dict]:
    """Rows of `trials.compare`: every table and update rule at every rate, on one world.

    Beside its columns: rate; kind and share of the table; shared: its `shared_cost`. The last row
    is the constant's.
    """
    log = zipf_stream(rows, seed=seed, **HELD)
    arms = {name: (GrowingTable, rule, {"kind": name}) for name, rule in RULES.items()}
    for share in shares:
        for name, table in sized(log, share, seed).items():
            about = {"kind": name.split()[0], "share": share, "shared": shared_cost(log, table(1))}
            arms[name] = (table, {}, about)
    for name, (table, rule, about) in arms.items():

        def build(schema, _, table=table, rule=rule) -> Recis:
            return Recis(schema, table, adam=rule).start_at(log.train)

        for rate in rates:
            how = {"seeds": [seed], "rates": [rate], "batch_size": batch_size}
            for row, _ in trials.compare({name: build}, log, **how, **ON_CPU):
                yield row | {"rate": rate, "share": None, "shared": None} | about
    yield constant(log) | {"seed": seed, "rate": None, "share": None, "shared": None}


def tuned(grid: Sequence[dict]) -> tuple[list[dict], list[str]]:
    """Of every model the rows of the rate with the best mean validation log loss; rates at an end.

    The second: models whose best rate is the lowest or the highest of several. Rows without a rate
    stay as they are.
    """
    chosen, ends = [r for r in grid if r["rate"] is None], []
    rates = sorted({r["rate"] for r in grid if r["rate"] is not None})
    for model in dict.fromkeys(r["model"] for r in grid if r["rate"] is not None):
        mine = {k: [r for r in grid if (r["model"], r["rate"]) == (model, k)] for k in rates}
        best = min(rates, key=lambda k: statistics.mean(r["valid_logloss"] for r in mine[k]))
        chosen += mine[best]
        ends += [model] if len(rates) > 1 and best in (rates[0], rates[-1]) else []
    return chosen, ends


def stepper(features: int, merged: bool, dim: int = 8, ids: int = 64) -> Callable[[], None]:
    """A training step (lookup, backward, Adam) on ``ids`` random ids a feature, to be timed."""
    checks.whole(features=features, dim=dim, ids=ids)
    settings = {f"f{k}": Setting(dim) for k in range(features)}
    tables = Tables(settings, merged)
    adam = TableAdam(tables, lr=0.01)
    draw = torch.Generator().manual_seed(features)
    batch = {name: torch.randint(0, 1_000, (ids,), generator=draw) for name in settings}

    def step() -> None:
        torch.cat([*tables(batch).values()], 1).square().sum().backward()
        adam.step()

    return step


def drift(
    rows: int, seed: int, filters: Sequence[int], rates: Sequence[float], batch_size: int
) -> tuple[list[dict], list[dict]]:
    """Tables while 1 % of ids are replaced every 10,000 rows, at every rate.

    Growing ones without and with eviction, and `sized` ones of a quarter of the distinct ids.
    Returns scores for `tuned`, with the megabytes that the rows would take at d = 8, and the number
    of rows at ten steps on the way.
    """
    log = zipf_stream(rows, drift=0.01, seed=seed, **HELD)
    arms = {
        f"evicted after {steps}" if steps else "never evicted": partial(
            GrowingTable, filter_step=steps, filter_interval=10
        )
        for steps in [None, *filters]
    }
    scores, sizes = [], []
    for (name, table), rate in product((arms | sized(log, 0.25, seed)).items(), rates):
        model = Recis(log.schema, lambda _, t=table: t(1), lr=rate).start_at(log.train)
        row = {"model": name, "seed": seed, "rate": rate}
        how = {"batch_size": batch_size, "seed": seed, "checks_per_epoch": 10}
        done = loop.fit(model, log, watch=lambda m: {"rows": len(m.embed)}, **how, **ON_CPU)
        sizes += [row | {"step": h["step"], "rows": h["rows"]} for h in done.history]
        key = 0 if name.startswith("hashed") else 8  # bytes
        row |= {"rows": sizes[-1]["rows"], "MB": sizes[-1]["rows"] * (key + 3 * 4 * 8) / 1e6}
        scores.append(row | {"excess": done.test["excess"], "valid_logloss": done.valid["logloss"]})
    return scores, sizes


def criteo(
    seeds: Sequence[int], rates: Sequence[float], batch_size: int
) -> tuple[list[dict], dict[tuple[str, int], np.ndarray]]:
    """LR and DeepFM on growing, hashed and bounded tables; and log losses (mn) of each test row."""
    log = raw_criteo.load()
    tables = {"growing": GrowingTable} | sized(log, 1.0) | sized(log, 0.25)
    del tables["bounded 1"]  # nearly the growing one
    builders = {
        f"{head}, {name}": lambda schema, _, table=table, dim=dim: Recis(
            schema, lambda width: table(width, 0.01 if dim else 0.0), dim=dim
        ).start_at(log.train)
        for head, dim in (("LR", 0), ("DeepFM", 8))
        for name, table in tables.items()
    }
    how = {"seeds": seeds, "rates": rates, "widen": 1, "epochs": 2, "batch_size": batch_size}
    rows, units = [], {}
    for row, model in trials.compare(builders, log, **how, **ON_CPU):
        rows.append(row)
        logits, y = model.predict(log.test), log.test.labels[:, 0]
        loss = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
        units[row["model"], row["seed"]] = 1e3 * loss.numpy()
    return rows + [constant(log) | {"seed": seed} for seed in seeds], units
