"""Metrics of ranked clicks as pure functions of tensors.

A tie of a positive and a negative counts one half. Vectors of other lengths, scores that are NaN
and labels other than 0 and 1 are refused (ValueError). Standard definitions; the grouped AUC follows
Zhu et al. 2017 (DIN).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

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
