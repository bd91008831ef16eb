"""Scores of watch-time models against the world's known distribution (`worlds.watch_time`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import metrics
from ..data.store import Log
from .generative_regression import READS, GenerativeRegression
from .regressors import AmountModel, L1Regressor
from .worlds.watch_time import SKIP, TICK

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def of_model(model: AmountModel, log: Log, draws: int = 16) -> dict[str, float]:
    """What a model reaches on the test part.

    mae: expected absolute error over the known distribution, in seconds. xauc: against the labels.
    mass gap: see `mass_gap`, of P(y <= 1.5 s); NaN for a model without a distribution. mass: its mean
    over rows. as trained: the same error as the loss sees it at the end of training, in seconds and
    against labels, which generative regression knows there; NaN for others.
    draws: samples a row that give generative regression's probability.
    """
    row = of_predictions(model.predict(log.test), log)
    row |= {"as trained": math.nan, "free": math.nan, "mass": math.nan, "mass gap": math.nan}
    if isinstance(model, GenerativeRegression):
        rho, batch = float(model.teacher == "gold"), log.test.take(slice(0, len(log.test)))
        with torch.no_grad():
            known = model.as_trained(batch, rho)
        row["as trained"] = (known - batch.labels[:, 0]).abs().mean().item()
        row["free"] = (model.predict(log.test) - batch.labels[:, 0]).abs().mean().item()
        near = (model.sample(log.test, draws) <= TICK * (SKIP + 0.5)).float().mean(1)
    elif not isinstance(model, L1Regressor):
        near = model.probability(log.test, TICK * (SKIP + 0.5))
    else:
        return row
    return row | {"mass": near.mean().item(), "mass gap": mass_gap(near.numpy(), near_zero(log))}


def of_predictions(predicted: Float[Tensor, " n"], log: Log) -> dict[str, float]:
    """mae and xauc, as in `of_model`, of any predictions for the test rows, in seconds."""
    error = log.truth.test.error(predicted.numpy())
    return {"mae": error, "xauc": float(metrics.xauc(predicted, log.test.labels[:, 0]))}


def references(log: Log) -> dict[str, dict[str, float]]:
    """Scores of what no model needs to learn, or can learn at best.

    "constant": the training median, and the training share of watches of at most 1.5 s. "true median",
    "true mean": of the known distribution.
    """
    train, known, true = log.train.labels[:, 0], log.truth.test, near_zero(log)
    share = (train <= TICK * (SKIP + 0.5)).float().mean().item()
    constant = of_predictions(train.median().expand(len(log.test)), log)
    found = {"constant": constant | {"mass gap": mass_gap(np.full_like(true, share), true)}}
    for name, values in (("true median", known.median()), ("true mean", known.mean())):
        found[name] = of_predictions(torch.from_numpy(values).float(), log) | {"mass gap": 0.0}
    return found


def readings(model: GenerativeRegression, log: Log, draws: int = 9) -> dict[str, dict[str, float]]:
    """Scores of the ways to decode one trained model, by name: what is fed, how values are read.

    Also the median of ``draws`` sampled amounts. The model's own settings stay.
    """
    own, found = (model.soft, model.read), {}
    for soft in (True, False):
        for how in READS:
            model.soft, model.read = soft, how
            name = f"{'expected' if soft else 'likeliest'} embedding, {how}"
            found[name] = of_predictions(model.predict(log.test), log)
    model.soft, model.read = own
    drawn = model.sample(log.test, draws).median(1).values
    return found | {f"median of {draws} samples": of_predictions(drawn, log)}


def near_zero(log: Log) -> Float[np.ndarray, " n"]:
    """The true P(y <= 1.5 s) of each test row."""
    return log.truth.test.at_most(np.full(len(log.test), SKIP))


def mass_gap(found: Float[np.ndarray, " n"], true: Float[np.ndarray, " n"]) -> float:
    """Mean over fifths of the rows, by the true probability, of |mean found - mean true|.

    The mean over all rows alone is right for a model that gives every row the same probability.
    """
    fifths = np.array_split(np.argsort(true, kind="stable"), 5)
    return float(np.mean([abs(found[rows].mean() - true[rows].mean()) for rows in fifths]))
