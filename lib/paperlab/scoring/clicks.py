"""Click models on a click log: AUC on the test part, resampled over its users (or rows) and seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import checks, metrics, trials
from .scores import Scores

if TYPE_CHECKING:
    from ..data.schema import Schema
    from ..data.store import Log
    from ..nn.click import ClickModel

Builder = Callable[["Schema", int | None], "ClickModel"]
JUDGED = 20_000  # test rows whose scores are kept for the interval


def score(
    data: Log,
    contenders: Mapping[str, Builder],
    *,
    seeds: Sequence[int],
    tell: Callable[[str], None],
    budget: int = 0,
    rates: Sequence[float] = (0.001, 0.003, 0.01),
    epochs: int = 20,
    patience: int = 3,
    batch_size: int = 0,
) -> Scores:
    """Train every contender until validation AUC stops rising, at the rate that it prefers.

    contenders: name -> builder of (schema, width). Each gets the width with ``budget`` dense weights;
        one whose size no width changes, such as logistic regression, stays as it is.
    budget: 0 takes 50,000, or 1,600 a field of a log of more than 31 fields.
    rates: Adam's, tried at the first seed; at most two more where the best lies at an end.
    epochs: passes at most. patience: passes without a better AUC.
    batch_size: 0 takes `rows_a_step`.
    Raises ValueError for a test part of one class, and what `trials.compare` refuses.
    """
    labels = data.test.labels[:, 0]
    if len(labels.unique()) < 2:
        raise ValueError(f"{data.name}.test has {len(labels):,} rows of one class: no AUC")
    budget = budget or max(50_000, 1_600 * len(data.schema.fields))
    picked = sample(len(labels), JUDGED)
    rows, units = [], {}
    terms = {"rates": rates, "epochs": epochs, "patience": patience, "batch_size": batch_size}
    for row, model in trained(data, contenders, budget, seeds, **terms):
        rows.append(row)
        units[row["model"], row["seed"]] = model.predict(data.test)[picked].numpy()
        tell(told(row, "AUC", row["auc"]))
    rate = data.train.labels[:, 0].mean().clamp(1e-6, 1 - 1e-6)
    constant = metrics.logloss(torch.full_like(labels, torch.logit(rate).item()), labels)
    floor = {"model": "constant", "auc": 0.5, "logloss": constant, "gauc": 0.5, "lr": None}
    same = {"log": data.name, "dense": 0, "embedding": 0, "seconds": 0.0, "edge": False}
    rows += [floor | same | {"seed": seed} for seed in seeds]
    users = data.user("test")
    return Scores(
        rows,
        "auc",
        units,
        "auc",
        [0.5],
        columns=("logloss", *(("gauc",) if users is not None else ()), "dense", "lr", "seconds"),
        labels=labels[picked].numpy().astype(bool),
        clusters=None if users is None else users[picked].numpy(),
        notes=at_edges(rows),
    )


def trained(
    data: Log, contenders: Mapping[str, Builder], budget: int, seeds: Sequence[int], **terms
) -> Iterator[tuple[dict, ClickModel]]:
    """Rows of `trials.compare` and models: at ``budget`` dense weights where a width sets them."""
    terms |= {"batch_size": terms["batch_size"] or rows_a_step(data), "widen": 2}
    for name, build in contenders.items():
        size = budget if has_width(build, data.schema) else None
        one = {name: build}
        yield from trials.compare(one, data, seeds=seeds, budget=size, precision="32-true", **terms)


def told(row: dict, metric: str, value: float) -> str:
    """A trained model in one line."""
    edge = ", at the edge of the rates" if row["edge"] else ""
    return f"{row['model']}, seed {row['seed']}: {metric} {value:.4f}, rate {row['lr']:g}{edge}"


def at_edges(rows: Sequence[dict]) -> list[str]:
    """What a reader must know of rates: for which models a better one may lie beyond those tried."""
    models = sorted({row["model"] for row in rows if row["edge"]})
    return [f"the best rate is at an edge of those tried: {', '.join(models)}"] * bool(models)


def rows_a_step(log: Log) -> int:
    """1,024, or fewer, at least 64, so that a pass has a hundred steps: patience counts passes."""
    return min(1024, max(64, len(log.train) // 100))


def has_width(build: Builder, schema: Schema) -> bool:
    """Whether a model's number of dense weights depends on the width that its builder is given."""
    with torch.device("meta"):
        narrow, wide = (build(schema, width).count_parameters()["dense"] for width in (8, 64))
    return narrow != wide


def sample(rows: int, most: int) -> np.ndarray:
    """Sorted indices of all rows, or of ``most`` of them drawn with a fixed seed."""
    checks.whole(rows=rows, most=most)
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
