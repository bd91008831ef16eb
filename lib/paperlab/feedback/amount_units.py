"""Values of test rows and of users whose means are MAE and XAUC: what intervals over users need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int


def xauc_by_row(predicted: Float[Tensor, " n"], actual: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Values of rows whose mean is `metrics.xauc` and whose variance is that of its linearisation.

    A row's value is U + 2 (w - U d) / mean d: d pairs of it have unequal amounts, and w of them are
    ordered alike, a tie of predictions counting one half (Hajek's projection). n^2 steps.
    """
    won, unequal = [], []
    for rows in torch.arange(len(actual)).split(512):
        way = (actual[rows, None] - actual).sign()
        won.append(
            (way != 0)
            .double()
            .mul(0.5 + 0.5 * way * (predicted[rows, None] - predicted).sign())
            .sum(1)
        )
        unequal.append((way != 0).double().sum(1))
    won, unequal = torch.cat(won), torch.cat(unequal)
    share = won.sum() / unequal.sum()
    return share + 2 * (won - share * unequal) / unequal.mean()


def by_user(
    values: Float[Tensor, " n"], users: Int[Tensor, " n"]
) -> tuple[Float[np.ndarray, " u"], Float[np.ndarray, " u"]]:
    """Sums of a row's values, and numbers of rows, by user in the order of their keys."""
    _, place = users.unique(return_inverse=True)
    sums = torch.zeros(int(place.max()) + 1, dtype=torch.float64)
    return sums.index_add(0, place, values.double()).numpy(), place.bincount().double().numpy()
