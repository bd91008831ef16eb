"""Median of means, an average that outliers do not move far. (A start: put the paper's method here.)

Title of the paper. (Name authors, venue and arXiv id.)

    m_b = mean of block b, b = 1..k       1. k blocks of equal size
    estimate = median(m_1, ..., m_k)      2. wrong only when half the blocks are

Say here which equations are the paper's, what its released code does differently, and what you add.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import checks

if TYPE_CHECKING:
    from jaxtyping import Float

SHAPE = 2.1  # of the Pareto tail: the variance is finite, the third moment is not


def median_of_means(
    x: Float[np.ndarray, "*repeats n"], blocks: int
) -> Float[np.ndarray, "*repeats"]:
    """Equations 1 and 2 along the last axis; the last n mod ``blocks`` values are left out.

    blocks: 1 is the mean, n the median. Raises ValueError outside 1..n.
    """
    checks.whole(blocks=blocks)
    n = x.shape[-1]
    checks.whole(blocks, n=n)
    size = n // blocks
    cut = x[..., : size * blocks].reshape(*x.shape[:-1], blocks, size)
    return np.median(cut.mean(-1), -1)


def sample(tail: str, repeats: int, n: int, seed: int) -> Float[np.ndarray, "repeats n"]:
    """Independent values whose mean is 1. tail: "normal" (sd 1), or "heavy" (Pareto, to the right)."""
    checks.one_of(("normal", "heavy"), tail=tail)
    checks.whole(repeats=repeats, n=n)
    draw = np.random.default_rng([seed, n])
    if tail == "normal":
        return 1 + draw.normal(0, 1, (repeats, n))
    return 1 + draw.pareto(SHAPE, (repeats, n)) - 1 / (SHAPE - 1)
