"""Where raw rows come from: delimited text files and tables in memory, a chunk at a time.

A source yields its rows as text, with the number of each line, and says which lines it could not
read. It can start at any chunk's place, so that a killed preparation goes on.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from tqdm import tqdm

from . import fetch

if TYPE_CHECKING:
    from jaxtyping import Int, UInt64

CHUNK_BYTES = 48 << 20
CHUNK_ROWS = 250_000
QUOTED_LINES = 100  # lines that a quoted cell may span
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Chunk:
    """Rows of a source: text (label included), their line numbers, and what was refused."""

    frame: pl.DataFrame
    lines: Int[np.ndarray, " n"]
    rejected: list[tuple[int, str, str]]  # line from 0, reason, text
    position: int  # where the next chunk starts: a byte, or a row
    next_line: int


class TextSource:
    """A delimited UTF-8 text file (gzip or plain), read a block of whole lines at a time.

    A byte-order mark and carriage returns at line ends are dropped. With a comma between cells a
    cell may be quoted, and then hold commas and line ends (RFC 4180); with a tab, quotes are text.

    columns: names of the cells, in order. header: whether the first line holds names.
    Raises ValueError when two columns have one name.
    """

    def __init__(
        self, path: Path, columns: tuple[str, ...], separator: str = "\t", header: bool = False
    ):
        if doubled := sorted({c for c in columns if columns.count(c) > 1}):
            raise ValueError(f"{path.name}: columns occur twice: {', '.join(doubled)}")
        self.path, self.columns, self.separator, self.header = path, columns, separator, header
        stat = path.stat()
        self.size = stat.st_size if path.suffix != ".gz" else None
        self.size_in_memory = self.size or 8 * stat.st_size  # a guess, of text in a .gz
        self.stamp = f"{path.name} {stat.st_size} {stat.st_mtime_ns}"

    @classmethod
    def with_header(cls, path: Path, needed: Iterable[str], separator: str = ",") -> TextSource:
        """A file whose first line names its columns, the needed ones among them.

        Raises ValueError when it is empty, or lacks or repeats a column.
        """
        with _opened(path) as file:
            first = file.readline().removeprefix(BOM).decode("utf-8", "replace").strip()
        columns = tuple(c.strip() for c in next(csv.reader([first], delimiter=separator), []))
        if not columns:
            raise ValueError(f"{path.name} is empty: a line with column names must come first")
        if lacking := sorted(set(needed) - set(columns)):
            raise ValueError(
                f"{path.name} has no column {', '.join(lacking)}: not the official file"
            )
        return cls(path, columns, separator, header=True)

    def chunks(self, position: int = 0, line: int = 0) -> Iterator[Chunk]:
        with fetch.reading(self.path), _opened(self.path) as file:
            file.seek(position)
            while block := file.read(CHUNK_BYTES):
                block += file.readline()
                for _ in range(QUOTED_LINES if self._quoted(block) else 0):
                    if block.count(b'"') % 2 == 0:
                        break
                    block += file.readline()
                position += len(block)
                chunk = self._parse(block, line, position)
                line = chunk.next_line
                yield chunk

    def _quoted(self, block: bytes) -> bool:
        return self.separator == "," and b'"' in block

    def _parse(self, block: bytes, line: int, position: int) -> Chunk:
        texts = block.removeprefix(BOM if line == 0 else b"").split(b"\n")
        if texts[-1] == b"":
            texts.pop()
        next_line = line + len(texts)
        if b"\r" in block:
            texts = [t.removesuffix(b"\r") for t in texts]
        if self._quoted(block):
            good, numbers, rejected = self._cells(texts, line)
            frame = pl.DataFrame(good, dict.fromkeys(self.columns, pl.String), orient="row")
        else:
            good, numbers, rejected = self._lines(texts, line)
            frame = self._frame(good)
        return Chunk(frame, np.array(numbers, np.int64), rejected, position, next_line)

    def _lines(self, texts: list[bytes], line: int) -> tuple[list[bytes], list[int], list]:
        """Lines with the right number of cells and in UTF-8, and the others with a reason."""
        want, mark = len(self.columns) - 1, self.separator.encode()
        good, numbers, rejected = [], [], []
        for number, text in enumerate(texts, line):
            if number == 0 and self.header:
                continue
            if text.count(mark) != want:
                reason = f"{text.count(mark) + 1} columns, not {want + 1}"
                rejected.append((number, reason, text.decode(errors="replace")))
            else:
                good.append(text)
                numbers.append(number)
        if not _is_utf8(b"".join(good)):
            keep = [_is_utf8(t) for t in good]
            rejected += [
                (n, "not UTF-8", t.decode(errors="replace"))
                for n, t, k in zip(numbers, good, keep, strict=True)
                if not k
            ]
            good = [t for t, k in zip(good, keep, strict=True) if k]
            numbers = [n for n, k in zip(numbers, keep, strict=True) if k]
        return good, numbers, rejected

    def _frame(self, good: list[bytes]) -> pl.DataFrame:
        schema = dict.fromkeys(self.columns, pl.String)
        if not good:
            return pl.DataFrame(schema=schema)
        return pl.read_csv(
            io.BytesIO(b"\n".join(good) + b"\n"), separator=self.separator, has_header=False,
            schema=schema, quote_char=None,
        )  # fmt: skip

    def _cells(self, texts: list[bytes], line: int) -> tuple[list[list[str]], list[int], list]:
        """As `_lines`, for records whose cells may be quoted; a record has its first line's number."""
        good, numbers, rejected, k = [], [], [], 0
        while k < len(texts):
            end = k + 1  # a record ends where its quotes are closed
            quotes = texts[k].count(b'"')
            while quotes % 2 and end < min(len(texts), k + QUOTED_LINES):
                quotes += texts[end].count(b'"')
                end += 1
            cells, number = _record(texts[k:end]), line + k
            if number == 0 and self.header:
                pass
            elif isinstance(cells, list) and len(cells) == len(self.columns):
                good.append(cells)
                numbers.append(number)
            else:
                end = k + 1  # only this line is lost
                have = f"{len(cells)} columns, not {len(self.columns)}"
                reason = cells if isinstance(cells, str) else have
                rejected.append((number, reason, texts[k].decode(errors="replace")))
            k = end
        return good, numbers, rejected


