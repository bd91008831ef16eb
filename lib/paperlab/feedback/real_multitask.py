"""Several labels of a row on real data: multi-task models of equal size, and Census-Income's two labels.

Census-Income (KDD): income above 50,000 dollars, and never married, the pair of Ma et al., "Modeling
Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018. The labels are
no funnel: of those who earn more, few never married. Only the official test part is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import intervals
from ..data import catalogue, fetch
from ..data.formats import parquet
from ..data.schema import Field, Schema
from ..data.sets.census_income import AMOUNTS, COLUMNS
from ..data.store import Log, from_arrays
from ..nn.budget import width_for
from .baselines.aitm import AITM
from .baselines.linear import LogisticRegression
from .baselines.mmoe import MMoE
from .baselines.ple import PLE
from .baselines.shared_bottom import SharedBottom
from .real_videos import known_ids
from .resflow import ResFlow
from .resflow_studies import trained

if TYPE_CHECKING:
    import polars as pl
    from jaxtyping import Float

WIDTH = 64  # of the separate towers' first layer; all other models get as many dense weights
SHARES = (
    0.6,
    0.8,
)  # of the groups of equal rows: trained on up to the first, validated up to the second
LABELS = ("never_married", "income")  # dense to sparse


def _towers(schema: Schema, width: int, **options: Any) -> ResFlow:
    return ResFlow(schema, widths=(width, (width + 1) // 2), **options)


def _shared_bottom(schema: Schema, width: int, **options: Any) -> SharedBottom:
    return SharedBottom(schema, bottom=(width,), widths=((width + 1) // 2,), **options)


def _mmoe(schema: Schema, width: int, **options: Any) -> MMoE:
    return MMoE(schema, experts=4, expert=(width,), widths=((width + 1) // 2,), **options)


def _ple(schema: Schema, width: int, **options: Any) -> PLE:
    return PLE(schema, expert=(width,), widths=((width + 1) // 2,), **options)


def _aitm(schema: Schema, width: int, **options: Any) -> AITM:
    return AITM(schema, widths=(width, (width + 1) // 2), **options)


BASE = "separate towers"
ARMS = {  # of a schema and a width
    BASE: partial(_towers, fr=False, combine="separate"),
    "shared bottom": _shared_bottom,
    "MMoE": _mmoe,
    "PLE": _ple,
    "AITM": _aitm,
    "ESMM": partial(_towers, fr=False, combine="product"),
    "ResFlow": _towers,
}
PARTS = {
    "logit residual": partial(_towers, fr=False),
    "ResFlow, clamped": partial(_towers, clamp=True),
}


def runs(
    log: Log,
    seeds: Sequence[int],
    rates: Sequence[float],
    chosen_by: str,
    arms: Mapping[str, Callable] = ARMS,
    **options: Any,
) -> tuple[list[dict], list[dict]]:
    """Logistic regression and ``arms`` on a log: rows of results, and `gaps` of every label's AUC.

    rates: tried at the first seed of every model, and widened. chosen_by: the label whose validation
    log loss chooses rate and pass, or ``all``. arms: functions of a schema and a width, which becomes
    that of as many dense weights as separate towers have. options: of `loop.fit`.
    A row has ``falls``: the share of test rows whose logits do not rise along the chain.
    Raises ValueError where a model has no width of as many dense weights as the separate towers.
    """
    weights = ARMS[BASE](log.schema, WIDTH).count_parameters()["dense"]
    sized = {"logistic regression": LogisticRegression}
    for name, arm in arms.items():
        sized[name] = partial(arm, width=width_for(partial(arm, log.schema), weights))
    rows, logits = [], {name: [] for name in sized}
    for name, arm in sized.items():
        arm = partial(arm, chosen_by=chosen_by)
        for row, model in trained(name, arm, log, seeds, rates, **options):
            s = model.predict_all(log.test)
            rows.append(row | {"falls": (s.diff(dim=1) <= 0).all(1).double().mean().item()})
            logits[name].append(s.numpy())
    return rows, gaps(log, {name: np.stack(found) for name, found in logits.items()})


def gaps(
    log: Log, logits: Mapping[str, Float[np.ndarray, "seeds n K"]], base: str = BASE
) -> list[dict]:
    """AUC of each label of the test part, of every model minus ``base``: label, model, value, low, high.

    The 95 % intervals cover seeds and test rows, those of one user (or group) together.
    """
    found, clusters = [], log.user("test").numpy()
    for k, label in enumerate(log.schema.labels):
        positive = log.test.labels[:, k].numpy().astype(bool)
        for name in logits:
            if name != base:
                scores, against = logits[name][..., k], logits[base][..., k]
                gap = intervals.auc(positive, scores, against, clusters)
                low, high = map(float, gap.interval(0.95))
                row = {"label": label, "model": name, "value": float(gap.value)}
                found.append(row | {"low": low, "high": high})
    return found


def census(seed: int = 0) -> Log:
    """Census-Income's test part. Raises FileNotFoundError that says which file to get."""
    import polars as pl

    entry = catalogue.entry("census-income")
    if fetch.local_form(entry):
        (frame,) = parquet.local(entry)
    else:
        path = fetch.official(entry, entry.files[0].name)
        with fetch.reading(path):
            frame = pl.read_csv(path, has_header=False, new_columns=COLUMNS)
    return of_table(frame, seed)


def of_table(frame: pl.DataFrame, seed: int = 0) -> Log:
    """A log of the published table, split at random; rows of equal features stay in one part.

    frame: ``marital_stat``, ``income_50k`` and features; ``instance_weight`` is no feature.
    Fields are the features' values that the training part has; amounts of money are first bucketised
    as counts are, x > 2 to floor(ln(x)^2). ``users`` of the log number the groups of equal features.
    """
    import polars as pl

    frame = frame.with_columns(pl.col(pl.String).str.strip_chars())
    labels = [
        frame["marital_stat"] == "Never married",
        frame["income_50k"].cast(pl.String).str.contains("50000+", literal=True),
    ]
    columns = {}
    for name in frame.columns:
        if name in ("marital_stat", "income_50k", "instance_weight"):
            continue
        values = frame[name]
        if name in AMOUNTS:
            amounts = values.cast(pl.Int64).to_numpy()
            values = pl.Series(
                np.where(amounts > 2, np.log(amounts.clip(1)) ** 2, amounts).astype(int)
            )
        columns[name] = values.rank("dense").to_numpy().astype(np.int32)
    group = pl.DataFrame(columns).select(pl.struct(pl.all()).rank("dense")).to_series().to_numpy()
    drawn = np.random.default_rng(seed).random(int(group.max()) + 1)
    part = np.searchsorted(SHARES, drawn)[group]
    ids = {name: known_ids(column, part == 0, 1) for name, column in columns.items()}
    fields = tuple(Field(name, size=int(column.max()) + 1) for name, column in ids.items())
    return from_arrays(
        "census-income",
        Schema(fields, labels=LABELS),
        np.stack([*ids.values()], 1),
        np.stack([label.to_numpy() for label in labels], 1),
        part,
        users=group,
    )
