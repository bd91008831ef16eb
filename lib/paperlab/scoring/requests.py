"""Rankers of requests: AUC over all test candidates, and within groups; resampled over users and seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import intervals, metrics
from ..ctr import own_requests, sort_studies
from ..data.store import SPLITS
from .clicks import JUDGED, at_edges, sample, told
from .scores import Scores

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from ..data.own.requests import ShownRequests

FLOORS = {"user's past share": sort_studies.own_share, "item's past share": sort_studies.item_rate}


def score(
    data: ShownRequests,
    contenders: Mapping[str, Callable[..., Iterator[tuple[dict, Tensor]]]],
    *,
    seeds: Sequence[int],
    tell: Callable[[str], None],
    candidates: int = 0,
    length: int = 32,
    rates: Sequence[float] = (0.002, 0.008, 0.032),
    epochs: int = 8,
    batch_size: int = 0,
) -> Scores:
    """Train every contender at equal trials; the trivial rivals rank by past shares of label 1.

    contenders: name -> the function that trains it and others: (`own_requests.Cut`, names, seeds,
        rates, epochs, batch_size) to rows and scores of the test part.
    candidates: of a group, see `paperlab.ctr.own_requests.cut`. length: events of a history.
    rates: tried at the first seed, the best on validation is kept. epochs: passes; the one with the
        best validation AUC counts.
    batch_size: groups a step; 0 takes a fiftieth of the training part, 16 to 128.
    Raises ValueError where candidates of a part have one label, and where all of each test group have.
    """
    cut = own_requests.cut(data, length, candidates)
    log = cut.requests()
    for name in SPLITS:
        labels = getattr(log, name).labels
        if min((labels == k).sum() for k in (0, 1)) < 2:
            found = (
                f"{data.name}.{name}: {labels.numel():,} candidates in groups of {labels.shape[1]}"
            )
            raise ValueError(f"{found}, fewer than two of one label: no AUC")
    y, users = log.test.labels, log.test.group
    mixed = y.min(1)[0] < y.max(1)[0]
    if not mixed.any():
        raise ValueError(f"{data.name}.test has no group with both labels: no AUC within groups")
    size = batch_size or min(128, max(16, len(log.train) // 50))
    terms = {"rates": rates, "epochs": epochs, "batch_size": size}
    rows, scores = [], {}
    for compete in dict.fromkeys(contenders.values()):
        names = [name for name, own in contenders.items() if own is compete]
        for row, found in compete(cut, names, seeds, **terms):
            rows.append(row)
            scores[row["model"], row["seed"]] = found
            tell(told(row, "AUC", row["auc"]))
    for name, rule in FLOORS.items():
        found = rule(log)
        row = {"model": name, "auc": metrics.auc(found, y.flatten()), "dense": 0, "lr": None}
        rows += [row | {"seed": seed, "seconds": 0.0, "edge": False} for seed in seeds]
        scores |= {(name, seed): found for seed in seeds}
    inside = {key: aucs(s.view_as(y)[mixed], y[mixed]) for key, s in scores.items()}
    kept = ("model", "seed", "auc", "dense", "lr", "seconds", "edge")
    rows = [
        {k: row[k] for k in kept} | {"within": inside[row["model"], row["seed"]].mean()}
        for row in rows
    ]
    picked = sample(y.numel(), JUDGED)
    return Scores(
        rows,
        "auc",
        {key: values[picked].numpy() for key, values in scores.items()},
        "auc",
        [0.5, *FLOORS],
        columns=("within", "dense", "lr", "seconds"),
        labels=y.flatten()[picked].numpy().astype(bool),
        clusters=users.repeat_interleave(y.shape[1])[picked].numpy(),
        notes=[
            *within([*contenders], seeds, inside, users[mixed].numpy()),
            f"groups of {y.shape[1]}: {cut.shown.size:,} of {len(data):,} candidates, the others "
            f"stand in histories alone; {mixed.sum():,} of {len(y):,} test groups have both labels",
            *at_edges(rows),
        ],
    )


def within(
    names: Sequence[str],
    seeds: Sequence[int],
    values: Mapping[tuple[str, int], Float[np.ndarray, " G"]],
    users: Int[np.ndarray, " G"],
) -> list[str]:
    """The first contender against each other one by the mean AUC of groups, with 95 % intervals."""
    by_name = {name: np.stack([values[name, seed] for seed in seeds]) for name in names}
    lines = []
    for name in names[1:]:
        gap = intervals.two_level(by_name[names[0]], by_name[name], clusters=users)
        low, high = gap.interval()
        lines.append(
            f"within groups: {names[0]} against {name}: {gap.value:+.4f} AUC [{low:+.4f}, {high:+.4f}]"
        )
    return lines


def aucs(scores: Float[Tensor, "G C"], labels: Float[Tensor, "G C"]) -> Float[np.ndarray, " G"]:
    """The AUC of each group, which has both labels; a tie counts one half."""
    pairs = labels[:, :, None] * (1 - labels)[:, None, :]
    gap = scores[:, :, None] - scores[:, None, :]
    won = (gap > 0).double() + (gap == 0).double() / 2
    return ((pairs * won).sum((1, 2)) / pairs.sum((1, 2))).numpy()
