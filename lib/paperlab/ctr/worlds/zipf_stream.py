"""A stream of ids with Zipf's frequencies and known weights, whose ids may be replaced over time.

    P(rank r) ~ r^-exponent in each field,   y ~ Bernoulli(sigmoid(bias + sum_f w_f[id_f]))

with w ~ N(0, scale^2 / fields), so that given enough data an additive model is exact, and whatever a
table loses is due to shared rows or to too few occurrences. With drift, after every ``every`` training
rows a share of each field's ids gives its ranks to new ids, with new weights; validation and test
rows follow the last training rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ... import checks
from ...data.schema import Field, Schema
from ...data.store import Log, from_arrays

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class ZipfTruth:
    """What the generator knows, by field (row) and id (column).

    bias. weights: of each id. frequency: P(id) in the test part; 0 for an id that was replaced.
    ids, logits, seen: of the test rows: ids, true logits, occurrences of each id in training.
    """

    bias: float
    weights: Float[Tensor, "F V"]
    frequency: Float[Tensor, "F V"]
    ids: Int[Tensor, "n F"]
    logits: Float[Tensor, " n"]
    seen: Int[Tensor, "n F"]

    def rare(self, fewer: int = 5, least: int = 2) -> Bool[Tensor, " n"]:
        """Test rows with at least ``least`` ids that training had ``fewer`` than so many times."""
        return (self.seen < fewer).sum(1) >= least

    def best_shared(self, buckets: Int[Tensor, "F V"]) -> Float[Tensor, "F V"]:
        """The best weight of each id when ids in one bucket must share: least squares in the logit.

        It is the mean of the bucket's weights by frequency; 0 where nothing in the bucket is drawn.
        """
        place, f = buckets.flatten(), self.frequency.flatten()
        zeros = f.new_zeros(int(place.max()) + 1)
        total = zeros.index_add(0, place, f * self.weights.flatten().double())
        mass = zeros.index_add(0, place, f)
        return torch.where(mass > 0, total / mass, 0.0)[place].view_as(self.weights)

    def logits_of(self, weights: Float[Tensor, "F V"]) -> Float[Tensor, " n"]:
        """Logits of the test rows under other weights."""
        return self.bias + weights.gather(1, self.ids.T.long()).sum(0)


def zipf_stream(
    rows: int,
    *,
    fields: int = 6,
    ids: int = 20_000,
    exponent: float = 1.1,
    scale: float = 1.5,
    bias: float = -1.5,
    drift: float = 0.0,
    every: int = 10_000,
    valid: int = 20_000,
    held: int = 50_000,
    seed: int = 0,
) -> Log:
    """A log of ``rows`` training, ``valid`` validation and ``held`` test rows, in the stream's order.

    ids: of each field at any time, >= 2; the first ids are the most frequent. exponent > 0; scale
    >= 0, the standard deviation of the logit by its weights. drift: in [0, 1], the share of a
    field's ids that is replaced after each ``every`` training rows.
    Raises ValueError for values out of range.
    """
    checks.whole(rows=rows, fields=fields, every=every, valid=valid, held=held)
    checks.whole(2, ids=ids)
    checks.positive(exponent=exponent)
    checks.at_least(0, scale=scale)
    checks.inside("[0, 1]", drift=drift)
    draw = np.random.default_rng([seed, 11])
    law = np.arange(1, ids + 1.0) ** -exponent
    law /= law.sum()
    bounds = law.cumsum() / law.sum()
    sizes = [min(every, rows - k) for k in range(0, rows, every)]
    fresh = round(drift * ids)  # new ids a field and period
    total = ids + fresh * (len(sizes) - 1)
    weights = draw.standard_normal((fields, total)) * scale / fields**0.5
    alive = np.tile(np.arange(ids), (fields, 1))  # the id that has each rank
    parts = []
    for k, size in enumerate([*sizes, valid + held]):
        ranks = np.searchsorted(bounds[:-1], draw.random((size, fields)))
        parts.append(alive[np.arange(fields), ranks])
        if k < len(sizes) - 1 and fresh:  # the test part has the ids of the last training rows
            for f in range(fields):
                start = ids + k * fresh
                alive[f, draw.permutation(ids)[:fresh]] = np.arange(start, start + fresh)
    drawn = np.concatenate(parts)
    field = np.arange(fields)
    logits = bias + weights[field, drawn].sum(1)
    labels = draw.random(len(logits)) < 1 / (1 + np.exp(-logits))
    seen = np.zeros((fields, total), np.int64)
    for f in range(fields):
        seen[f] = np.bincount(drawn[:rows, f], minlength=total)
    frequency = np.zeros((fields, total))
    frequency[field[:, None], alive] = law
    test = drawn[rows + valid :]
    truth = ZipfTruth(
        bias,
        _padded(weights),
        _padded(frequency),
        torch.from_numpy(test + 1),
        torch.from_numpy(logits[rows + valid :]),
        torch.from_numpy(seen[field, test]),
    )
    schema = Schema(tuple(Field(f"field_{f}", size=total + 1) for f in range(fields)))
    part = np.repeat(np.int8([0, 1, 2]), [rows, valid, held])
    name = f"zipf_{rows}" + ("_drift" if fresh else "")
    return from_arrays(name, schema, drawn + 1, labels[:, None], part, truth=truth)


def _padded(by_id: np.ndarray) -> Tensor:
    """With a column for id 0, which is out-of-vocabulary."""
    return torch.from_numpy(np.pad(by_id, ((0, 0), (1, 0))))
