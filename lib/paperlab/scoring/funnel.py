"""Models of several labels on a log: AUC of the last label, resampled over users (or rows) and seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from .. import metrics
from ..feedback.real_multitask import ARMS, BASE, WIDTH
from ..feedback.resflow_studies import best_rate, trained
from ..nn.budget import width_for
from .clicks import JUDGED, at_edges, has_width, rows_a_step, sample, told
from .scores import Scores

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from ..data.schema import Schema
    from ..data.store import Log
    from ..feedback.towers import MultiTask

FREE = "click score"


def score(
    data: Log,
    contenders: Mapping[str, Callable[[Schema, int | None], MultiTask] | None],
    *,
    seeds: Sequence[int],
    tell: Callable[[str], None],
    rates: Sequence[float] = (0.0005, 0.001, 0.002, 0.004),
    epochs: int = 12,
    patience: int = 2,
    batch_size: int = 0,
) -> Scores:
    """Train every contender until the validation log loss of the last label stops falling.

    All rows train all labels, from the base rates on. "falls" is the share of rows whose probabilities
    fall along the labels.

    contenders: name -> builder of (schema, width), or None for the click score: separate towers' logit
        of the first label, as a score of the last one. Each gets the width of as many dense weights as
        separate towers have; one whose size no width changes stays as it is.
    rates: Adam's, tried at the first two seeds; at most four more while the best lies at an end.
    epochs: passes at most. patience: passes without a better log loss.
    batch_size: 0 takes `paperlab.scoring.clicks.rows_a_step`.
    Raises ValueError for a test part without both values of a label, and for the click score without
    separate towers.
    """
    for name, values in zip(data.schema.labels, data.test.labels.T, strict=True):
        if len(values.unique()) < 2:
            raise ValueError(f"{data.name}.test has {len(values):,} rows of one {name}: no AUC")
    if FREE in contenders and BASE not in contenders:
        raise ValueError(f"only {FREE!r} needs {BASE!r} too: it is their first logit")
    options = {"epochs": epochs, "patience": patience, "precision": "32-true", "accelerator": "cpu"}
    options |= {"batch_size": batch_size or rows_a_step(data)}
    labels = data.test.labels[:, -1]
    picked = sample(len(labels), JUDGED)
    rows, units = [], {}
    for row, logits in _scored(data, contenders, seeds, rates, options):
        auc, logloss = (m(logits[:, -1], labels) for m in (metrics.auc, metrics.logloss))
        falls = (logits.diff(dim=1) <= 0).all(1).double().mean().item()
        rows.append({"auc": auc, "logloss": logloss, "falls": falls} | row)
        units[row["model"], row["seed"]] = logits[picked, -1].numpy()
        if row["lr"]:
            tell(told(row, "AUC", auc))
    users = data.user("test")
    return Scores(
        rows,
        "auc",
        units,
        "auc",
        [0.5],
        columns=("logloss", "falls", "dense", "lr", "seconds"),
        labels=labels[picked].numpy().astype(bool),
        clusters=None if users is None else users[picked].numpy(),
        notes=[f"AUC of {data.schema.labels[-1]} over all rows", *at_edges(rows)],
    )


def _scored(
    data: Log, contenders: Mapping, seeds: Sequence[int], rates: Sequence[float], options: dict
) -> Iterator[tuple[dict, Float[Tensor, "n K"]]]:
    """Rows and test logits of all labels: of trained arms, the click score, and the base rates."""
    blank = {"log": data.name, "dense": 0, "lr": None, "seconds": 0.0, "edge": False}
    weights = ARMS[BASE](data.schema, WIDTH).count_parameters()["dense"]
    for name, build in contenders.items():
        if build is None:
            continue
        at = partial(build, data.schema)
        width = width_for(at, weights) if has_width(build, data.schema) else None
        arm = partial(build, width=width)
        best = best_rate(name, arm, [(data, seed) for seed in seeds[:2]], rates, **options)
        for row, model in trained(name, arm, data, seeds, best["lr"], **options):
            logits = model.predict_all(data.test)
            yield row | best, logits
            if name == BASE and FREE in contenders:  # an order, not a probability
                free = {"model": FREE, "seed": row["seed"], "logloss": None, "falls": None}
                yield blank | free, logits[:, :1].expand_as(logits)
    flat = torch.logit(data.train.labels.mean(0)).expand(len(data.test), -1)
    for seed in seeds:
        yield blank | {"model": "constant", "seed": seed}, flat
