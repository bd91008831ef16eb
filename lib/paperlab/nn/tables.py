"""Embedding tables that take ids of any size: growing, hashed, bounded; and their merging.

The semantics of RecIS's dynamic embedding (arXiv 2509.20883), in plain PyTorch:

- A lookup takes the distinct ids of a batch, finds or makes their rows, and spreads them back.
- A row's optimiser slots lie beside its weights: they grow with it and are evicted with it.
- Tables with equal settings can be merged; the table's number then stands in the id's upper bits.

RecIS appends blocks of 10,240 rows, so that growing copies nothing; here a table doubles. RecIS's
default initial value is a constant; here a row's depends on its id (`id_maps.normal`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from .id_maps import IdMap, encode, mix, normal

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Read(NamedTuple):
    """The rows that a lookup took out of a table, for the next optimiser step."""

    rows: Int[Tensor, " n"]  # -1: an id without a row
    weight: Float[Tensor, "n dim"]  # a copy; its gradient is the sum over occurrences
    counts: Int[Tensor, " n"]  # occurrences


class Table(nn.Module):
    """Ids to vectors, rows made by `place`; `TableAdam` trains it.

    dim: width, >= 1. std: standard deviation of the initial normal weights, >= 0.
    seed: of the initial weights.
    ``step`` counts optimiser steps; ``updates`` those of each row; ``seen`` is the step of a row's
    last lookup in training.
    Raises ValueError for values out of range.
    """

    SLOTS = ("weight", "exp_avg", "exp_avg_sq", "updates", "seen")
    key_bytes = 0  # of a row

    def __init__(self, dim: int, capacity: int, std: float = 0.0, seed: int = 0):
        super().__init__()
        checks.whole(dim=dim, capacity=capacity)
        checks.at_least(0, std=std)
        self.dim, self.std, self.seed = dim, std, seed
        for name in ("weight", "exp_avg", "exp_avg_sq"):
            self.register_buffer(name, torch.zeros(capacity, dim))
        for name in ("updates", "seen"):
            self.register_buffer(name, torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.reads: list[Read] = []

    def __len__(self) -> int:
        """Rows in use."""
        return len(self.weight)

    def place(self, ids: Int[Tensor, " n"], admit: bool) -> Int[Tensor, " n"]:
        """Rows of distinct ids, -1 for none. admit: whether unknown ids may get one."""
        raise NotImplementedError

    def forward(self, ids: Int[Tensor, "*n"], admit: bool = True) -> Float[Tensor, "*n dim"]:
        """Vectors of ids; zeros for an id without a row.

        admit: whether unknown ids get a row, in training mode (False: RecIS's hook ReadOnly).
        """
        distinct, place, counts = (
            ids.flatten().long().unique(return_inverse=True, return_counts=True)
        )
        rows = self.place(distinct, admit and self.training)
        weight = self.weight[rows].masked_fill_((rows < 0)[:, None], 0)
        if self.training:
            self.seen[rows[rows >= 0]] = self.step
            if torch.is_grad_enabled():
                self.reads.append(Read(rows, weight.requires_grad_(), counts))
        return F.embedding(place.view(ids.shape), weight)

    def gradients(self, reduce: str = "sum") -> tuple[Int[Tensor, " r"], Float[Tensor, "r dim"]]:
        """Distinct rows that were read, and their gradients; the reads are then forgotten.

        Several reads before a step add up: this is gradient accumulation.
        reduce: "sum" over the occurrences of a row (RecIS's default "worker"), or their "mean"
            (RecIS's "id").
        """
        checks.one_of(("sum", "mean"), reduce=reduce)
        reads = [r for r in self.reads if r.weight.grad is not None]
        self.reads = []
        if not reads:
            return self.step.new_empty(0), self.weight.new_empty(0, self.dim)
        rows, place = torch.cat([r.rows for r in reads]).unique(return_inverse=True)
        total = self.weight.new_zeros(len(rows), self.dim)
        total.index_add_(0, place, torch.cat([r.weight.grad for r in reads]))
        if reduce == "mean":
            counts = torch.cat([r.counts for r in reads])
            total /= counts.new_zeros(len(rows)).index_add_(0, place, counts)[:, None]
        known = rows >= 0
        return rows[known], total[known]

    def forget(self) -> None:
        """Drop gradients that no step has used; lookups that await a backward pass stay."""
        self.reads = [r for r in self.reads if r.weight.grad is None]

    def advance(self) -> None:
        """End an optimiser step."""
        self.step += 1

    def nbytes(self) -> int:
        """Bytes of the rows in use: key, weights, and Adam's two moments."""
        return len(self) * (self.key_bytes + 3 * self.dim * self.weight.element_size())

    def extra_repr(self) -> str:
        return f"{len(self):,} rows x {self.dim}"


class HashedTable(Table):
    """Row = hash of the id modulo the number of rows: ids that collide share a row.

    hash_seed: chooses the hash. It is random on purpose: compact ids modulo their number would not
    collide at all.
    """

    def __init__(self, rows: int, dim: int, std: float = 0.0, seed: int = 0, hash_seed: int = 0):
        super().__init__(dim, rows, std, seed)
        self.hash_seed = hash_seed
        self.weight.copy_(std * normal(torch.arange(rows), dim, seed))

    def place(self, ids: Int[Tensor, " n"], admit: bool) -> Int[Tensor, " n"]:
        return mix(ids, self.hash_seed) % len(self)


class GrowingTable(Table):
    """A row of its own for every id that training has looked up.

    filter_step: optimiser steps without a lookup after which a row is evicted (RecIS's
        GlobalStepFilter), >= 1; None keeps all. An id that returns starts anew.
    filter_interval: steps between two evictions, >= 1.
    """

    key_bytes = 8

    def __init__(
        self,
        dim: int,
        std: float = 0.0,
        seed: int = 0,
        *,
        filter_step: int | None = None,
        filter_interval: int = 1,
    ):
        super().__init__(dim, 1024, std, seed)
        checks.whole(filter_step=1 if filter_step is None else filter_step)
        checks.whole(filter_interval=filter_interval)
        self.filter_step, self.filter_interval = filter_step, filter_interval
        self.register_buffer("keys", torch.zeros(len(self.weight), dtype=torch.int64))
        self.index = IdMap()

    def __len__(self) -> int:
        return self.index.size

    @property
    def ids(self) -> Int[Tensor, " n"]:
        """The id of each row in use."""
        return self.keys[: len(self)]

    def place(self, ids: Int[Tensor, " n"], admit: bool) -> Int[Tensor, " n"]:
        rows = self.index.find(ids)
        if admit and (new := rows < 0).any():
            rows[new] = self.add(ids[new])
        return rows

    @torch.no_grad()
    def add(self, ids: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """New rows for ids that differ and have none; their numbers."""
        start, stop = len(self), len(self) + len(ids)
        if stop > len(self.weight):
            self._resize(1 << (stop - 1).bit_length())
        rows = torch.arange(start, stop, device=ids.device)
        self.index.insert(ids, rows)
        self.keys[start:stop] = ids
        self.weight[start:stop] = self.std * normal(ids, self.dim, self.seed) if self.std else 0
        for name in ("exp_avg", "exp_avg_sq", "updates"):
            getattr(self, name)[start:stop] = 0
        self.seen[start:stop] = self.step
        return rows

    def advance(self) -> None:
        super().advance()
        if self.filter_step is not None and int(self.step) % self.filter_interval == 0:
            self.keep(self.step - self.seen[: len(self)] <= self.filter_step)

    def keep(self, kept: Tensor) -> None:
        """Evict the rows in use where ``kept`` (n,) is False; the others move together."""
        if kept.all():
            return
        rows = kept.nonzero().flatten()
        for name in ("keys", *self.SLOTS):
            values = getattr(self, name)
            values[: len(rows)] = values[rows]
        self._reindex(len(rows))

    def _resize(self, capacity: int) -> None:
        for name in ("keys", *self.SLOTS):
            old = getattr(self, name)
            new = old.new_zeros(capacity, *old.shape[1:])
            size = min(len(old), capacity)
            new[:size] = old[:size]
            setattr(self, name, new)

    def _reindex(self, size: int) -> None:
        self.index = IdMap(self.keys.device)
        rows = torch.arange(size, device=self.keys.device)
        self.index.insert(self.keys[:size], rows)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ("keys", *self.SLOTS):  # what is in use
            destination[prefix + name] = destination[prefix + name][: len(self)]

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        size = len(state_dict[prefix + "keys"])
        self._resize(size)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._reindex(size)
        self._resize(max(1024, size))


class BoundedTable(GrowingTable):
    """Rows for the ids that are given, and one row that all others share (row 0).

    ids: differ; usually the most frequent ones. The table has one row more than ids.
    """

    def __init__(self, ids: Int[Tensor, " n"], dim: int, std: float = 0.0, seed: int = 0):
        super().__init__(dim, std, seed)
        if len(ids.unique()) < len(ids):
            raise ValueError("ids must differ")
        self.add(torch.cat([ids.new_full((1,), -1), ids]).long())

    def place(self, ids: Int[Tensor, " n"], admit: bool) -> Int[Tensor, " n"]:
        return self.index.find(ids).clamp_(min=0)


class Setting(NamedTuple):
    """Settings of a feature's table; features with equal ones may share a merged table."""

    dim: int
    std: float = 0.0
    filter_step: int | None = None


class Tables(nn.Module):
    """A table a feature, or one for all features of equal settings; both give the same vectors.

    features: name -> `Setting`, at most 4096. merged: whether equal settings make one table, whose
    lookup then serves all its features at once.
    Raises ValueError for no feature or too many.
    """

    def __init__(self, features: Mapping[str, Setting], merged: bool = True, seed: int = 0):
        super().__init__()
        if not 0 < len(features) <= 4096:
            raise ValueError(f"features must be 1..4096, got {len(features)}")
        self.number = {name: k for k, name in enumerate(features)}
        groups: dict[object, list[str]] = {}
        for name, setting in features.items():
            groups.setdefault(setting if merged else name, []).append(name)
        self.groups = [*groups.values()]
        settings = (features[names[0]] for names in self.groups)
        self.tables = nn.ModuleList(
            GrowingTable(s.dim, s.std, seed, filter_step=s.filter_step) for s in settings
        )

    def forward(self, ids: Mapping[str, Int[Tensor, "*n"]]) -> dict[str, Float[Tensor, "*n d"]]:
        """Vectors of each feature's ids, whatever their shape."""
        vectors = {}
        for names, table in zip(self.groups, self.tables, strict=True):
            sizes = [ids[n].numel() for n in names]
            numbers = torch.tensor([self.number[n] for n in names])
            numbers = numbers.repeat_interleave(torch.tensor(sizes))
            rows = table(encode(torch.cat([ids[n].flatten() for n in names]), numbers))
            for name, part in zip(names, rows.split(sizes), strict=True):
                vectors[name] = part.view(*ids[name].shape, table.dim)
        return vectors
