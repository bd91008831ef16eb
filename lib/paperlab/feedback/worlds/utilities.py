"""Categorical fields with known utilities: what the worlds of clicks, orders, delays and watch time share.

A row has F independent fields; value v of 1..V has probability proportional to v^-zipf. A utility is

    u(x) = sqrt(1 - pairs) * sum_f a_f[x_f]  +  sqrt(pairs) * sum_{f<g} <b_f[x_f], b_g[x_g]>

with normal weights, centred under the fields' distribution and scaled so that each of the two sums,
which are then uncorrelated, has mean 0 and variance 1 over rows, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ... import checks
from ...data.schema import Field

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class CategoricalFields:
    """F independent fields of V values each, by Zipf's law.

    count: F, at least 2. values: V, at least 2. zipf: exponent, >= 0; 0 is uniform.
    Raises ValueError for values out of range.
    """

    count: int
    values: int
    zipf: float

    def __post_init__(self):
        checks.whole(2, count=self.count, values=self.values)
        checks.at_least(0, zipf=self.zipf)

    @property
    def shares(self) -> Float[np.ndarray, " V"]:
        """Probabilities of the values 1..V."""
        weight = np.arange(1, self.values + 1, dtype=float) ** -self.zipf
        return weight / weight.sum()

    def draw(self, rows: int, rng: np.random.Generator) -> Int[np.ndarray, "rows F"]:
        """Ids 1..V: 0 is out-of-vocabulary and never occurs."""
        checks.whole(rows=rows)
        return 1 + rng.choice(self.values, size=(rows, self.count), p=self.shares)

    def schema_fields(self) -> tuple[Field, ...]:
        """The fields for a schema: field_1 .. field_F."""
        return tuple(Field(f"field_{f + 1}", size=self.values + 1) for f in range(self.count))

    def utility(self, rng: np.random.Generator, *, pairs: float = 0.25, rank: int = 4) -> Utility:
        """Draw a utility of mean 0 and variance 1.

        pairs: share of the variance that pairs of fields explain, in [0, 1]. rank: of each pair's
        table, >= 1.
        """
        checks.inside("[0, 1]", pairs=pairs)
        checks.whole(rank=rank)
        p, shape = self.shares, (self.count, self.values)
        single = rng.standard_normal(shape)
        single -= single @ p[:, None]
        single /= np.sqrt((single**2 @ p).sum())
        vectors = rng.standard_normal((*shape, rank))
        vectors -= np.einsum("fvr,v->fr", vectors, p)[:, None]
        moment = np.einsum("fvr,fvs,v->frs", vectors, vectors, p)
        whole = moment.sum(0)  # sum over pairs f < g of tr(C_f C_g)
        variance = 0.5 * ((whole * whole).sum() - (moment * moment).sum())
        vectors /= variance**0.25
        return Utility(np.sqrt(1 - pairs) * single, pairs**0.25 * vectors)


@dataclass(frozen=True)
class Utility:
    """A known function of the fields.

    single: a_f[v], scaled. vectors: b_f[v], scaled.
    """

    single: Float[np.ndarray, "F V"]
    vectors: Float[np.ndarray, "F V r"]

    def __call__(self, ids: Int[np.ndarray, "rows F"]) -> Float[np.ndarray, " rows"]:
        """Utility of each row; ids are 1..V."""
        field = np.arange(ids.shape[1])
        alone = self.single[field, ids - 1].sum(1)
        b = self.vectors[field, ids - 1]
        return alone + 0.5 * ((b.sum(1) ** 2).sum(1) - (b**2).sum((1, 2)))