class FrameSource:
    """A table in memory; every column is read as text, missing and NaN as empty."""

    size, size_in_memory = None, 0

    def __init__(self, frame: pl.DataFrame):
        floats = pl.selectors.float().fill_nan(None)
        self.frame = frame.with_columns(floats).select(pl.all().cast(pl.String).fill_null(""))
        self.columns = tuple(frame.columns)
        self.stamp = f"{frame.height} {frame.columns}"

    def chunks(self, position: int = 0, line: int = 0) -> Iterator[Chunk]:
        for start in range(position, self.frame.height, CHUNK_ROWS):
            part = self.frame.slice(start, CHUNK_ROWS)
            end = start + part.height
            yield Chunk(part, np.arange(start, end), [], end, end)


def aside(rejected: list[tuple[int, str, str]]) -> bytes:
    """Refused rows as lines of rejected.tsv: line from 1, reason, text with its line ends escaped."""
    escaped = [
        (n + 1, why, text.replace("\r", "\\r").replace("\n", "\\n")) for n, why, text in rejected
    ]
    return "".join(f"{n}\t{why}\t{text}\n" for n, why, text in escaped).encode()


def progress(source, what: str, position: int = 0, line: int = 0) -> Iterable[Chunk]:
    """The chunks of a source from a position on, with a bar where it takes long."""
    with tqdm(total=source.size, unit="B", unit_scale=True, desc=what, initial=position,
              delay=2, leave=False) as bar:  # fmt: skip
        for chunk in source.chunks(position, line):
            yield chunk
            bar.update(chunk.position - bar.n)


def splitmix(lines: Int[np.ndarray, " n"], seed: int) -> UInt64[np.ndarray, " n"]:
    """A hash of each line number (splitmix64): it depends neither on chunks nor on other lines."""
    with np.errstate(over="ignore"):
        z = (lines.astype(np.uint64) + np.uint64(seed * 0x632BE5AB + 1)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _opened(path: Path):
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _record(texts: list[bytes]) -> list[str] | str:
    """The cells of one record, or why it has none."""
    try:
        text = b"\n".join(texts).decode()
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except UnicodeDecodeError:
        return "not UTF-8"
    except csv.Error as error:
        return f"broken quotes: {error}"
    return rows[0] if len(rows) == 1 else "broken quotes"


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
