"""One table for all fields: ids of every field in one lookup (the layout of FBGEMM's TBE)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from .. import checks
from ..data.schema import Schema
from ..data.store import Batch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


class Interest(NamedTuple):
    """A batch as target attention sees it: D = sequence fields x dim.

    Padding is not zero in ``events`` (it reads the table's row 0): use ``mask``. ``others`` are the
    fields that are neither history nor target.
    """

    events: Float[Tensor, "B T D"]  # oldest first, the most recent last
    target: Float[Tensor, "B D"]
    mask: Bool[Tensor, "B T"]
    others: Float[Tensor, "B O"]


class FeatureEmbedding(nn.Module):
    """Rows of a batch to field vectors, through one lookup.

    Categorical fields look up one row each of a fused table; a numeric field is its value times a
    vector; a sequence is the mean of its real events' rows (zero when there is none). The order of
    fields is the schema's.

    dim: width of a field vector, >= 1.
    sparse: whether the table's gradient holds only the rows that were read, which
        `paperlab.nn.RowAdam` takes (faster also for small tables); a penalty on the whole table
        needs False.
    std: standard deviation of the initial normal weights, >= 0. At BARS's 1e-4 models that
        normalise their first layer (SSR, RankMixer, Wukong) hardly start.
    Raises ValueError for values out of range.
    """

    def __init__(self, schema: Schema, dim: int, sparse: bool = True, std: float = 0.01):
        super().__init__()
        checks.whole(dim=dim)
        checks.at_least(0, std=std)
        own = [*schema.categorical, *(f for f in schema.sequences if f.shares is None)]
        starts, rows = {}, 0
        for f in own:
            starts[f.name] = rows
            rows += f.size
        names = [f.name for f in schema.categorical]
        self.dim, self.n_fields = dim, len(schema.fields)
        self.n_sequences = len(schema.sequences)
        shared = [f.shares for f in schema.sequences]
        self.targets = [names.index(n) for n in shared if n is not None]
        self.rest = [k for k, n in enumerate(names) if n not in shared]
        self.d_events = self.n_sequences * dim
        self.d_others = (len(self.rest) + len(schema.numeric)) * dim
        self.sparse = sparse
        offsets = [starts[n] for n in names]
        history = [starts[f.shares or f.name] for f in schema.sequences]
        for name, values in (("offsets", offsets), ("history_offsets", history)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.int32), persistent=False)
        self.lookup: Callable[[Tensor, Tensor], Tensor] | None = None  # RowAdam's, while it trains
        self.table = nn.Embedding(rows, dim, sparse=self.sparse)
        nn.init.normal_(self.table.weight, 0, std)
        self.numeric = None
        if schema.numeric:
            self.numeric = nn.Parameter(torch.empty(len(schema.numeric), dim).normal_(0, std))

    def forward(self, batch: Batch) -> Float[Tensor, "B F dim"]:
        """One vector a field."""
        rows, events = self._rows(batch)
        parts = [rows]
        if self.numeric is not None:
            parts.append(batch.numeric[:, :, None] * self.numeric)
        if events is not None:
            weight = (batch.history[:, None, :, 0] > 0).to(events.dtype)
            weight = weight / weight.sum(2, keepdim=True).clamp(min=1)
            parts.append((weight @ events).unflatten(2, (self.n_sequences, self.dim))[:, 0])
        return torch.cat(parts, 1) if len(parts) > 1 else rows

    def sequence(self, batch: Batch) -> Interest:
        """Histories event by event, the vectors of the target that stand against them, the rest.

        The target of a sequence field is the categorical field that it shares a table with, so that
        events and target are concatenated in the same order. ``others`` holds the remaining
        categorical fields, then the numeric ones (B, d_others). Widths: ``d_events``, ``d_others``.
        Raises ValueError when the schema has no sequence, or one that shares no table.
        """
        if not self.n_sequences or len(self.targets) < self.n_sequences:
            raise ValueError(
                "sequence: every sequence field must share a categorical field's table, "
                f"{len(self.targets)} of {self.n_sequences} do"
            )
        rows, events = self._rows(batch)
        others = rows[:, self.rest].flatten(1)
        if self.numeric is not None:
            numeric = batch.numeric[:, :, None] * self.numeric
            others = torch.cat([others, numeric.flatten(1)], 1)
        return Interest(events, rows[:, self.targets].flatten(1), batch.history[..., 0] > 0, others)

    def _rows(self, batch: Batch) -> tuple[Float[Tensor, "B C dim"], Float[Tensor, "B T D"] | None]:
        """The table's rows of categorical fields and of events: one lookup for both."""
        ids = batch.ids + self.offsets
        if not self.n_sequences:
            return self._look_up(ids), None
        history = batch.history + self.history_offsets
        rows = self._look_up(torch.cat([ids.flatten(), history.flatten()]))
        rows, events = rows.split([ids.numel(), history.numel()])
        return rows.view(*ids.shape, -1), events.view(*history.shape[:2], self.d_events)

    def _look_up(self, ids: Int[Tensor, "*n"]) -> Float[Tensor, "*n dim"]:
        return self.lookup(self.table.weight, ids) if self.lookup else self.table(ids)

    def extra_repr(self) -> str:
        rows, dim = self.table.weight.shape
        return f"{self.n_fields} fields, {rows:,} rows x {dim}, sparse={self.sparse}"
