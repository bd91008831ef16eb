"""Interactions of users with items, read from raw rows and partitioned by user.

The first pass of `next_items`: a share holds the whole histories of some users and fits into memory.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from .sources import Chunk, aside, moments, progress, rejected_rows, splitmix

if TYPE_CHECKING:
    from jaxtyping import Int

EVENT = np.dtype([("user", "<i4"), ("item", "<i4"), ("time", "<i8"), ("tie", "<u4")])


@dataclass(frozen=True)
class Interactions:
    """Which columns of a source hold users, items and times.

    time: a column of numbers >= 0 or of ISO dates, or None where the rows are in order of time
    already. ticks: units of that column per second. window: seconds [from, to) in
    which events can be; others are malformed. category: a column; an item has that of its first
    event. only: (column, value) of the events that count.
    """

    user: str
    item: str
    time: str | None = None
    category: str | None = None
    ticks: int = 1
    window: tuple[int, int] | None = None
    only: tuple[str, str] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a source must have."""
        only = self.only and self.only[0]
        return tuple(c for c in (self.user, self.item, self.time, self.category, only) if c)


@dataclass
class Dealt:
    """The result of the first pass: number of shares and items, categories, rejected rows."""

    shares: int
    items: int
    category: Int[np.ndarray, " codes"] | None  # of every item code; 0 where unknown
    rejected: int


class _Codes:
    """Integer codes of texts, from 1 in order of first appearance; the empty text is 0."""

    def __init__(self):
        schema = {"text": pl.String, "code": pl.Int32}
        self.table = pl.DataFrame({"text": [""], "code": [0]}, schema)

    def __len__(self) -> int:
        return self.table.height - 1

    def __call__(self, texts: pl.Series) -> Int[np.ndarray, " n"]:
        texts = texts.to_frame("text")
        new = texts.unique(maintain_order=True)
        new = new.join(self.table, on="text", how="anti", maintain_order="left")
        new = new.with_row_index("code", offset=len(self) + 1)
        new = new.select("text", pl.col("code").cast(pl.Int32))
        self.table = pl.concat([self.table, new])
        codes = texts.join(self.table, on="text", how="left", maintain_order="left")
        return codes["code"].to_numpy()


def deal(source, what: Interactions, work: Path, seed: int) -> Dealt:
    """Write every event to the file of its user's share, and malformed rows to rejected.tsv."""
    users, items, categories = _Codes(), _Codes(), _Codes()
    of_item: list[np.ndarray] = []
    shares, rejected = 1 + (source.size_in_memory >> 26), 0
    with ExitStack() as stack:
        files = [stack.enter_context((work / f"{k}.share").open("wb")) for k in range(shares)]
        malformed = stack.enter_context((work / "rejected.tsv").open("wb"))
        for chunk in progress(source, "partitioning"):
            frame, lines, bad = _clean(chunk, what)
            malformed.write(aside(bad))
            rejected += len(bad)
            known, events = len(items), np.zeros(frame.height, EVENT)
            events["user"], events["item"] = users(frame["user"]), items(frame["item"])
            events["time"] = frame["time"].to_numpy() if what.time else lines
            events["tie"] = splitmix(lines, seed) >> np.uint64(32)
            if what.category:  # of the items that are new
                item, first = np.unique(events["item"], return_index=True)
                of_item.append(categories(frame["category"])[first[item > known]])
            share = events["user"] % shares
            for k, file in enumerate(files):
                file.write(events[share == k].tobytes())
    if not rejected:
        (work / "rejected.tsv").unlink()
    category = None
    if what.category:
        category = np.concatenate([[0], *of_item]).astype(np.int32)
    elif hasattr(source, "categories"):
        leaves = items.table.join(
            source.categories(items.table["text"]), left_on="text", right_on="item",
            how="left", maintain_order="left",
        )  # fmt: skip
        category = categories(leaves["category"].fill_null(""))
    return Dealt(shares, len(items), category, rejected)


def _clean(chunk: Chunk, what: Interactions) -> tuple[pl.DataFrame, np.ndarray, list]:
    """Columns user, item, time (ticks), category of the events that count, and the rejected rows."""
    columns = {n: getattr(what, n) for n in ("user", "item", "time", "category")}
    raw = chunk.frame.with_columns(pl.all().fill_null(""))
    frame = raw.select(
        *(pl.col(c).alias(n) for n, c in columns.items() if c),
        *([pl.col(what.only[0]).alias("only")] if what.only else []),
    ).with_columns(line=pl.Series(chunk.lines))
    reasons = [pl.when(pl.col(c) == "").then(pl.lit(f"no {c}")) for c in ("user", "item")]
    if what.time:
        frame = frame.with_columns(time=moments(frame["time"]))
        is_time = (pl.col("time") >= 0) & (pl.col("time") < 2**53)
        low, high = (t * what.ticks for t in what.window or (0, 2**53 // what.ticks))
        reasons += [
            pl.when(~is_time.fill_null(False)).then(pl.lit("time is not a number >= 0")),
            pl.when(~pl.col("time").is_between(low, high, "left")).then(
                pl.lit("time is outside the data's own window")
            ),
        ]
    reason = frame.select(pl.coalesce(*reasons, pl.lit("")).alias("r"))["r"]
    rejected = chunk.rejected + rejected_rows(raw, chunk.lines, reason)
    good = reason == ""
    if what.only:
        good &= frame["only"] == what.only[1]
    frame = frame.filter(good)
    if what.time:
        frame = frame.with_columns(pl.col("time").cast(pl.Int64))
    return frame, frame["line"].to_numpy(), rejected
