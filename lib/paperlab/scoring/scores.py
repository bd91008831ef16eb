"""What every kind of scoring gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class Scores:
    """What every contender reached on one data set: what a kind's ``score`` returns.

    rows: one a contender and seed, with ``model``, ``seed``, the metric and ``seconds``.
    metric, better: the compared column, and whether "higher" or "lower" is better.
    columns: other columns of the rows that a reader should see.
    units: values by test unit of each (contender, seed); labels, weights, clusters: see `evidence.Units`.
    evidence: "auc" for units with labels, "two-level" for others, "t" where rows are the evidence.
    pair: the column of the rows whose values are independent repetitions.
    floor: trivial rivals, as in `verdict.claim`.
    """

    rows: list[dict]
    metric: str
    units: dict[tuple[str, int], Float[np.ndarray, " units"]]
    evidence: str
    floor: list[str | float]
    better: str = "higher"
    pair: str = "seed"
    columns: tuple[str, ...] = ()
    labels: Int[np.ndarray, " units"] | None = None
    weights: Float[np.ndarray, " units"] | None = None
    clusters: Int[np.ndarray, " units"] | None = None
    notes: list[str] = field(default_factory=list)
