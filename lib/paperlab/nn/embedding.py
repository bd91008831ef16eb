"""One table for all fields: ids of every field in one lookup (ours; the layout of FBGEMM's TBE)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..data.schema import Schema
from ..data.store import Batch

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class FeatureEmbedding(nn.Module):
    """Rows of a batch to field vectors.

    Categorical fields look up one row each of a fused table; a numeric field is its value times a
    vector; a sequence is the mean of its non-padding rows (zero when empty). The order of fields is
    the schema's.

    dim: width of a field vector, >= 1.
    sparse: whether the table's gradient holds only the rows that were read, which
        `paperlab.nn.RowAdam` takes (faster also for small tables); a penalty on the whole table
        needs False.
    std: standard deviation of the initial weights (ours: at BARS's 1e-4 models that normalise
        their first layer, SSR, RankMixer and Wukong, hardly start).
    """

    def __init__(self, schema: Schema, dim: int, sparse: bool = True, std: float = 0.01):
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        own = [*schema.categorical, *(f for f in schema.sequences if f.shares is None)]
        starts, rows = {}, 0
        for f in own:
            starts[f.name] = rows
            rows += f.size
        offsets = [starts[f.name] for f in schema.categorical]
        for f in schema.sequences:
            offsets += [starts[f.shares or f.name]] * f.length
        self.dim, self.n_fields = dim, len(schema.fields)
        self.n_categorical = len(schema.categorical)
        self.lengths = [f.length for f in schema.sequences]
        self.sparse = sparse
        self.register_buffer("offsets", torch.tensor(offsets, dtype=torch.int32), persistent=False)
        self.lookup: Callable[[Tensor, Tensor], Tensor] | None = None  # RowAdam's, while it trains
        self.table = nn.Embedding(rows, dim, sparse=self.sparse)
        nn.init.normal_(self.table.weight, 0, std)
        self.numeric = None
        if schema.numeric:
            self.numeric = nn.Parameter(torch.empty(len(schema.numeric), dim).normal_(0, std))

    def row_ids(self, batch: Batch) -> Int[Tensor, "B C"]:
        """The row of the fused table that each id of the batch stands for."""
        return batch.ids + self.offsets

    def forward(self, batch: Batch) -> Float[Tensor, "B F dim"]:
        ids = self.row_ids(batch)
        rows = self.lookup(self.table.weight, ids) if self.lookup else self.table(ids)
        if self.numeric is None and not self.lengths:
            return rows
        parts = [rows[:, : self.n_categorical]]
        if self.numeric is not None:
            parts.append(batch.numeric[:, :, None] * self.numeric)
        start = self.n_categorical
        for length in self.lengths:
            real = (batch.ids[:, start : start + length] > 0).to(rows.dtype)[:, :, None]
            total = (rows[:, start : start + length] * real).sum(1, keepdim=True)
            parts.append(total / real.sum(1, keepdim=True).clamp(min=1))
            start += length
        return torch.cat(parts, 1)

    def extra_repr(self) -> str:
        rows, dim = self.table.weight.shape
        return f"{self.n_fields} fields, {rows:,} rows x {dim}, sparse={self.sparse}"
