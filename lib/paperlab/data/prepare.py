"""From raw rows to a column store: two streaming passes in bounded memory, resumable.

Pass one counts the categories of the training part; pass two writes ids. After every chunk the
place in the source is saved, so that a killed preparation goes on where it was, and ends with the
same bytes. Rows that do not parse are written to rejected.tsv with their line and the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from .. import checks
from . import fetch, stores
from .catalogue import Entry
from .schema import Field, Schema
from .sources import Chunk, FrameSource, TextSource, aside, progress, splitmix
from .store import SPLITS, Log, open_store

if TYPE_CHECKING:
    from jaxtyping import Int

VERSION = 2  # raise when a store's bytes change: stores are then prepared anew
USERS = "(users)"  # counts of the user key in all parts, beside those of the columns


@dataclass(frozen=True)
class Recipe:
    """Which columns of a source become what.

    categorical: columns whose values become ids; integers: columns of counts that are bucketised,
    x > 2 to floor(ln(x)^2), and become ids too (the x4 protocol of BARS; missing is a bucket).
    min_count: a value seen less often in the training part is out-of-vocabulary, id 0.
    user: the column of the key of grouped metrics.
    Raises ValueError when a column stands twice.
    """

    label: str
    categorical: tuple[str, ...]
    integers: tuple[str, ...] = ()
    min_count: int = 1
    user: str | None = None

    def __post_init__(self):
        names = [self.label, *self.columns]
        if doubled := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"recipe: columns stand twice: {', '.join(doubled)}")
        checks.whole(min_count=self.min_count)

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.integers, *self.categorical)


def load(entry: Entry, source: TextSource | FrameSource, recipe: Recipe, seed: int) -> Log:
    """The log of a set of clicks, prepared at the first call."""
    key = [VERSION, seed, repr(recipe), source.stamp]

    def make(folder: Path, notes: dict) -> None:
        prepare(source, recipe, folder, notes, seed)

    return open_store(stores.prepared(entry, entry.name, key, make), entry.name)


def prepare(
    source: TextSource | FrameSource, recipe: Recipe, folder: Path, notes: dict, seed: int = 0
) -> None:
    """Write ``source`` as a column store at ``folder``, split 8:1:1 by a seeded hash of the line.

    Works in ``folder`` + ".part" and renames at the end; what is there already is gone on with,
    unless the source is broken: then nothing is left. A store that is there already is kept; of
    several processes one prepares and the others wait.
    Raises ValueError when a column is missing, or when a part of the log would be empty.
    """
    columns = {recipe.label, *recipe.columns, *([recipe.user] if recipe.user else [])}
    if lacking := sorted(columns - set(source.columns)):
        raise ValueError(f"{folder.name}: the source has no column {', '.join(lacking)}")
    with stores.locked(folder):
        if not stores.is_store(folder):
            _prepare(source, recipe, folder, notes, seed)


def _prepare(source, recipe: Recipe, folder: Path, notes: dict, seed: int) -> None:
    work = folder.with_name(folder.name + ".part")
    work.mkdir(exist_ok=True)
    try:
        vocabulary = _count(source, recipe, work, seed)
        rows, rejected = _write(source, recipe, work, seed, vocabulary)
    except fetch.Broken:
        shutil.rmtree(work)
        raise
    if not sum(rows):
        raise ValueError(f"{folder.name}: no row could be read{_first_reason(work)}")
    if not all(rows):
        raise ValueError(f"{folder.name}: {sum(rows)} rows are too few to fill all three parts")
    sizes = {c: vocabulary[c].height + 1 for c in recipe.columns}
    schema = Schema(
        tuple(Field(c, size=sizes[c]) for c in recipe.columns),
        (recipe.label,),
        recipe.user if recipe.user in recipe.columns else None,
    )
    for part, n in zip(SPLITS, rows, strict=True):
        for kind, (width, dtype) in _columns(recipe).items():
            shape = (n,) if kind == "users" else (n, width)
            stores.finish_npy(work / f"{part}.{kind}", shape, dtype)
    notes = notes | {"rows": dict(zip(SPLITS, rows, strict=True)), "rejected": rejected}
    (work / "notes.json").write_text(json.dumps(notes, indent=1))
    (work / "schema.json").write_text(schema.to_json())
    if rejected:
        warnings.warn(
            f"{folder.name}: {rejected:,} malformed rows put aside in rejected.tsv", stacklevel=3
        )
    for leftover in [work / "state.json", *work.glob("*.counts")]:
        leftover.unlink(missing_ok=True)
    for part in SPLITS:
        for kind in _columns(recipe):
            (work / f"{part}.{kind}").unlink()
    work.replace(folder)


def _columns(recipe: Recipe) -> dict[str, tuple[int, str]]:
    """Width and dtype of the matrices of a part."""
    users = {"users": (1, "<i8")} if recipe.user else {}
    return {"ids": (len(recipe.columns), "<i4"), "values": (1, "<f4")} | users


def _first_reason(work: Path) -> str:
    path = work / "rejected.tsv"
    with path.open(errors="replace") as file:
        cells = file.readline().split("\t")
    return f": line {cells[0]}: {cells[1]}; see {path}" if len(cells) > 1 else ": it is empty"


def _count(source, recipe: Recipe, work: Path, seed: int) -> dict[str, pl.DataFrame]:
    """Values of each column with their ids, most frequent first: pass one."""
    state = _read_state(work)
    none = {"value": pl.String, "n": pl.UInt32}
    counted = [*recipe.columns, *([USERS] if recipe.user else [])]
    counts = {c: pl.DataFrame(schema=none) for c in counted}
    if "counts" in state:
        counts = {c: pl.read_parquet(work / f"{c}.{state['counts']}.counts") for c in counted}
    if state["pass"] == 1:
        for k, chunk in enumerate(
            progress(source, "counting", state["position"], state["line"]), 1
        ):
            frame, lines, _ = _clean(chunk, recipe)
            training = frame.filter(pl.Series(_part(lines, seed) == 0))
            keys = {USERS: frame[recipe.user]} if recipe.user else {}
            for c, values in ({c: training[c] for c in recipe.columns} | keys).items():
                new = pl.DataFrame({"value": values}).group_by("value").agg(pl.len().alias("n"))
                both = pl.concat([counts[c], new], how="vertical_relaxed")
                counts[c] = both.group_by("value").agg(pl.col("n").sum())
            state |= {"position": chunk.position, "line": chunk.next_line}
            if k % 8 == 0:
                _save_counts(work, counts, state)
        done = {"pass": 2, "position": 0, "line": 0, "rows": [0, 0, 0], "aside": 0}
        _save_counts(work, counts, state, then=done)
    vocabulary = {
        c: counts[c]
        .filter(pl.col("n") >= recipe.min_count)
        .sort(["n", "value"], descending=[True, False])
        .with_row_index("id", offset=1)
        .select("value", pl.col("id").cast(pl.Int32))
        for c in recipe.columns
    }
    if recipe.user:  # every user has a key, seen in training or not
        known = counts[USERS].sort("value").with_row_index("id")
        vocabulary[USERS] = known.select("value", pl.col("id").cast(pl.Int64))
    return vocabulary


def _save_counts(
    work: Path, counts: dict[str, pl.DataFrame], state: dict, then: dict | None = None
) -> None:
    """Counts under the name of their place in the source, then the state that names them.

    A kill between the two leaves the old state with the old counts: no chunk is counted twice.
    """
    place = state["position"]
    for c, frame in counts.items():
        draft = work / f".{c}.counts"
        frame.write_parquet(draft)
        draft.replace(work / f"{c}.{place}.counts")
    _write_state(work, (then or state) | {"counts": place})
    for old in work.glob("*.counts"):
        if not old.name.endswith(f".{place}.counts"):
            old.unlink()


def _write(source, recipe: Recipe, work: Path, seed: int, vocabulary) -> tuple[list[int], int]:
    """Ids and labels, appended chunk by chunk: pass two."""
    state = _read_state(work)
    files = {}
    try:
        for k, part in enumerate(SPLITS):
            for kind, (width, dtype) in _columns(recipe).items():
                bytes_a_row = width * np.dtype(dtype).itemsize
                files[part, kind] = _reopen(work / f"{part}.{kind}", state["rows"][k] * bytes_a_row)
        files["aside"] = _reopen(work / "rejected.tsv", state["aside"])
        for chunk in progress(source, "writing", state["position"], state["line"]):
            frame, lines, rejected = _clean(chunk, recipe)
            ids = np.empty((frame.height, len(recipe.columns)), np.int32)
            for j, c in enumerate(recipe.columns):
                ids[:, j] = _ids(frame[c], vocabulary[c])
            columns = {"ids": ids, "values": frame[recipe.label].cast(pl.Float32).to_numpy()}
            if recipe.user:
                nobody = (frame[recipe.user] == "").to_numpy()
                keys = _ids(frame[recipe.user], vocabulary[USERS]).astype(np.int64)
                columns["users"] = np.where(nobody, -1 - lines, keys)  # groups of one row
            part_of = _part(lines, seed)
            for k, part in enumerate(SPLITS):
                mine = part_of == k
                for kind, column in columns.items():
                    files[part, kind].write(column[mine].tobytes())
                state["rows"][k] += int(mine.sum())
            files["aside"].write(aside(rejected))
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
            state |= {"position": chunk.position, "line": chunk.next_line}
            state["rejected"] = state.get("rejected", 0) + len(rejected)
            state["aside"] = files["aside"].tell()
            _write_state(work, state)
    finally:
        for file in files.values():
            file.close()
    return state["rows"], state.get("rejected", 0)


def _ids(values: pl.Series, vocabulary: pl.DataFrame) -> Int[np.ndarray, " n"]:
    """The id of each value; 0 where it has none."""
    known = values.to_frame("value").join(vocabulary, on="value", how="left", maintain_order="left")
    return known["id"].fill_null(0).to_numpy()


def _clean(chunk: Chunk, recipe: Recipe) -> tuple[pl.DataFrame, np.ndarray, list]:
    """Rows with a 0/1 label and whole numbers where they belong; integers become buckets."""
    frame = chunk.frame.with_columns(pl.all().fill_null(""))
    numbers = {c: frame[c].cast(pl.Float64, strict=False) for c in recipe.integers}
    bad_label = ~frame[recipe.label].is_in(["0", "1"])
    reasons = pl.select(
        pl.when(bad_label).then(pl.lit("label is not 0 or 1")).otherwise(pl.lit("")).alias("r")
    )["r"]
    for c, number in numbers.items():
        whole = number.is_finite() & (number == number.floor()) & (number.abs() < 2**53)
        wrong = (frame[c] != "") & ~whole.fill_null(False)  # "nan", "inf" and "1e400" as well
        reasons = pl.select(
            pl.when((reasons == "") & wrong)
            .then(pl.lit(f"{c} is not a whole number"))
            .otherwise(reasons)
        ).to_series()
    keep = reasons == ""
    rejected = list(chunk.rejected)
    if not keep.all():
        lost = frame.filter(~keep)
        rejected += [
            (int(n), r, "\t".join(row))
            for n, r, row in zip(
                chunk.lines[~keep.to_numpy()], reasons.filter(~keep), lost.iter_rows(), strict=True
            )
        ]
    buckets = [
        pl.when(n.is_null())
        .then(pl.lit("missing"))
        .when(n <= 2)
        .then(n.cast(pl.Int64, strict=False).cast(pl.String))
        .otherwise(
            "b"
            + (n.clip(lower_bound=1).log() ** 2)
            .floor()
            .cast(pl.Int64, strict=False)
            .cast(pl.String)
        )
        .alias(c)
        for c, n in numbers.items()
    ]
    frame = frame.with_columns(buckets).filter(keep)
    return frame, chunk.lines[keep.to_numpy()], rejected


def _part(lines: np.ndarray, seed: int) -> np.ndarray:
    """0, 1, 2 for train, valid, test at 8:1:1 by the line's hash."""
    digit = splitmix(lines, seed) % np.uint64(10)
    return np.where(digit < 8, 0, digit.astype(np.int64) - 7)


def _read_state(work: Path) -> dict:
    path = work / "state.json"
    fresh = {"pass": 1, "position": 0, "line": 0}
    return json.loads(path.read_text()) if path.is_file() else fresh


def _write_state(work: Path, state: dict) -> None:
    draft = work / ".state.json"
    draft.write_text(json.dumps(state))
    draft.replace(work / "state.json")


def _reopen(path: Path, length: int):
    """Open to append, cut to what the state vouches for."""
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(length)
    file.seek(length)
    return file
