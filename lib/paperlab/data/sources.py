"""Sources of raw rows: delimited text files and tables in memory, read in chunks.

A source yields rows as text with their line numbers, and the lines that it could not read. It can
start at any chunk, so that a killed preparation resumes.
"""

from __future__ import annotations

import csv
import gzip
import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

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
CONTROL = {*range(32), 127} - {*b"\t\n\v\f\r"}  # bytes that no line of text holds
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
GZIP = 1100  # how much smaller than its text a .gz can be at most


@dataclass(frozen=True)
class Chunk:
    """Some rows as text (label included), their line numbers, and the rejected lines."""

    frame: pl.DataFrame
    lines: Int[np.ndarray, " n"]
    rejected: list[tuple[int, str, str]]  # line from 0, reason, text
    position: int  # where the next chunk starts: a byte, or a row
    next_line: int


@runtime_checkable
class Source(Protocol):
    """Rows as text in chunks, from the position of any chunk on.

    size: bytes of all rows, for a progress bar, or None. size_in_memory: an estimate in bytes. span: an
    upper bound of all positions. stamp: a text that changes when the rows do.
    """

    columns: tuple[str, ...]
    size: int | None
    size_in_memory: int
    span: int
    stamp: str

    def chunks(self, position: int = 0, line: int = 0) -> Iterator[Chunk]: ...


class TextSource:
    """A delimited UTF-8 text file (gzip or plain), read a block of whole lines at a time.

    A byte-order mark and carriage returns at line ends are dropped. In files
    separated by commas or semicolons a cell may be quoted and then hold separators and line ends (RFC
    4180); in files separated by tabs, quotes are text.

    columns: names of the cells, in order. header: whether the first line holds names.
    Raises ValueError when two columns have one name.
    """

    def __init__(
        self, path: Path, columns: tuple[str, ...], separator: str = "\t", header: bool = False
    ):
        if doubled := sorted({c for c in columns if columns.count(c) > 1}):
            raise ValueError(f"{path.name}: columns occur twice: {', '.join(doubled)}")
        self.path, self.columns, self.separator, self.header = path, columns, separator, header
        self.size, self.size_in_memory, self.span, self.stamp = measured(path)

    @classmethod
    def with_header(cls, path: Path, needed: Iterable[str], separator: str = ",") -> TextSource:
        """A file whose first line names its columns, which must include the needed ones.

        A column without a name is called column_K, where K is its position from 1.
        Raises ValueError when it is empty, is UTF-16, or lacks or repeats a column.
        """
        first = first_line(path)
        cells = (c.strip() for c in next(csv.reader([first], delimiter=separator), []))
        columns = tuple(c or f"column_{k}" for k, c in enumerate(cells, 1))
        if not columns:
            raise ValueError(f"{path.name} is empty: a line with column names must come first")
        if lacking := sorted(set(needed) - set(columns)):
            raise ValueError(
                f"{path.name} has no column {', '.join(lacking)}: not the official file"
            )
        return cls(path, columns, separator, header=True)

    def chunks(self, position: int = 0, line: int = 0) -> Iterator[Chunk]:
        with fetch.reading(self.path), unpacked(self.path) as file:
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
        return self.separator != "\t" and b'"' in block

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
            cells, number = _record(texts[k:end], self.separator), line + k
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
        self.frame, self.columns, self.span = as_text(frame), tuple(frame.columns), frame.height
        self.stamp = f"{frame.height} {frame.columns}"

    def chunks(self, position: int = 0, line: int = 0) -> Iterator[Chunk]:
        for start in range(position, self.frame.height, CHUNK_ROWS):
            part = self.frame.slice(start, CHUNK_ROWS)
            end = start + part.height
            yield Chunk(part, np.arange(start, end), [], end, end)


