"""Models of an amount on a log: mean absolute error on the test part, resampled over users and seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .. import checks
from ..feedback.amount_contenders import contenders as builders
from ..feedback.generative_regression import vocabulary
from ..feedback.watch_time_study import Study
from .clicks import JUDGED, at_edges, rows_a_step, sample, told
from .scores import Scores

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float
    from torch import Tensor

    from ..data.store import Log

LONGEST = 64  # tokens of an amount


def score(
    data: Log,
    contenders: Mapping[str, None],
    *,
    seeds: Sequence[int],
    tell: Callable[[str], None],
    tick: float = 0.0,
    bins: int = 30,
    rates: Sequence[float] = (0.001, 0.003, 0.01),
    epochs: int = 10,
    batch_size: int = 0,
) -> Scores:
    """Train every contender at equal dense weights, its epoch chosen on the validation part.

    The metric is relative: the error over that of a constant, the median of the training part.

    contenders: names of `paperlab.feedback.amount_contenders.contenders`.
    tick: the unit of sequences of tokens, in the amount's; 0 takes `natural_tick`.
    bins: of "quantile bins" and "ordinal".
    rates: Adam's, tried at the first seed; one more where the best lies at an end.
    epochs: passes; the one with the least validation error counts.
    batch_size: 0 takes `paperlab.scoring.clicks.rows_a_step`.
    Raises ValueError where the training median is right for all test rows, and where an amount takes
    more than 64 tokens.
    """
    checks.at_least(0, tick=tick)
    amounts, median = data.test.labels[:, 0], data.train.labels[:, 0].median()
    flat = (amounts - median).abs()
    constant = flat.mean().item()
    if not constant:
        raise ValueError(f"{data.name}.test has the amount {median:g} alone: nothing to predict")
    tick = tick or natural_tick(data.train.labels[:, 0])
    if (tokens := longest(data.train.labels[:, 0], tick)) > LONGEST:
        raise ValueError(
            f"{data.name}: an amount takes {tokens:,} tokens, more than {LONGEST}: "
            f"--set tick={10 * tick:g} takes fewer, or cut off the largest amounts"
        )
    build = builders(data, tick=tick, bins=bins)
    study = Study(rates, {"epochs": epochs, "batch_size": batch_size or rows_a_step(data)})
    picked = sample(len(amounts), JUDGED)
    rows, units = [], {}
    for seed in seeds:
        for name in contenders:
            row = study.train(name, data, build, seed)
            rows.append(row | {"relative MAE": row["mae"] / constant})
            errors = (study.models[name].predict(data.test) - amounts).abs()
            units[name, seed] = (errors / constant)[picked].numpy()
            tell(told(row, "MAE", row["mae"]))
        units["constant", seed] = (flat / constant)[picked].numpy()
        blank = {"log": data.name, "dense": 0, "lr": None, "seconds": 0.0, "edge": False}
        floor = {"model": "constant", "seed": seed, "mae": constant, "xauc": 0.5}
        rows.append(blank | floor | {"relative MAE": 1.0})
    users = data.user("test")
    return Scores(
        rows,
        "relative MAE",
        units,
        "two-level",
        ["constant"],
        better="lower",
        columns=("mae", "xauc", "dense", "lr", "seconds"),
        clusters=None if users is None else users[picked].numpy(),
        notes=[f"relative MAE: 1 is the error of the constant {median:g}", *at_edges(rows)],
    )


def natural_tick(amounts: Float[Tensor, " n"]) -> float:
    """A power of ten: at most a fiftieth of the median of the amounts above 0, which are needed.

    A tenth of a second where that median lies between 5 and 50 seconds.
    """
    middle = amounts[amounts > 0].median().item()
    return 10.0 ** math.floor(math.log10(middle / 50) + 1e-6)


def longest(amounts: Float[Tensor, " n"], tick: float) -> int:
    """Tokens of the amount that takes most of them, without eos."""
    left = (amounts / tick).round().long()
    count = 0 * left
    for value in vocabulary(left.numpy()):
        count += left // value
        left = left % value
    return int(count.max())
