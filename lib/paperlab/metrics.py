"""Metrics of ranked clicks as pure functions of tensors.

Ties count one half everywhere. Standard definitions; the grouped AUC follows Zhu et al. 2017 (DIN).
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
    return (wins / pairs).item()


def gauc(scores: Float[Tensor, " n"], labels: Num[Tensor, " n"], users: Int[Tensor, " n"]) -> float:
    """Mean of the users' AUCs weighted by their rows, in [0, 1].

    Users with one class only are left out; NaN when none is left.
    """
    pairs, wins, rows = _group_wins(scores, labels, users)
    both = pairs > 0
    weight = rows[both]
    return ((wins[both] / pairs[both] * weight).sum() / weight.sum()).item()


def logloss(logits: Float[Tensor, " n"], labels: Num[Tensor, " n"]) -> float:
    """Mean cross-entropy in nats of logits against 0/1 labels."""
    return F.binary_cross_entropy_with_logits(logits.double(), labels.double()).item()


def _group_wins(scores: Tensor, labels: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per group: positive-negative pairs, pairs won (ties one half), rows; float64.

    The Mann-Whitney count from average ranks: one sort by (group, score).
    """
    if not len(scores) == len(labels) == len(groups) or scores.ndim != 1:
        raise ValueError(
            f"scores, labels and users must be vectors of one length, got {tuple(scores.shape)}, "
            f"{tuple(labels.shape)}, {tuple(groups.shape)}"
        )
    if scores.isnan().any():
        raise ValueError("scores hold NaN")
    order = scores.argsort()
    order = order[groups[order].argsort(stable=True)]
    score, label, group = scores[order], labels[order].double(), groups[order]
    _, group, rows = group.unique_consecutive(return_inverse=True, return_counts=True)
    start = (rows.cumsum(0) - rows)[group]
    rank = torch.arange(1, len(score) + 1, device=score.device).double() - start
    new = torch.ones_like(score, dtype=torch.bool)
    new[1:] = (score[1:] != score[:-1]) | (group[1:] != group[:-1])
    tie = new.cumsum(0) - 1
    count = torch.bincount(tie).double()
    rank = (torch.zeros_like(count).index_add_(0, tie, rank) / count)[tie]
    zeros = torch.zeros(len(rows), dtype=torch.float64, device=score.device)
    positives = zeros.index_add(0, group, label)
    wins = zeros.index_add(0, group, rank * label) - positives * (positives + 1) / 2
    return positives * (rows - positives), wins, rows.double()
