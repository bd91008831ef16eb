"""From raw rows to a column store: two streaming passes in bounded memory, resumable.

Pass one counts the categories of the training part; pass two writes ids. After every chunk the
place in the source is saved, so that a killed preparation goes on where it was, and ends with the
same bytes. Rows that do not parse are written to rejected.tsv with their line and the reason.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from tqdm import tqdm

from . import fetch
from .schema import Field, Schema
from .store import SPLITS

if TYPE_CHECKING:
    from jaxtyping import Int, UInt64

CHUNK_BYTES = 48 << 20
CHUNK_ROWS = 250_000


@dataclass(frozen=True)
class Recipe:
    """Which columns of a source become what.

    categorical: columns whose values become ids; integers: columns of counts that are bucketised,
    x > 2 to floor(ln(x)^2), and become ids too (the x4 protocol of BARS; missing is a bucket).
    min_count: a value seen less often in the training part is out-of-vocabulary, id 0.
    """

    label: str
    categorical: tuple[str, ...]
    integers: tuple[str, ...] = ()
    min_count: int = 1
    user: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.integers, *self.categorical)


@dataclass(frozen=True)
class Chunk:
    """Rows of a source: strings (label included), their line numbers, and what was refused."""

    frame: pl.DataFrame
    lines: np.ndarray
    rejected: list[tuple[int, str, str]]
    position: int  # where the next chunk starts: a byte, or a row
    next_line: int


class TextSource:
    """A delimited text file (gzip or plain), read a block of whole lines at a time."""

    def __init__(
        self, path: Path, columns: tuple[str, ...], separator: str = "\t", header: bool = False
    ):
        self.path, self.columns, self.separator, self.header = path, columns, separator, header
        stat = path.stat()
        self.size = stat.st_size if path.suffix != ".gz" else None
        self.size_in_memory = self.size or 8 * stat.st_size  # a guess, of text in a .gz
        self.stamp = f"{path.name} {stat.st_size} {stat.st_mtime_ns}"

    def chunks(self, position: int = 0, line: int = 0) -> Iterator[Chunk]:
        opened = gzip.open if self.path.suffix == ".gz" else open
        with fetch.reading(self.path), opened(self.path, "rb") as file:
            file.seek(position)
            while block := file.read(CHUNK_BYTES):
                block += file.readline()
                position += len(block)
                chunk = self._parse(block, line, position)
                line = chunk.next_line
                yield chunk

    def _parse(self, block: bytes, line: int, position: int) -> Chunk:
        rejected = []
        texts = block.split(b"\n")
        if texts[-1] == b"":
            texts.pop()
        want, mark = len(self.columns) - 1, self.separator.encode()
        good, numbers = [], []
        for number, text in enumerate(texts, line):
            if number == 0 and self.header:
                continue
            if text.count(mark) != want:
                reason = f"{text.count(mark) + 1} columns, not {want + 1}"
                rejected.append((number, reason, text.decode(errors="replace")))
            else:
                good.append(text)
                numbers.append(number)
        try:
            b"".join(good).decode()
        except UnicodeDecodeError:
            keep = [_is_utf8(t) for t in good]
            rejected += [
                (n, "not UTF-8", t.decode(errors="replace"))
                for n, t, k in zip(numbers, good, keep, strict=True)
                if not k
            ]
            good = [t for t, k in zip(good, keep, strict=True) if k]
            numbers = [n for n, k in zip(numbers, keep, strict=True) if k]
        schema = dict.fromkeys(self.columns, pl.String)
        frame = pl.DataFrame(schema=schema)
        if good:
            frame = pl.read_csv(
                io.BytesIO(b"\n".join(good) + b"\n"), separator=self.separator, has_header=False,
                schema=schema, quote_char=None,
            )  # fmt: skip
        return Chunk(frame, np.array(numbers, np.int64), rejected, position, line + len(texts))


class FrameSource:
    """A table in memory; every column is read as text, missing as empty."""

    size, size_in_memory = None, 0

    def __init__(self, frame: pl.DataFrame):
        self.frame = frame.select(pl.all().cast(pl.String).fill_null(""))
        self.stamp = f"{frame.height} {frame.columns}"

    def chunks(self, position: int = 0, line: int = 0) -> Iterator[Chunk]:
        for start in range(position, self.frame.height, CHUNK_ROWS):
            part = self.frame.slice(start, CHUNK_ROWS)
            end = start + part.height
            yield Chunk(part, np.arange(start, end), [], end, end)


def prepare(
    source: TextSource | FrameSource, recipe: Recipe, folder: Path, notes: dict, seed: int = 0
) -> None:
    """Write ``source`` as a column store at ``folder``, split 8:1:1 by a seeded hash of the line.

    Works in ``folder`` + ".part" and renames at the end; what is there already is gone on with,
    unless the source is broken: then nothing is left.
    """
    work = folder.with_name(folder.name + ".part")
    work.mkdir(parents=True, exist_ok=True)
    try:
        vocabulary = _count(source, recipe, work, seed)
        rows, rejected = _write(source, recipe, work, seed, vocabulary)
    except fetch.Broken:
        shutil.rmtree(work)
        raise
    if not rows[0]:
        raise ValueError(f"{folder.name}: no row could be read; see {work / 'rejected.tsv'}")
    sizes = {c: vocabulary[c].height + 1 for c in recipe.columns}
    schema = Schema(
        tuple(Field(c, size=sizes[c]) for c in recipe.columns), (recipe.label,), recipe.user
    )
    for part, n in zip(SPLITS, rows, strict=True):
        for kind, width, dtype in (("ids", len(recipe.columns), "<i4"), ("values", 1, "<f4")):
            finish_npy(work / f"{part}.{kind}", (n, width), dtype)
    notes = notes | {"rows": dict(zip(SPLITS, rows, strict=True)), "rejected": rejected}
    (work / "notes.json").write_text(json.dumps(notes, indent=1))
    (work / "schema.json").write_text(schema.to_json())
    if rejected:
        warnings.warn(
            f"{folder.name}: {rejected:,} malformed rows put aside in rejected.tsv", stacklevel=2
        )
    work.replace(folder)
    raw = [f"{part}.{kind}" for part in SPLITS for kind in ("ids", "values")]
    for leftover in (*map(folder.joinpath, ("state.json", *raw)), *folder.glob("*.counts")):
        leftover.unlink(missing_ok=True)


def _count(source, recipe: Recipe, work: Path, seed: int) -> dict[str, pl.DataFrame]:
    """Values of each column with their ids, most frequent first: pass one."""
    state = _read_state(work)
    counts: dict[str, pl.DataFrame] = {}
    if "counts" in state:
        counts = {
            c: pl.read_parquet(work / f"{c}.{state['counts']}.counts") for c in recipe.columns
        }
    if state["pass"] == 1:
        for k, chunk in enumerate(
            progress(source, "counting", state["position"], state["line"]), 1
        ):
            frame, lines, _ = _clean(chunk, recipe)
            frame = frame.filter(pl.Series(_part(lines, seed) == 0))
            for c in recipe.columns:
                new = frame.select(value=c).group_by("value").agg(pl.len().alias("n"))
                old = counts.get(c)
                if old is not None:
                    new = pl.concat([old, new]).group_by("value").agg(pl.col("n").sum())
                counts[c] = new
            state |= {"position": chunk.position, "line": chunk.next_line}
            if k % 8 == 0:
                _save_counts(work, counts, state)
        done = {"pass": 2, "position": 0, "line": 0, "rows": [0, 0, 0], "aside": 0}
        _save_counts(work, counts, state, then=done)
    return {
        c: counts[c]
        .filter(pl.col("n") >= recipe.min_count)
        .sort(["n", "value"], descending=[True, False])
        .with_row_index("id", offset=1)
        .select("value", pl.col("id").cast(pl.Int32))
        for c in recipe.columns
    }


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
    widths = {"ids": 4 * len(recipe.columns), "values": 4}
    files = {}
    try:
        for k, part in enumerate(SPLITS):
            for kind, width in widths.items():
                files[part, kind] = _reopen(work / f"{part}.{kind}", state["rows"][k] * width)
        files["aside"] = _reopen(work / "rejected.tsv", state["aside"])
        for chunk in progress(source, "writing", state["position"], state["line"]):
            frame, lines, rejected = _clean(chunk, recipe)
            ids = np.empty((frame.height, len(recipe.columns)), np.int32)
            for j, c in enumerate(recipe.columns):
                known = frame.select(value=c).join(
                    vocabulary[c], on="value", how="left", maintain_order="left"
                )
                ids[:, j] = known["id"].fill_null(0).to_numpy()
            labels = frame[recipe.label].cast(pl.Float32).to_numpy()
            part_of = _part(lines, seed)
            for k, part in enumerate(SPLITS):
                mine = part_of == k
                files[part, "ids"].write(ids[mine].tobytes())
                files[part, "values"].write(labels[mine].tobytes())
                state["rows"][k] += int(mine.sum())
            for number, reason, text in rejected:
                files["aside"].write(f"{number + 1}\t{reason}\t{text}\n".encode())
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


def _clean(chunk: Chunk, recipe: Recipe) -> tuple[pl.DataFrame, np.ndarray, list]:
    """Rows with a 0/1 label and whole numbers where they belong; integers become buckets."""
    frame = chunk.frame.with_columns(pl.all().fill_null(""))
    numbers = {c: frame[c].cast(pl.Float64, strict=False) for c in recipe.integers}
    bad_label = ~frame[recipe.label].is_in(["0", "1"])
    reasons = pl.select(
        pl.when(bad_label).then(pl.lit("label is not 0 or 1")).otherwise(pl.lit("")).alias("r")
    )["r"]
    for c, number in numbers.items():
        wrong = ((number.is_null() & (frame[c] != "")) | (number != number.floor())).fill_null(
            False
        )
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


def splitmix(lines: Int[np.ndarray, " n"], seed: int) -> UInt64[np.ndarray, " n"]:
    """A hash of each line number (splitmix64): it depends neither on chunks nor on other lines."""
    with np.errstate(over="ignore"):
        z = (lines.astype(np.uint64) + np.uint64(seed * 0x632BE5AB + 1)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def progress(source, what: str, position: int = 0, line: int = 0) -> Iterable[Chunk]:
    """The chunks of a source from a position on, with a bar where it takes long."""
    with tqdm(total=source.size, unit="B", unit_scale=True, desc=what, initial=position,
              delay=2, leave=False) as bar:  # fmt: skip
        for chunk in source.chunks(position, line):
            yield chunk
            bar.update(chunk.position - bar.n)


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


def finish_npy(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """Put the .npy header before the raw rows at ``path``, in a copy NAME.npy that streams."""
    target = path.with_name(path.name + ".npy")
    with target.open("wb") as out, path.open("rb") as raw:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(out, header)
        shutil.copyfileobj(raw, out, 16 << 20)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
