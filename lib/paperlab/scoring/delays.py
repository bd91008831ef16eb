"""Conversion models on a log of late conversions: log loss of clicks once all is known.

Models train on the log as it was some days before its end, and are judged on what then came of other
users' clicks (or of other clicks, where the log has no users).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from .. import metrics, trials
from ..data.schema import Schema
from ..data.store import SPLITS, Log
from ..feedback.esdf import ESDF, LABELS
from .clicks import JUDGED, at_edges, rows_a_step, sample, told
from .scores import Scores

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from ..data.store import Split

ORACLE = "oracle"


def score(
    data: Log,
    contenders: Mapping[str, dict],
    *,
    seeds: Sequence[int],
    tell: Callable[[str], None],
    rates: Sequence[float] = (0.004, 0.012, 0.036),
    epochs: int = 5,
    batch_size: int = 0,
) -> Scores:
    """Train every contender from the observed rates and delays on; the rate of Adam falls to 0.

    "bias" is predicted over true conversions, minus 1. The constant is the training rate that the oracle
    knows. A log without impressions that were not clicked trains on clicks alone.

    contenders: name -> arguments of `paperlab.feedback.esdf.ESDF`; "oracle" knows all conversions.
    rates: Adam's first, tried at the first seed; at most two more where the best lies at an end.
    epochs: passes; the one with the least validation loss counts.
    batch_size: 0 takes `paperlab.scoring.clicks.rows_a_step`.
    Raises ValueError where training or validation has no conversion in time, and the test part not both.
    """
    days = data.notes["days"]
    known, seen = as_seen(data, days, complete=True), as_seen(data, days)
    clicks = data.test.labels[:, 0] == 1
    labels = data.test.labels[clicks, 1]
    if len(labels.unique()) < 2:
        raise ValueError(f"{data.name}.test has {len(labels):,} clicks of one class: no AUC")
    options = {"epochs": epochs, "batch_size": batch_size or rows_a_step(data), "rates": rates}
    options |= {"widen": 2 * (len(rates) > 1), "precision": "32-true", "accelerator": "cpu"}
    picked = sample(len(labels), JUDGED)
    rows, units = [], {}
    for row, logits in _scored(known, seen, contenders, seeds, days, options):
        logits = logits[clicks]
        row |= {m: getattr(metrics, m)(logits, labels) for m in ("logloss", "auc")}
        rows.append(row | {"bias": metrics.calibration_ratio(logits.sigmoid(), labels) - 1})
        loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        units[row["model"], row["seed"]] = loss[picked].numpy()
        if row["lr"]:
            tell(told(row, "log loss", row["logloss"]))
    users = data.user("test")
    arrived = (conversions(seen.train) / conversions(known.train)).item()
    return Scores(
        rows,
        "logloss",
        units,
        "two-level",
        ["constant"],
        better="lower",
        columns=("bias", "auc", "dense", "lr", "seconds"),
        clusters=None if users is None else users[clicks][picked].numpy(),
        notes=[
            f"training saw {arrived:.0%} of the conversions that came within {days} days",
            f"predicted over true conversions, minus 1: {_means(rows)}",
            *at_edges(rows),
        ],
    )


def _scored(
    known: Log,
    seen: Log,
    contenders: Mapping[str, dict],
    seeds: Sequence[int],
    days: int,
    options: dict,
) -> Iterator[tuple[dict, Float[Tensor, " n"]]]:
    """Rows and logits of the conversion rates of the test part: of trained models, and the constant."""
    entire = bool((seen.train.labels[:, 0] == 0).any())
    for name, given in contenders.items():
        if not (entire or given.get("entire", True)):
            continue  # all others train on clicks alone too
        log, arguments = known if name == ORACLE else seen, {"entire": entire, "days": days} | given

        def build(schema: Schema, _, log=log, arguments=arguments) -> ESDF:
            return ESDF(schema, **arguments).start_at(log.train)

        for row, model in trials.compare({name: build}, log, seeds=seeds, **options):
            yield row, model.predict(log.test)
    rate = conversions(known.train) / known.train.labels[:, 0].sum()
    blank = {"log": known.name, "dense": 0, "lr": None, "seconds": 0.0, "edge": False}
    for seed in seeds:
        yield blank | {"model": "constant", "seed": seed}, torch.logit(rate).expand(len(known.test))


def as_seen(log: Log, days: int, *, complete: bool = False) -> Log:
    """A log of late conversions with the labels of `paperlab.feedback.esdf`.

    Training and validation know what a run ``days`` days before the end knew, or all where ``complete``;
    the test part knows all. log: of kind delays, see `paperlab.data.own.outcomes.delays`.
    """
    parts = {}
    for part in SPLITS:
        split = getattr(log, part)
        click, converted, delay, since = split.labels.unbind(1)
        elapsed = torch.full_like(since, days) if complete or part == "test" else since
        observed = converted * (delay <= elapsed)
        labels = torch.stack([click, observed, delay * observed, elapsed], 1)
        values = torch.cat([split.values[:, : split.n_numeric], labels], 1)
        parts[part] = replace(split, values=values, mapped=False)
    fields = tuple(
        replace(f, name=f"field {f.name}") for f in log.schema.fields
    )  # none is a label's
    return replace(log, schema=Schema(fields, LABELS), **parts)


def conversions(split: Split) -> Tensor:
    """How many conversions a part of `as_seen` has."""
    return split.labels[:, 1].sum()


def _means(rows: Sequence[dict]) -> str:
    names = dict.fromkeys(row["model"] for row in rows)
    means = {n: [r["bias"] for r in rows if r["model"] == n] for n in names}
    return ", ".join(f"{n} {sum(v) / len(v):+.1%}" for n, v in means.items())