class Files:
    """Several sources with the same columns, one after another; lines are counted through all.

    A position is the position in one source plus the spans of the sources before it.
    Raises ValueError when the columns differ.
    """

    def __init__(self, sources: Sequence[Source]):
        self.sources, self.columns = tuple(sources), sources[0].columns
        for source in sources:
            if differ := set(self.columns) ^ set(source.columns):
                raise ValueError(f"files differ in columns: {', '.join(sorted(differ))}")
        sizes = [s.size for s in sources]
        self.size = None if None in sizes else sum(sizes) + len(sizes)
        self.size_in_memory = sum(s.size_in_memory for s in sources)
        self.starts = [0, *accumulate(s.span + 1 for s in sources)]
        self.span = self.starts[-1]
        self.stamp = " ".join(s.stamp for s in sources)

    def chunks(self, position: int = 0, line: int = 0) -> Iterator[Chunk]:
        first = bisect_right(self.starts, position) - 1
        for k, source in enumerate(self.sources[first:], first):
            start = self.starts[k]
            inside = max(position - start, 0)
            before = 0 if inside else line  # a file that is begun counts its lines from 0
            for chunk in source.chunks(inside, 0 if before else line):
                yield replace(
                    chunk,
                    frame=chunk.frame.select(self.columns),
                    lines=chunk.lines + before,
                    rejected=[(before + n, *rest) for n, *rest in chunk.rejected],
                    position=start + chunk.position,
                    next_line=(line := before + chunk.next_line),
                )


def measured(path: Path) -> tuple[int | None, int, int, str]:
    """Size, size in memory, span and stamp of a file of text, as a `Source` has them."""
    stat = path.stat()
    stamp = f"{path.name} {stat.st_size} {stat.st_mtime_ns}"
    if path.suffix == ".gz":
        return None, 8 * stat.st_size, GZIP * (stat.st_size + 1), stamp
    return stat.st_size, stat.st_size, stat.st_size, stamp


def first_line(path: Path) -> str:
    """The first line of a file of text; raises ValueError where it is UTF-16 or binary."""
    with fetch.reading(path), unpacked(path) as file:
        first = file.readline()
    if first.startswith(UTF_16) or b"\0" in first:
        raise ValueError(f"{path.name} is no UTF-8 text (UTF-16?): save it as UTF-8")
    if set(first) & CONTROL:  # else a message would print them as names of columns
        raise ValueError(f"{path.name} is no text: its first line has control characters")
    return first.removeprefix(BOM).decode("utf-8", "replace").strip()


def as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """Every column as text, missing values and NaN as empty."""
    floats = pl.selectors.float().fill_nan(None)
    return frame.with_columns(floats).select(pl.all().cast(pl.String).fill_null(""))


def moments(texts: pl.Series) -> pl.Series:
    """Times as numbers: a number as it is, an ISO date in seconds since 1970 (UTC without an offset).

    Null where a text is neither, or no finite number.
    """
    texts = texts.str.strip_chars()
    number = texts.cast(pl.Float64, strict=False)
    number = pl.select(pl.when(number.is_finite()).then(number)).to_series()
    if not number.null_count():
        return number
    plain = texts.str.replace(r"^(\d{4}-\d\d-\d\d)T", "$1 ").str.replace(r"( ?UTC|Z)$", "")
    forms = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
    dates = [plain.str.to_datetime(f, time_unit="us", strict=False) for f in forms[:2]]
    dates.append(plain.str.to_date(forms[2], strict=False).cast(pl.Datetime("us")))
    zoned = plain.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", time_unit="us", strict=False)
    dates.append(zoned.dt.replace_time_zone(None))
    seconds = [d.dt.timestamp("us") / 1e6 for d in dates]
    return pl.select(pl.coalesce(number, *seconds)).to_series()


def rejected_rows(frame: pl.DataFrame, lines: Int[np.ndarray, " n"], reasons: pl.Series) -> list:
    """(line, reason, text) of each row with a reason."""
    bad = reasons != ""
    rows = frame.filter(bad).iter_rows()
    return [
        (int(line), reason, "\t".join(row))
        for line, reason, row in zip(lines[bad.to_numpy()], reasons.filter(bad), rows, strict=True)
    ]


def aside(rejected: list[tuple[int, str, str]]) -> bytes:
    """Rejected rows as lines of rejected.tsv: line from 1, reason, text with its line ends escaped."""
    escaped = [
        (n + 1, why, text.replace("\r", "\\r").replace("\n", "\\n")) for n, why, text in rejected
    ]
    return "".join(f"{n}\t{why}\t{text}\n" for n, why, text in escaped).encode()


def progress(source, what: str, position: int = 0, line: int = 0) -> Iterable[Chunk]:
    """The chunks of a source from a position on, with a progress bar after two seconds."""
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


def unpacked(path: Path):
    """A file open for reading bytes, unpacked where its name ends in .gz."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _record(texts: list[bytes], separator: str) -> list[str] | str:
    """The cells of one record, or why it has none."""
    try:
        text = b"\n".join(texts).decode()
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
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
