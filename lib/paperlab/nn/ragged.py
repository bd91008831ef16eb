"""Combiners of ragged features: the vectors of each row's values to one vector a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import checks

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def combine(
    vectors: Float[Tensor, "n d"],
    offsets: Int[Tensor, " B+1"],
    how: str = "sum",
    *,
    weights: Float[Tensor, " n"] | None = None,
    tile: int = 1,
) -> Float[Tensor, "B D"]:
    """Row b combines vectors offsets[b]..offsets[b + 1] - 1; a row without any is zero.

    how: "sum" and "mean", D = d, weighted where ``weights`` are given (the mean is divided by their
        sum); or "tile", the first ``tile`` vectors side by side, D = tile * d, padded with zeros.
    offsets: from 0 to n, never falling.
    Raises ValueError for other offsets, another ``how``, and weights beside "tile".
    """
    checks.one_of(("sum", "mean", "tile"), how=how)
    checks.whole(tile=tile)
    sizes = offsets.diff()
    if offsets[0] != 0 or offsets[-1] != len(vectors) or (sizes < 0).any():
        raise ValueError(f"offsets must rise from 0 to {len(vectors)}, the number of vectors")
    row = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
    if how == "tile":
        if weights is not None:
            raise ValueError("weights have no meaning for tile")
        place = torch.arange(len(vectors), device=row.device) - offsets[row]
        first = place < tile
        tiles = vectors.new_zeros(len(sizes), tile, vectors.shape[1])
        return tiles.index_put((row[first], place[first]), vectors[first]).flatten(1)
    w = vectors.new_ones(len(vectors)) if weights is None else weights
    total = vectors.new_zeros(len(sizes), vectors.shape[1])
    total = total.index_add(0, row, vectors * w[:, None])
    if how == "sum":
        return total
    weight = w.new_zeros(len(sizes)).index_add(0, row, w)
    return torch.where(weight[:, None] == 0, 0.0, total / weight[:, None])
