"""Metrics of ranked clicks, of probabilities and of predicted amounts, as pure functions of tensors.

A tie of a positive and a negative counts one half. Vectors of other lengths, scores that are NaN
and labels other than 0 and 1 are refused (ValueError). Standard definitions; the grouped AUC follows
Zhu et al. 2017 (DIN).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from . import checks

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num


def auc(scores: Float[Tensor, " n"], labels: Num[Tensor, " n"]) -> float:
    """Probability that a positive outranks a negative, in [0, 1]; NaN when a class is missing."""
    pairs, wins, _ = _group_wins(scores, labels, torch.zeros_like(labels, dtype=torch.long))
    return (wins.sum() / pairs.sum()).item()


def gauc(scores: Float[Tensor, " n"], labels: Num[Tensor, " n"], users: Int[Tensor, " n"]) -> float:
    """Mean of the users' AUCs weighted by their rows, in [0, 1]; ties count one half.

    Users with one class only are left out; NaN when none is left.
    """
    pairs, wins, rows = _group_wins(scores, labels, users)
    both = pairs > 0
    weight = rows[both]
    return ((wins[both] / pairs[both] * weight).sum() / weight.sum()).item()


def logloss(logits: Float[Tensor, " n"], labels: Num[Tensor, " n"]) -> float:
    """Mean cross-entropy in nats of logits against 0/1 labels; NaN without rows.

    An infinite logit costs 0 where it is right and infinity where it is wrong.
    """
    _scorable(logits, labels)
    return -F.logsigmoid(torch.where(labels == 1, logits, -logits).double()).mean().item()


def calibrated_logloss(
    logits: Float[Tensor, " n"],
    labels: Num[Tensor, " n"],
    valid_logits: Float[Tensor, " m"],
    valid_labels: Num[Tensor, " m"],
) -> float:
    """`logloss` of a * logit + b, where a and b are fitted on the validation part (Platt 1999).

    What a model gains by it is calibration; what is left depends on how it ranks. Nats. Raises
    ValueError where the validation part lacks a class.
    """
    from scipy.optimize import minimize

    _scorable(valid_logits, valid_labels)
    if len(valid_labels.unique()) < 2:
        raise ValueError("valid_labels must hold both classes")
    x, y = valid_logits.double(), valid_labels.double()

    def loss_and_slope(ab):
        score = ab[0] * x + ab[1]
        off = (score.sigmoid() - y) / len(y)
        value = F.binary_cross_entropy_with_logits(score, y)
        return value.item(), torch.stack([off @ x, off.sum()]).numpy()

    a, b = minimize(loss_and_slope, [1.0, 0.0], jac=True, tol=1e-8).x
    return logloss(a * logits.double() + b, labels)


def temperature(logits: Float[Tensor, " n"], labels: Num[Tensor, " n"]) -> float:
    """The t > 0 that minimises the `logloss` of logits / t (Guo et al. 2017), within [1e-3, 1e3].

    Fit it on a validation part. Above 1: the logits are too confident. Raises ValueError without both
    classes.
    """
    from scipy.optimize import minimize_scalar

    _scorable(logits, labels)
    if len(labels.unique()) < 2:
        raise ValueError("labels must hold both classes")
    x, y = logits.double(), labels.double()

    def loss(log_t: float) -> float:
        return F.binary_cross_entropy_with_logits(x / math.exp(log_t), y).item()

    reach = math.log(1e3)
    return math.exp(minimize_scalar(loss, bounds=(-reach, reach), method="bounded").x)


def exact_auc(scores: Float[Tensor, " n"], probabilities: Float[Tensor, " n"]) -> float:
    """`auc` in expectation over labels drawn with known probabilities: without their noise.

    Row i is a positive with weight p_i and a negative with weight 1 - p_i; a pair is two rows, a tie
    counts one half. The scores p themselves reach the ceiling. NaN where all are 0, or all 1.
    Raises ValueError for probabilities outside [0, 1].
    """
    _known(scores, probabilities)
    order = scores.argsort()
    score, p = scores[order], probabilities[order].double()
    block = score.unique_consecutive(return_inverse=True)[1]
    zeros = torch.zeros(int(block.max()) + 1, dtype=torch.float64)
    negatives = zeros.index_add(0, block, 1 - p)
    below = negatives.cumsum(0) - negatives
    own = p @ (1 - p)  # a row does not meet itself
    wins = p @ (below + 0.5 * negatives)[block] - 0.5 * own
    return (wins / (p.sum() * (1 - p).sum() - own)).item()


def kl(logits: Float[Tensor, " n"], probabilities: Float[Tensor, " n"]) -> float:
    """Mean Kullback-Leibler divergence of known probabilities from sigmoid(logits), in nats, >= 0.

    What is left of the expected `logloss` after the entropy of the labels. Raises ValueError for
    probabilities outside [0, 1].
    """
    _known(logits, probabilities)
    x, p = logits.double(), probabilities.double()
    entropy = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))
    return (F.binary_cross_entropy_with_logits(x, p, reduction="none") - entropy).mean().item()


def calibration_ratio(
    predicted: Float[Tensor, " n"],
    actual: Num[Tensor, " n"],
    weights: Float[Tensor, " n"] | None = None,
) -> float:
    """Sum of predictions over the sum of outcomes or of their known probabilities; 1 is unbiased.

    weights: >= 0, of the rows; None: equal ones. Infinite where nothing happened.
    """
    w = torch.ones(len(predicted)) if weights is None else weights
    _vectors(predicted=predicted, actual=actual, weights=w)
    return ((w.double() @ predicted.double()) / (w.double() @ actual.double())).item()


def xauc(predicted: Float[Tensor, " n"], actual: Num[Tensor, " n"]) -> float:
    """Share of pairs of rows with unequal amounts that the predictions order alike, in [0, 1].

    A tie of predictions counts one half, a pair of equal amounts does not count (published code may
    count it as wrong: multiply by the share of pairs that differ). NaN without a pair. Equals `auc`
    where the amounts are 0 and 1.
    """
    _vectors(predicted=predicted, actual=actual)
    from scipy.stats import kendalltau

    n = len(actual)
    pairs = n * (n - 1) // 2
    tied = [
        int((c * (c - 1) // 2).sum())
        for c in (t.unique(return_counts=True)[1] for t in (predicted, actual))
    ]
    unequal = pairs - tied[1]
    if not unequal:
        return math.nan
    if pairs == tied[0]:
        return 0.5
    # tau_b = (won - lost) / sqrt((pairs - tied predictions) (pairs - tied amounts))
    tau = kendalltau(predicted.numpy(), actual.numpy()).statistic
    won_minus_lost = tau * math.sqrt((pairs - tied[0]) * unequal)
    return 0.5 + 0.5 * won_minus_lost / unequal


def weighted_recall(
    scores: Float[Tensor, " n"],
    chosen: Num[Tensor, " n"],
    requests: Int[Tensor, " n"],
    k: int,
    weights: Float[Tensor, " n"] | None = None,
) -> float:
    """Weight of the chosen items in their request's first ``k``, over that of all chosen, in [0, 1].

    ResFlow's WR@K (arXiv 2411.09705) as we read it. chosen: 0 or 1. requests: the request of each
    row. weights: >= 0, of the rows; equal ones (None) give micro-averaged recall. Of equal scores
    the earlier row comes first. NaN where nothing was chosen.
    """
    w = torch.ones(len(scores)) if weights is None else weights
    _scorable(scores, chosen, requests)
    _vectors(scores=scores, weights=w)
    checks.whole(k=k)
    order = scores.argsort(descending=True, stable=True)
    order = order[requests[order].argsort(stable=True)]
    _, rows = requests[order].unique_consecutive(return_counts=True)
    first = (rows.cumsum(0) - rows).repeat_interleave(rows)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - first
    gain = w.double() * chosen
    return (gain[rank < k].sum() / gain.sum()).item()


def _vectors(**columns: Tensor) -> None:
    """Refuse columns that are not finite vectors of one length."""
    shapes = [tuple(t.shape) for t in columns.values()]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        have = ", ".join(map(str, shapes))
        raise ValueError(f"{' and '.join(columns)} must be vectors of one length, got {have}")
    for name, values in columns.items():
        if not values.isfinite().all():
            raise ValueError(f"{name} must be finite")


def _known(scores: Tensor, probabilities: Tensor) -> None:
    """Refuse what no metric against known probabilities can score."""
    _vectors(scores=scores, probabilities=probabilities)
    if len(scores) == 0 or ((probabilities < 0) | (probabilities > 1)).any():
        raise ValueError("probabilities must be in [0, 1], of at least one row")


def _scorable(scores: Tensor, labels: Tensor, *users: Tensor) -> None:
    """Refuse what no metric here can score."""
    shapes = [tuple(t.shape) for t in (scores, labels, *users)]
    if len(set(shapes)) > 1 or scores.ndim != 1:
        names = "scores, labels and users" if users else "scores and labels"
        raise ValueError(
            f"{names} must be vectors of one length, got {', '.join(map(str, shapes))}"
        )
    if scores.isnan().any() or any(u.isnan().any() for u in users):
        raise ValueError("scores hold NaN" if scores.isnan().any() else "users hold NaN")
    wrong = labels[(labels != 0) & (labels != 1)]
    if len(wrong):
        raise ValueError(f"labels must be 0 or 1, got {wrong[0].item():g}")


def _group_wins(scores: Tensor, labels: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per group: positive-negative pairs, pairs won (a tie counts one half), rows; float64.

    The Mann-Whitney count: after one sort by (group, score), a positive wins against the group's
    negatives that stand before its block of equal scores.
    """
    _scorable(scores, labels, groups)
    order = scores.argsort()
    order = order[groups[order].argsort(stable=True)]
    score, label, group = scores[order], labels[order].double(), groups[order]
    _, group, rows = group.unique_consecutive(return_inverse=True, return_counts=True)
    new = torch.ones_like(score, dtype=torch.bool)
    new[1:] = (score[1:] != score[:-1]) | (group[1:] != group[:-1])
    block = new.cumsum(0) - 1
    zeros = torch.zeros(len(rows), dtype=torch.float64, device=score.device)
    positives = zeros.index_add(0, group, label)
    negatives = rows - positives
    tied = torch.zeros(int(new.sum()), dtype=torch.float64, device=score.device)
    tied = tied.index_add(0, block, 1 - label)  # negatives of every block
    before = (tied.cumsum(0) - tied)[block] - (negatives.cumsum(0) - negatives)[group]
    wins = zeros.index_add(0, group, label * (before + 0.5 * tied[block]))
    return positives * negatives, wins, rows.double()
