"""Methods on snapshots along a stream: mean AUC of the last periods, resampled over users and seeds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from .. import checks
from ..feedback.real_streams import cut, negatives, user_units
from ..feedback.snapshot_study import FIRST, Study, best
from .clicks import JUDGED
from .scores import Scores

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from jaxtyping import Float

    from ..data.own.streams import EventStream
    from ..feedback.prequential import Stream


def score(
    data: EventStream,
    contenders: Mapping[str, None],
    *,
    seeds: Sequence[int],
    tell: Callable[[str], None],
    periods: int = 27,
    judged: int = 7,
    trials: int = 5,
    rates: Sequence[float] = (0.003, 0.01, 0.03),
    passes: Sequence[int] = (1, 2),
    batch_size: int = 0,
) -> Scores:
    """Test, then train, period by period; the base model is tuned for fine-tuning alone.

    At the first seed, rate and passes of the base and each method's own number are chosen by the AUC of as
    many periods before those judged.

    data: of kind stream, see `paperlab.data.own.streams`. A seed draws negatives and initial weights.
    contenders: names of `paperlab.feedback.snapshot_study.TRIED`.
    periods: of equal count. judged: the last so many. trials: numbers that each method tries, 1..5.
    rates, passes: of the base, Adam's and over each period.
    batch_size: of the base; 0 takes a twentieth of a period's rows, 64 to 1,024. A generator's step
        has twice as many rows of each period.
    Raises ValueError for too few periods or rows, and a period whose rows have one label.
    """
    checks.whole(2 * judged + FIRST, periods=periods)
    first = of_events(data, periods, seeds[0])
    size = batch_size or min(1024, max(64, len(first.periods[0]) // 20))
    study, pilot = Study(judged, trials, meta_batch=2 * size, batch_size=size), {seeds[0]: first}
    grid = study.tune(pilot, [*product(rates, passes)], study.earlier)
    setting = best(grid, "rate", "passes")
    numbers = study.choose(pilot, setting, [*contenders], study.earlier)
    rows, units, weights = [], {}, None
    for seed in seeds:
        stream = pilot.get(seed) or of_events(data, periods, seed)
        began = time.perf_counter()
        for row, tested, _ in study.compete(stream, seed, setting, numbers):
            seconds = time.perf_counter() - began
            rows.append(row | {"seconds": seconds})
            units[row["model"], seed], weights = user_shares(stream, tested[-judged:])
            number = "" if row["setting"] is None else f", its number {row['setting']:g}"
            tell(f"{row['model']}, seed {seed}: AUC {row['auc']:.4f}{number}")
            began = time.perf_counter()
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(weights))[:JUDGED]
    edges = sorted({row["model"] for row in rows if row["edge"]})
    what = "one drawn negative for each event; " if data.labels is None else ""
    return Scores(
        rows,
        "auc",
        {key: values[drawn] for key, values in units.items()},
        "two-level",
        [0.5],
        columns=("logloss", "tempered", "setting", "seconds"),
        weights=weights[drawn],
        notes=[
            f"{what}{periods} periods, the last {judged} judged",
            f"the base model: rate {setting[0]:g}, {setting[1]} passes a period",
            *[f"the best number is at an edge of those tried: {', '.join(edges)}"] * bool(edges),
        ],
    )


def of_events(data: EventStream, periods: int, seed: int) -> Stream:
    """Periods of equal count; events without labels get a drawn negative each, as `real_streams.taobao`.

    Raises ValueError for too few rows, and a period whose rows have one label.
    """
    if len(data.pairs) < 2 * periods:
        raise ValueError(f"{data.name}: {len(data.pairs):,} rows are too few for {periods} periods")
    edges = np.linspace(0, len(data.pairs), periods + 1).astype(int)
    if data.labels is not None:
        stream = cut(data.name, data.pairs, data.labels, edges)
        for t, period in enumerate(stream.periods, 1):
            if len(period.labels.unique()) < 2:
                raise ValueError(
                    f"{data.name}: period {t} of {periods} has one label only: no AUC; try fewer periods"
                )
        return stream
    pairs = data.pairs
    drawn = negatives(pairs, edges, np.random.default_rng([seed, 5]))
    both = np.stack([pairs, np.stack([pairs[:, 0], drawn], 1)], 1).reshape(-1, 2)
    return cut(data.name, both, np.tile([1, 0], len(pairs)), 2 * edges)


def user_shares(
    stream: Stream, tested: Sequence[tuple[int, torch.Tensor]]
) -> tuple[Float[np.ndarray, " U"], Float[np.ndarray, " U"]]:
    """The mean AUC of periods as a ratio of sums over users: (values, weights), by user id.

    As `real_streams.user_units`, for any number of negatives; a user's weight is the share of the
    positives that are the user's, summed over periods.
    """
    size = stream.schema.fields[0].size
    values = weights = np.zeros(size)
    for t, logits in tested:
        period = stream.periods[t]
        labels, users = period.labels[:, 0], period.users
        places, hits = user_units(logits, labels, 2 * users + labels.long(), 2 * size)
        missed, found = places.reshape(
            size, 2
        ).T  # of negatives; of positives, less the AUC of each
        positives = hits.reshape(size, 2)[:, 1]
        negatives_ = users[labels == 0].bincount(minlength=size).numpy()
        auc, total = missed.sum() / negatives_.sum(), positives.sum()
        own = auc * positives + found + total / negatives_.sum() * (missed - auc * negatives_)
        values, weights = values + own / total, weights + positives / total
    return values, weights
