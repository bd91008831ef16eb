"""From raw rows to a column store: streaming passes in bounded memory, resumable.

Pass one counts the categories of the training part and samples its numbers; pass two writes ids and
values. A split by time needs a pass before them, which finds where the parts begin. After every
chunk the place in the source is saved, so that a killed preparation goes on where it was, and ends
with the same bytes. Rows that do not parse are written to rejected.tsv with their line and the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from . import fetch, stores
from . import recipe as recipes
from .catalogue import Entry
from .recipe import TIME, Recipe, clean
from .schema import Field, Schema
from .sources import Source, aside, progress
from .store import SPLITS, Log, open_store

if TYPE_CHECKING:
    from jaxtyping import Int

VERSION = 3  # raise when a store's bytes change: stores are then prepared anew
USERS = "\0users"  # counts of the user key in all parts, beside those of the columns


def load(entry: Entry, source: Source, recipe: Recipe, seed: int) -> Log:
    """The log of a set of clicks, prepared at the first call."""
    key = [VERSION, seed, repr(recipe), source.stamp]

    def make(folder: Path, notes: dict) -> None:
        prepare(source, recipe, folder, notes, seed)

    return open_store(stores.prepared(entry, entry.name, key, make), entry.name)


def prepare(source: Source, recipe: Recipe, folder: Path, notes: dict, seed: int = 0) -> None:
    """Write ``source`` as a column store at ``folder``, split as the recipe says.

    Works in ``folder`` + ".part" and renames at the end; an interrupted preparation
    is resumed; nothing is left where the source is broken. A store that exists is kept; of several
    processes one prepares and the others wait. The notes get the number of rows and of
    positives in each part, of rejected rows, and of missing values in each numeric column.
    Raises ValueError when a column is missing, or when a part of the log would be empty.
    """
    if lacking := sorted(recipe.needed - set(source.columns)):
        raise ValueError(f"{folder.name}: the source has no column {', '.join(lacking)}")
    with stores.locked(folder):
        if not stores.is_store(folder):
            _prepare(source, recipe, folder, notes, seed)


def _prepare(source: Source, recipe: Recipe, folder: Path, notes: dict, seed: int) -> None:
    work = folder.with_name(folder.name + ".part")
    work.mkdir(exist_ok=True)
    try:
        cuts = _cut(source, recipe, work)
        vocabulary, numbers = _count(source, recipe, work, seed, cuts)
        state = _write(source, recipe, work, seed, cuts, vocabulary, numbers)
    except fetch.Broken:
        shutil.rmtree(work)
        raise
    rows, rejected = state["rows"], state["rejected"]
    if not sum(rows):
        raise ValueError(f"{folder.name}: no row could be read{_first_reason(work)}")
    if not all(rows):
        by = "" if recipe.split == "random" else f" by {recipe.split}"
        raise ValueError(f"{folder.name}: {sum(rows)} rows are too few to fill all three parts{by}")
    sizes = {c: vocabulary[c].height + 1 for c in recipe.columns}
    sizes |= {c: len(numbers[c]) + 2 for c in recipe.bucketed}
    fields = [Field(c, size=size) for c, size in sizes.items()]
    if recipe.standardised:
        fields += [Field(c, "numeric") for c in recipe.numeric]
    user = recipe.user if recipe.user in sizes else None
    schema = Schema(tuple(fields), (recipe.label,), user)
    for part, n in zip(SPLITS, rows, strict=True):
        for kind, (width, dtype) in _columns(recipe).items():
            shape = (n,) if kind == "users" else (n, width)
            stores.finish_npy(work / f"{part}.{kind}", shape, dtype)
    notes = notes | {
        "rows": dict(zip(SPLITS, rows, strict=True)),
        "positives": dict(zip(SPLITS, state["positives"], strict=True)),
        "rejected": rejected,
        "missing": dict(zip(recipe.numeric, state["missing"], strict=True)),
    }
    (work / "notes.json").write_text(json.dumps(notes, indent=1))
    (work / "schema.json").write_text(schema.to_json())
    if rejected:
        warnings.warn(
            f"{folder.name}: {rejected:,} malformed rows set aside in rejected.tsv", stacklevel=3
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
    ids = len(recipe.columns) + len(recipe.bucketed)
    values = 1 + len(recipe.numeric) - len(recipe.bucketed)
    return {"ids": (ids, "<i4"), "values": (values, "<f4")} | users


def _first_reason(work: Path) -> str:
    path = work / "rejected.tsv"
    with path.open(errors="replace") as file:
        cells = file.readline().split("\t")
    return f": line {cells[0]}: {cells[1]}" if len(cells) > 1 else ": it is empty"


def _cut(source: Source, recipe: Recipe, work: Path) -> np.ndarray | None:
    """The first times of validation and test, where time splits: the pass before pass one."""
    if recipe.split != "time":
        return None
    state = _read_state(work)
    if "cuts" not in state:
        sample = None
        for chunk in progress(source, "times"):
            frame, lines, _ = clean(chunk, recipe)
            sample = recipes.sampled(sample, lines, [frame[TIME]])
        if sample is None or not sample.height:
            return np.zeros(2)  # no row can be read: pass two says why
        try:
            state["cuts"] = recipes.cut(sample["x0"].to_numpy()).tolist()
        except ValueError as error:
            raise ValueError(f"{work.stem}: {error}") from None
        _write_state(work, state)
    return np.array(state["cuts"])


def _count(
    source: Source, recipe: Recipe, work: Path, seed: int, cuts
) -> tuple[dict[str, pl.DataFrame], dict[str, np.ndarray]]:
    """Values of each column with their ids, most frequent first, and each numeric column's scale.

    A scale holds the ends of the buckets, or the sampled values.
    """
    state = _read_state(work)
    none = {"value": pl.String, "n": pl.UInt32}
    counted = [*recipe.columns, *([USERS] if recipe.user else [])]
    counts = {c: pl.DataFrame(schema=none) for c in counted}
    sample = recipes.sampled(None, np.empty(0, np.int64), [pl.Series([], dtype=pl.Float64)] * len(recipe.numeric))  # fmt: skip
    if "counts" in state:
        *tables, sample = (
            pl.read_parquet(work / f"{k}.{state['counts']}.counts") for k in range(len(counts) + 1)
        )
        counts = dict(zip(counted, tables, strict=True))
    if state["pass"] == 1:
        for k, chunk in enumerate(
            progress(source, "counting", state["position"], state["line"]), 1
        ):
            frame, lines, _ = clean(chunk, recipe)
            mine = recipes.parts(frame, lines, recipe, seed, cuts) == 0
            training = frame.filter(pl.Series(mine))
            keys = {USERS: frame[recipe.user]} if recipe.user else {}
            for c, values in ({c: training[c] for c in recipe.columns} | keys).items():
                new = pl.DataFrame({"value": values}).group_by("value").agg(pl.len().alias("n"))
                both = pl.concat([counts[c], new], how="vertical_relaxed")
                counts[c] = both.group_by("value").agg(pl.col("n").sum())
            if recipe.numeric:
                columns = [training[c] for c in recipe.numeric]
                sample = recipes.sampled(sample, lines[mine], columns)
            state |= {"position": chunk.position, "line": chunk.next_line}
            if k % 8 == 0:
                _save_counts(work, [*counts.values(), sample], state)
        done = {"pass": 2, "position": 0, "line": 0, "aside": 0, "rejected": 0}
        done |= {"rows": [0, 0, 0], "positives": [0, 0, 0], "missing": [0] * len(recipe.numeric)}
        _save_counts(work, [*counts.values(), sample], state, then=state | done)
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
    numbers = {c: sample[f"x{k}"].to_numpy() for k, c in enumerate(recipe.numeric)}
    return vocabulary, numbers | {c: recipes.edges(numbers[c]) for c in recipe.bucketed}


def _save_counts(
    work: Path, tables: list[pl.DataFrame], state: dict, then: dict | None = None
) -> None:
    """Counts under the name of their place in the source, then the state that names them.

    A kill between the two leaves the old state with the old counts: no chunk is counted twice.
    """
    place = state["position"]
    for k, frame in enumerate(tables):
        draft = work / f".{k}.counts"
        frame.write_parquet(draft)
        draft.replace(work / f"{k}.{place}.counts")
    _write_state(work, (then or state) | {"counts": place})
    for old in work.glob("*.counts"):
        if not old.name.endswith(f".{place}.counts"):
            old.unlink()


def _write(
    source: Source, recipe: Recipe, work: Path, seed: int, cuts, vocabulary: dict, numbers: dict
) -> dict:
    """Ids and values, appended chunk by chunk: pass two; returns the last state."""
    state = _read_state(work)
    files = {}
    try:
        for k, part in enumerate(SPLITS):
            for kind, (width, dtype) in _columns(recipe).items():
                bytes_a_row = width * np.dtype(dtype).itemsize
                files[part, kind] = _reopen(work / f"{part}.{kind}", state["rows"][k] * bytes_a_row)
        files["aside"] = _reopen(work / "rejected.tsv", state["aside"])
        for chunk in progress(source, "writing", state["position"], state["line"]):
            frame, lines, rejected = clean(chunk, recipe)
            columns = _matrices(frame, lines, recipe, vocabulary, numbers)
            part_of = recipes.parts(frame, lines, recipe, seed, cuts)
            positive = columns["values"][:, -1] == 1
            for k, part in enumerate(SPLITS):
                mine = part_of == k
                for kind, column in columns.items():
                    files[part, kind].write(column[mine].tobytes())
                state["rows"][k] += int(mine.sum())
                state["positives"][k] += int((mine & positive).sum())
            files["aside"].write(aside(rejected))
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
            for k, c in enumerate(recipe.numeric):
                state["missing"][k] += int(frame[c].is_nan().sum())
            state |= {"position": chunk.position, "line": chunk.next_line}
            state["rejected"] += len(rejected)
            state["aside"] = files["aside"].tell()
            _write_state(work, state)
    finally:
        for file in files.values():
            file.close()
    return state


def _matrices(
    frame: pl.DataFrame, lines: Int[np.ndarray, " n"], recipe: Recipe, vocabulary, numbers
) -> dict[str, np.ndarray]:
    """The rows of a chunk as they are stored: ids, values, and the users' keys."""
    ids = np.empty((frame.height, len(recipe.columns) + len(recipe.bucketed)), np.int32)
    for j, c in enumerate(recipe.columns):
        ids[:, j] = _ids(frame[c], vocabulary[c])
    for j, c in enumerate(recipe.bucketed, len(recipe.columns)):
        ids[:, j] = recipes.bucket_ids(frame[c].to_numpy(), numbers[c])
    values = [frame[recipe.label].cast(pl.Float32).to_numpy()]
    if recipe.standardised:
        numeric = [recipes.standardised(frame[c].to_numpy(), numbers[c]) for c in recipe.numeric]
        values = numeric + values
    columns = {"ids": ids, "values": np.stack(values, 1).astype(np.float32)}
    if recipe.user:
        nobody = (frame[recipe.user] == "").to_numpy()
        keys = _ids(frame[recipe.user], vocabulary[USERS]).astype(np.int64)
        columns["users"] = np.where(nobody, -1 - lines, keys)  # groups of one row
    return columns


def _ids(values: pl.Series, vocabulary: pl.DataFrame) -> Int[np.ndarray, " n"]:
    """The id of each value; 0 where it has none."""
    known = values.to_frame("value").join(vocabulary, on="value", how="left", maintain_order="left")
    return known["id"].fill_null(0).to_numpy()


def _read_state(work: Path) -> dict:
    path = work / "state.json"
    fresh = {"pass": 1, "position": 0, "line": 0}
    return json.loads(path.read_text()) if path.is_file() else fresh


def _write_state(work: Path, state: dict) -> None:
    draft = work / ".state.json"
    draft.write_text(json.dumps(state))
    draft.replace(work / "state.json")


def _reopen(path: Path, length: int):
    """Open to append after ``length`` bytes, and drop what follows them."""
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(length)
    file.seek(length)
    return file
