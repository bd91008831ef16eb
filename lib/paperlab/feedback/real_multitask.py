"""Several labels of a row on real data: multi-task models of equal size, and two censuses.

Census-Income (KDD) and Adult (UCI): income above 50,000 dollars, and never married, the pair of Ma et
al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018.
The labels are no funnel: of those who earn more, few never married. Of Census-Income only the official
test part is used.
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
from .resflow_studies import best_rate, trained

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

    rates: tried at the first two seeds of every model, and widened (`best_rate`). chosen_by: the label whose validation
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
        best = best_rate(name, arm, [(log, seed) for seed in seeds[:2]], rates, **options)
        for row, model in trained(name, arm, log, seeds, best["lr"], **options):
            s = model.predict_all(log.test)
            rows.append(row | best | {"falls": (s.diff(dim=1) <= 0).all(1).double().mean().item()})
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
    frame = frame.with_columns(pl.col(pl.String).str.strip_chars())
    labels = {
        "marital_stat": frame["marital_stat"] == "Never married",
        "income_50k": frame["income_50k"].cast(pl.String).str.contains("50000+", literal=True),
    }
    return of_table("census-income", frame.drop("instance_weight"), labels, AMOUNTS, seed)


def adult(seed: int = 0) -> Log:
    """Adult, both parts. Raises FileNotFoundError that says which file to get."""
    from ..data.sets import adult

    frame = adult.table(catalogue.entry("uci-adult"))
    labels = {
        "marital_status": frame["marital_status"] == "Never-married",
        "income": frame["income"] == ">50K",
    }
    # husbands and wives have married: that column would tell the first label
    features = frame.drop("fnlwgt", "relationship")
    return of_table("uci-adult", features, labels, adult.AMOUNTS, seed)


def of_table(
    name: str,
    frame: pl.DataFrame,
    labels: Mapping[str, pl.Series],
    amounts: Sequence[str],
    seed: int = 0,
) -> Log:
    """A log of `LABELS`, split at random; rows of equal features stay in one part.

    frame: features, and the columns ``labels`` are made of, which are none. labels: column -> 0/1.
    Fields are the features' values that the training part has; ``amounts`` of money are first
    bucketised as counts are, x > 2 to floor(ln(x)^2). ``users`` of the log number the groups of equal
    features.
    """
    import polars as pl

    columns = {}
    for column in frame.drop(labels).columns:
        values = frame[column]
        if column in amounts:
            money = values.cast(pl.Int64).to_numpy()
            buckets = np.where(money > 2, np.log(money.clip(1)) ** 2, money).astype(int)
            values = pl.Series(buckets)
        columns[column] = values.rank("dense").to_numpy().astype(np.int32)
    group = pl.DataFrame(columns).select(pl.struct(pl.all()).rank("dense")).to_series().to_numpy()
    drawn = np.random.default_rng(seed).random(int(group.max()) + 1)
    part = np.searchsorted(SHARES, drawn)[group]
    ids = {column: known_ids(values, part == 0, 1) for column, values in columns.items()}
    fields = tuple(Field(column, size=int(found.max()) + 1) for column, found in ids.items())
    return from_arrays(
        name,
        Schema(fields, labels=LABELS),
        np.stack([*ids.values()], 1),
        np.stack([label.to_numpy() for label in labels.values()], 1),
        part,
        users=group,
    )
