"""Frappe: which app does a person use, where and when?"""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from .. import fetch, prepare
from ..catalogue import Entry
from ..formats import parquet
from ..recipe import Recipe
from ..schema import Field, Schema
from ..sources import FrameSource
from ..store import Log, from_arrays


def load(entry: Entry, *, split: Literal["sampled", "nfm"] = "sampled", seed: int = 0) -> Log:
    """Positives of the log, each with two apps that its user never used, in the same context.

    split: "nfm" takes the rows and the split of NFM's published files instead. seed: of negatives.
    """
    return _published(entry) if split == "nfm" else _sampled(entry, seed)


def _sampled(entry: Entry, seed: int) -> Log:
    (log,) = parquet.local(entry)
    used = set(zip(log["user"].to_list(), log["item"].to_list(), strict=True))
    items = np.sort(log["item"].unique().to_numpy())
    draw = np.random.default_rng([seed, 7])
    users = np.repeat(log["user"].to_numpy(), 2)
    drawn = draw.choice(items, len(users))
    again = np.arange(len(users))
    while len(again := again[_used(used, users[again], drawn[again])]):
        drawn[again] = draw.choice(items, len(again))
    features = [c for c in log.columns if c != "cnt"]
    negatives = log.select(features)[np.repeat(np.arange(log.height), 2)]
    negatives = negatives.with_columns(pl.Series("item", drawn), label=pl.lit(0))
    frame = pl.concat([log.select(features).with_columns(label=pl.lit(1)), negatives])
    recipe = Recipe("label", tuple(features), user="user")
    return prepare.load(entry, FrameSource(frame), recipe, seed)


def _used(used: set[tuple[int, int]], users: np.ndarray, items: np.ndarray) -> np.ndarray:
    return np.array([p in used for p in zip(users.tolist(), items.tolist(), strict=True)], bool)


def _published(entry: Entry) -> Log:
    """NFM's libFM files: ``label field:1 ...``; labels are -1 and 1, the first field is the user."""
    parts = []
    for k, file in enumerate(entry.files):
        lines = fetch.official(entry, file.name).read_text().splitlines()
        try:
            rows = [line.split() for line in lines]
            ids = np.array([[int(cell.split(":")[0]) for cell in row[1:]] for row in rows])
            labels = np.array([float(row[0]) > 0 for row in rows])
        except (ValueError, IndexError):
            raise fetch.Broken(f"{file.name} is broken: it is no libFM file") from None
        if ids.ndim != 2 or not ids.size:
            raise fetch.Broken(f"{file.name} is broken: its rows have no common length")
        parts.append((ids, labels, np.full(len(rows), k)))
    ids, labels, part = (np.concatenate(column) for column in zip(*parts, strict=True))
    fields, local = [], np.zeros_like(ids)
    for c in range(ids.shape[1]):
        known = np.unique(ids[part == 0, c])
        place = np.searchsorted(known, ids[:, c]).clip(max=len(known) - 1)
        local[:, c] = np.where(known[place] == ids[:, c], place + 1, 0)
        fields.append(Field(f"f{c + 1}", size=len(known) + 1))
    schema = Schema(tuple(fields), user="f1")
    return from_arrays("frappe-nfm", schema, local, labels[:, None], part, users=ids[:, 0])
