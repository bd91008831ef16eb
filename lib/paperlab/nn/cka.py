"""Linear CKA: Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def linear_cka(x: Float[Tensor, "n p"], y: Float[Tensor, "n q"]) -> float:
    """|Y^T X|^2 / (|X^T X| |Y^T Y|) in Frobenius norms of centred columns, in [0, 1].

    1 for representations that are equal up to a rotation and a scale; near 0 for unrelated ones only
    where n is much larger than p and q. NaN when one of them is constant.
    Raises ValueError for other than two matrices of equally many rows.
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(
            f"x and y must be matrices of equally many rows, got {tuple(x.shape)}, {tuple(y.shape)}"
        )
    x, y = ((t - t.mean(0)).double() for t in (x, y))
    return ((y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())).item()
