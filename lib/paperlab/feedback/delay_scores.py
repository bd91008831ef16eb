"""Scores of conversion rates and delays, at the end and by day, beside two rivals that fit nothing.

A click has converted by day d with the chance v F(d), F(d) = sum_{s<=d} f(s). ESMM takes what it
has seen for final: v on every day. The oracle, whose log is complete, has the histogram of its
delays as f. The rivals: ESMM's v divided by the share of conversions that its log had seen, with
that log's histogram; and one rate for all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from .. import metrics
from .esdf import ESDF

if TYPE_CHECKING:
    from jaxtyping import Float, Num
    from torch import Tensor

    from ..data.store import Log
    from .worlds.delays import DelaysTruth

HISTOGRAM = "ESMM + histogram"


def converted_by(
    conversion: Float[Tensor, " n"], delay: Float[Tensor, "n slots"]
) -> Float[Tensor, "n slots"]:
    """Logits of the chance that a click has converted by each day, from logits of v and f."""
    chance = conversion.double().sigmoid()[:, None] * delay.double().cumsum(1).clamp(max=1.0)
    return torch.logit(chance, eps=1e-12)


def histogram(log: Log, days: int = 7) -> Float[Tensor, "n slots"]:
    """The training log's histogram of delays, as `ESDF.start_at` corrects it, for every test row."""
    return ESDF(log.schema, delay="global", days=days).start_at(log.train).delays(log.test)


def with_rivals(
    name: str, model: ESDF, log: Log
) -> Iterator[tuple[str, Float[Tensor, " n"], Float[Tensor, "n slots"]]]:
    """Name, logits of v and f of the test rows: the model's; after ESMM and the oracle a rival's.

    ESMM is followed by `HISTOGRAM`, the oracle by "constant": the rate and the histogram of its log.
    A model without a delay has all of f on day 0, the oracle the histogram.
    """
    score, slots = model.predict(log.test), model.slots
    f = histogram(log, slots - 1)
    if model.delay is not None:
        yield name, score, model.delays(log.test)
    else:
        at_once = torch.eye(slots)[:1].expand(len(score), slots)
        yield name, score, f if name == "oracle" else at_once
    y, z, _, e = log.train.labels.unbind(1)
    clicked = y == 1
    if name == "ESMM":
        seen = f[0].cumsum(0)[e[clicked].long().clamp(max=slots - 1)].mean()
        yield HISTOGRAM, torch.logit(score.sigmoid() / seen, eps=1e-6), f
    elif name == "oracle":
        rate = torch.logit(z[clicked].mean())
        yield "constant", rate.expand(len(score)), f


def against_truth(
    truth: DelaysTruth, score: Float[Tensor, " n"], delay: Float[Tensor, "n slots"]
) -> dict[str, float | list[float]]:
    """Bias, divergence and exact AUC of logits of v; "by day": the divergence of v F(d), in nats.

    bias: predicted over true rate, weighted by clicks, minus 1.
    """
    bias = metrics.calibration_ratio(score.sigmoid(), truth.conversion, truth.click) - 1
    true = truth.conversion[:, None] * truth.delay.cumsum(1).clamp(max=1.0)
    by_day = [metrics.kl(x, p) for x, p in zip(converted_by(score, delay).T, true.T, strict=True)]
    end = {"KL": metrics.kl(score, truth.conversion)}
    end["AUC"] = metrics.exact_auc(score, truth.conversion)
    return {"bias": bias, "size of bias": abs(bias)} | end | {"by day": by_day}


def against_labels(
    labels: Num[Tensor, "n 4"], score: Float[Tensor, " n"], delay: Float[Tensor, "n slots"]
) -> dict[str, float | list[float]]:
    """Log loss, AUC and bias of logits of v on clicks; "by day": log loss of v F(d), in nats.

    labels: columns `esdf.LABELS`, with all conversions known.
    """
    y, d = labels[:, 1], labels[:, 2]
    by_day = [
        metrics.logloss(x, y * (d <= day)) for day, x in enumerate(converted_by(score, delay).T)
    ]
    bias = metrics.calibration_ratio(score.sigmoid(), y) - 1
    end = {"logloss": metrics.logloss(score, y), "auc": metrics.auc(score, y)}
    return end | {"bias": bias, "by day": by_day}
