"""Click models on tables of ids of any size, as RecIS trains them.

RecIS team (Alibaba), *RecIS: Sparse to Dense, A Unified Training Framework for Recommendation
Models*, arXiv 2509.20883. The parts stand in `paperlab.nn`: id_maps (ids to rows), tables (lookup,
growth, eviction, merging), table_adam (updates), sharded, ragged (combiners). Here a model is put
together from them: logistic regression, or the DeepFM of RecIS's example, on any table.
Ours: rows are read in the order of the log, as a stream is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .. import checks, metrics
from ..data.in_order import InOrder
from ..data.schema import Schema
from ..data.store import Batch, Log, Split
from ..nn.click import ClickModel
from ..nn.id_maps import encode
from ..nn.mlp import MLP
from ..nn.table_adam import TableAdam
from ..nn.tables import GrowingTable, HashedTable, Table
from .baselines.fm import first_order, pairwise

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Int

    from .worlds.zipf_stream import ZipfTruth


def codes(ids: Int[Tensor, "n F"]) -> Int[Tensor, "n F"]:
    """Ids of all fields in one space: the field's number in the upper bits."""
    return encode(ids, torch.arange(ids.shape[1], device=ids.device))


def frequent(split: Split, most: int) -> Int[Tensor, " k"]:
    """The ``most`` most frequent codes of a part, fewer where it has fewer; ties by code."""
    checks.whole(most=most)
    found, counts = codes(split.ids).unique(return_counts=True)
    return found[counts.argsort(descending=True, stable=True)[:most]]


def excess(logits: Float[Tensor, " n"], truth: ZipfTruth) -> dict[str, float]:
    """Excess log loss of predictions for a world's test rows, in thousandths of a nat (mn).

    excess: mean KL divergence of the true probability to the prediction.
    rare excess: the same on rows with two or more ids that training had fewer than five times; NaN
        where there is no such row.
    """
    p, rare = truth.logits.sigmoid(), truth.rare()
    few = 1e3 * metrics.kl(logits[rare], p[rare]) if rare.any() else nan
    return {"excess": 1e3 * metrics.kl(logits, p), "rare excess": few}


class Recis(ClickModel):
    """b + sum_f w_f, and with vectors of ``dim`` >= 1 columns also DeepFM's pairs and MLP.

    table: width -> a table, which gives w_f (and the vector e_f) of each categorical field's id.
    dim: columns of e_f; 0 is logistic regression.
    widths: hidden units of the MLP on all e_f; none without e_f.
    lr: of dense weights and tables. adam: the other options of `TableAdam`.
    Raises ValueError for values out of range and a schema of other fields than categorical ones.
    """

    select = ("logloss", "lower")

    def __init__(
        self,
        schema: Schema,
        table: Callable[[int], Table],
        *,
        dim: int = 0,
        widths: Sequence[int] = (64,),
        lr: float = 1e-3,
        adam: Mapping[str, object] | None = None,
    ):
        checks.whole(0, dim=dim)
        if len(schema.categorical) < len(schema.fields):
            raise ValueError("Recis takes categorical fields only")
        super().__init__(schema, 1, lr=lr)
        self.embed = table(1 + dim)  # in place of the fields' table of a fixed size
        self.bias = nn.Parameter(torch.zeros(()))
        self.mlp = MLP(self.n_fields * dim, widths, out=1) if dim else None
        self.adam = dict(adam or {})

    def start_at(self, split: Split) -> Recis:
        """Set b to the log odds of a part's mean label."""
        rate = split.labels[:, 0].mean().clamp(1e-6, 1 - 1e-6)
        self.bias.data.copy_(rate.logit())
        return self

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        rows = self.embed(codes(batch.ids))
        if self.mlp is None:
            return self.bias + rows.sum((1, 2))
        w, e = first_order(rows)
        return self.bias + w + pairwise(e) + self.mlp(e.flatten(1)).squeeze(1)

    def configure_optimizers(self) -> TableAdam:
        return TableAdam(self, lr=self.lr, **self.adam)

    def batches(self, split: Split, batch_size: int, seed: int) -> InOrder:
        return InOrder(split, batch_size)

    def evaluate(self, log: Log, part: str = "test") -> dict[str, float]:
        """AUC and log loss; on the test part of a world with known logits also `excess`."""
        scores = super().evaluate(log, part)
        if part == "test" and hasattr(log.truth, "logits"):
            scores |= excess(self.predict(log.test), log.truth)
        return scores

    def count_parameters(self) -> dict[str, int]:
        return {
            "dense": sum(p.numel() for p in self.parameters() if p.requires_grad),
            "embedding": len(self.embed) * self.embed.dim,
        }


def contenders() -> dict[str, Callable[[Schema, int | None], ClickModel]]:
    """What `paperlab.tryout` compares on a reader's log: DeepFM on growing and on hashed rows."""

    def build(share: float | None):
        def made(schema: Schema, width: int | None) -> ClickModel:
            rows = sum(f.size for f in schema.categorical)
            hashed = share and max(1, int(share * rows))
            return Recis(
                schema,
                lambda d: HashedTable(hashed, d, 0.01) if hashed else GrowingTable(d, 0.01),
                dim=8,
            )

        return made

    return {"RecIS": build(None), "hashed, 1/4 of the rows": build(0.25)}
