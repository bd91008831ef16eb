"""Ids of any size to rows of a table: codes, a 64-bit hash, and a map that grows.

All of it works on whole tensors of int64: there is no Python per id.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

ID_BITS, TABLES = 52, 4096  # of a code: 52 bits of the id, 12 of the table's number
LOW = (1 << ID_BITS) - 1


def encode(ids: Int[Tensor, "*n"], table: int | Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """Codes (id & (2^52 - 1)) | (table << 52): ids of different tables never clash.

    table: 0..4095. An id of 2^52 or more loses its upper bits, as in RecIS.
    Raises ValueError for a table out of range.
    """
    numbers = torch.as_tensor(table, dtype=torch.int64, device=ids.device)
    if ((numbers < 0) | (numbers >= TABLES)).any():
        raise ValueError(f"table must be in 0..{TABLES - 1}, got {table}")
    return (ids.long() & LOW) | (numbers << ID_BITS)


def decode(codes: Int[Tensor, "*n"]) -> tuple[Int[Tensor, "*n"], Int[Tensor, "*n"]]:
    """Ids and tables of codes."""
    return codes & LOW, _shift(codes, ID_BITS)


def mix(x: Int[Tensor, "*n"], seed: int = 0) -> Int[Tensor, "*n"]:
    """SplitMix64's 64-bit hash: close ids get unrelated values. A seed chooses the hash."""
    x = x + _signed((seed + 1) * 0x9E3779B97F4A7C15)
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def normal(ids: Int[Tensor, " n"], dim: int, seed: int = 0) -> Float[Tensor, "n dim"]:
    """Standard normal values that depend on the id and the seed alone.

    Initial rows drawn this way do not depend on the order in which ids arrive, nor on the table or
    the process that holds them. Box and Muller's transform of two halves of a hash.
    """
    h = mix(mix(ids, seed)[:, None] + torch.arange(dim, device=ids.device), seed)
    u, v = ((half.double() + 0.5) / 2**32 for half in (_shift(h, 32), h & (2**32 - 1)))
    return ((-2 * u.log()).sqrt() * (2 * math.pi * v).cos()).float()


class IdMap:
    """Distinct ids to row numbers: open addressing with linear probing, at most half full."""

    def __init__(self, device: torch.device | str = "cpu"):
        self.size = 0
        self._clear(1024, device)

    def find(self, ids: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The row of each id, -1 where it is absent."""
        found = torch.full_like(ids, -1)
        todo, slot = torch.arange(len(ids), device=ids.device), self._first(ids)
        while len(todo):
            rows = self.rows[slot]
            here = (rows >= 0) & (self.keys[slot] == ids[todo])
            found[todo[here]] = rows[here]
            taken = (rows >= 0) & ~here  # by another id: look one slot further
            todo, slot = todo[taken], (slot[taken] + 1) & self.mask
        return found

    def insert(self, ids: Int[Tensor, " n"], rows: Int[Tensor, " n"]) -> None:
        """Add ids that differ and are absent, with rows that differ, >= 0."""
        self.size += len(ids)
        if 2 * self.size > len(self.keys):
            held = self.rows >= 0
            ids, rows = torch.cat([self.keys[held], ids]), torch.cat([self.rows[held], rows])
            self._clear(1 << (4 * self.size - 1).bit_length(), ids.device)
        todo, slot = torch.arange(len(ids), device=ids.device), self._first(ids)
        while len(todo):
            free = self.rows[slot] < 0
            self.rows[slot[free]] = rows[todo[free]]
            won = free & (self.rows[slot] == rows[todo])  # of several that wrote to one slot
            self.keys[slot[won]] = ids[todo[won]]
            todo, slot = todo[~won], (slot[~won] + 1) & self.mask

    def _clear(self, capacity: int, device) -> None:
        self.keys = torch.zeros(capacity, dtype=torch.int64, device=device)
        self.rows = torch.full_like(self.keys, -1)
        self.mask = capacity - 1

    def _first(self, ids: Tensor) -> Tensor:
        return mix(ids) & self.mask


def _shift(x: Tensor, bits: int) -> Tensor:
    """A shift to the right that fills with zeros; torch's repeats the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    """The int64 with the low 64 bits of x."""
    x &= 2**64 - 1
    return x - 2**64 if x >= 2**63 else x
