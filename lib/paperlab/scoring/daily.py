"""Two-tower click models on later days: AUC within a user, resampled over users and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..feedback.elbo_tds_study import Study, kuairand, moved, user_auc
from .clicks import rows_a_step, told
from .scores import Scores

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..data.store import Log

ROWS = 512  # a step, at most
FLOOR = "item's past share"


def score(
    data: Log,
    contenders: Mapping[str, None],
    *,
    seeds: Sequence[int],
    tell: Callable[[str], None],
    rates: Sequence[float] = (0.002, 0.001, 0.004),
    alphas: Sequence[float] = (0.01, 0.001, 0.1),
    copies: int = 4,
    epochs: int = 6,
    batch_size: int = 0,
) -> Scores:
    """Train every contender; its pass, and at the first seed rate and alpha, are chosen by validation AUC.

    The metric is the mean of the test users' AUCs by rows; users with one label only are left out. The
    trivial rival ranks by the share of an item's earlier rows with the label.

    data: of kind daily, see `paperlab.data.own.daily`.
    contenders: names of `paperlab.feedback.elbo_tds_study.ARMS`.
    rates: Adam's; while any best lies at an end, one beyond it for all. alphas: weights of the self-supervised loss.
    copies: augmented copies of that loss. epochs: passes.
    batch_size: 0 takes `paperlab.scoring.clicks.rows_a_step`, 512 at most.
    Raises ValueError where no user of the test part has both labels.
    """
    clicks, rows_of = (data.test.labels[:, 0], data.user("test").unique(return_inverse=True)[1])
    hits, shown = rows_of.bincount(clicks), rows_of.bincount()
    if not ((hits > 0) & (hits < shown)).any():
        raise ValueError(f"{data.name}.test has no user with both labels: no AUC within a user")
    sides = {"users": data.notes["side"], "statistics": data.notes["statistics"]}
    options = {"epochs": epochs, "batch_size": batch_size or min(ROWS, rows_a_step(data))}
    study = Study(sides, options, copies)
    study.choose({name: [data] for name in contenders}, rates, alphas, seeds[0])
    rows, units, weights = [], {}, None
    for seed in seeds:
        for name in contenders:
            [row], own, weights = kuairand(study, data, [name], [seed])
            rows.append(row | {"edge": False})
            units |= own
            tell(told(rows[-1], "user-AUC", row["user-AUC"]))
    column = [f.name for f in data.schema.categorical].index(sides["statistics"][-1])
    aucs, _ = user_auc(data.test.ids[:, column].float(), data)
    blank = {"model": FLOOR, "lr": None, "alpha": None, "seconds": 0.0, "edge": False}
    mean = float((aucs * weights).sum() / weights.sum())
    rows += [blank | {"seed": seed, "user-AUC": mean, "auc": None} for seed in seeds]
    units |= {(FLOOR, seed): aucs * weights for seed in seeds}
    most = max(moved(data, sides["statistics"]), key=lambda row: row["moved"])
    edges = [f"{s['model']} ({key})" for s in study.settings() for key in s["edge"]]
    return Scores(
        rows,
        "user-AUC",
        units,
        "two-level",
        [0.5, FLOOR],
        columns=("auc", "lr", "alpha", "seconds"),
        weights=weights,
        notes=[
            f"{len(weights):,} users of the test days have both labels",
            f"what moved most from training to test: {most['statistic']}, by {most['moved']:.0%} of the rows",
            *[f"the best setting is at an edge of those tried: {', '.join(edges)}"] * bool(edges),
        ],
    )
