"""How many directions an embedding table uses: its effective rank.

It is 1 for a table of rank one and the width for a table that uses all directions alike. It does not
depend on the table's scale. A row that was never trained keeps its random start and makes a table
look richer than what was learned: give the trained rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def effective_rank(table: Float[Tensor, "n d"]) -> float:
    """exp(-sum_i p_i log p_i) with p_i = s_i / sum s, in [1, min(n, d)] (Roy & Vetterli 2007, Eq. 3).

    NaN for a table of zeros. Raises ValueError for a table that is not a matrix with rows.
    """
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"table must be (n, d) with n, d >= 1, got {tuple(table.shape)}")
    values = torch.linalg.svdvals(table.detach().double())
    p = values / values.sum()
    return torch.special.entr(p).sum().exp().item()
