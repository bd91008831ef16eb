"""Files of rows by the endings of their names: csv, tsv, jsonl and parquet, each also .gz, and folders."""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from .. import fetch, sources
from ..formats import json_lines
from ..sources import Chunk, Files, Source, TextSource, as_text, measured

ENDINGS = ("csv", "tsv", "jsonl", "ndjson", "parquet")
KNOWN = ".csv, .tsv, .jsonl, .parquet, or one of them with .gz"
HEAD = 1000  # lines of a file of JSON in which its columns are looked for


def opened(paths: Sequence[Path]) -> Source:
    """The rows of files, and of all files in folders, in the order of their names.

    Raises ValueError where there is no such file, for other endings, and where columns differ.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if _counts(p, path))
            if not found:
                raise ValueError(f"{path} holds no file that ends with {KNOWN}")
            files += found
        elif not path.is_file():
            raise ValueError(f"no file or folder {path}")
        elif _ending(path) not in ENDINGS:
            raise ValueError(f"{path.name}: a name must end with {KNOWN}")
        else:
            files.append(path)
    if twice := [str(p) for p, n in Counter(p.resolve() for p in files).items() if n > 1]:
        raise ValueError(f"files occur twice: {', '.join(twice)}")
    try:
        made = [_source(path) for path in files]
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from None
    if all(isinstance(source, JsonLines) for source in made):  # a key may be missing
        columns = dict.fromkeys(c for source in made for c in source.columns)
        for source in made:
            source.columns = tuple(columns)
    return made[0] if len(made) == 1 else Files(made)


def _counts(path: Path, folder: Path) -> bool:
    """Whether a file of a folder holds rows: hidden ones and those of _folders do not."""
    hidden = any(name.startswith((".", "_")) for name in path.relative_to(folder).parts)
    return path.is_file() and not hidden and _ending(path) in ENDINGS


def _ending(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").rpartition(".")[2]


def _source(path: Path) -> Source:
    match _ending(path):
        case "parquet":
            return Parquet(path)
        case "jsonl" | "ndjson":
            return JsonLines(path)
        case "tsv":
            return TextSource.with_header(path, (), "\t")
    names = sources.first_line(path)
    counts = {mark: len(next(csv.reader([names], delimiter=mark), [])) for mark in ",;\t"}
    return TextSource.with_header(path, (), max(counts, key=counts.get))


class JsonLines:
    """A JSON object in each line; its columns are the keys of the first thousand lines.

    A value must be text, a number, true, false or null, which is empty, like a key that is missing.
    Raises ValueError where none of those lines holds an object.
    """

    def __init__(self, path: Path):
        self.path = path
        self.size, self.size_in_memory, self.span, self.stamp = measured(path)
        keys: dict[str, None] = {}
        with fetch.reading(path), sources.unpacked(path) as file:
            for _, line in zip(range(HEAD), file, strict=False):
                row = json_lines.parse(line.removeprefix(sources.BOM))
                keys |= dict.fromkeys(row if isinstance(row, dict) else ())
        self.columns = tuple(k for k in keys if json_lines.is_unicode(k))
        if not self.columns:
            raise ValueError(f"{path.name} has no line with a JSON object")

    def chunks(self, position: int = 0, line: int = 0) -> Iterator[Chunk]:
        with fetch.reading(self.path), sources.unpacked(self.path) as file:
            file.seek(position)
            while texts := file.readlines(sources.CHUNK_BYTES):
                position += sum(map(len, texts))
                good, numbers, rejected = [], [], []
                for number, text in enumerate(texts, line):
                    cells = self._cells(text.removeprefix(sources.BOM if number == 0 else b""))
                    if isinstance(cells, str):
                        rejected.append((number, cells, text.decode(errors="replace").strip()))
                    else:
                        good.append(cells)
                        numbers.append(number)
                line += len(texts)
                frame = pl.DataFrame(good, dict.fromkeys(self.columns, pl.String), orient="row")
                yield Chunk(frame, np.array(numbers, np.int64), rejected, position, line)

    def _cells(self, line: bytes) -> list[str] | str:
        row = json_lines.parse(line)
        if isinstance(row, str):
            return row
        cells = []
        for column in self.columns:
            value = row.get(column)
            if isinstance(value, list | dict):
                return f"{column} is neither text nor a number"
            text = "" if value is None else str(value)
            cells.append(text.lower() if isinstance(value, bool) else text)
        return cells if all(map(json_lines.is_unicode, cells)) else "not valid Unicode"


class Parquet:
    """A parquet file, read some rows at a time; columns of lists and structs are left out.

    Raises ValueError for a file that is no parquet.
    """

    size = None

    def __init__(self, path: Path):
        self.path, self.table = path, path
        self.size_in_memory, self.stamp = measured(path)[1] * 4, measured(path)[3]
        if path.suffix == ".gz":
            with fetch.reading(path):
                self.table = io.BytesIO(gzip.decompress(path.read_bytes()))
        try:
            schema = pl.scan_parquet(self.table).collect_schema()
            self.span = pl.scan_parquet(self.table).select(pl.len()).collect().item()
        except (pl.exceptions.PolarsError, OSError):
            raise ValueError(f"{path.name} is no parquet file that can be read") from None
        self.columns = tuple(n for n, t in schema.items() if not t.is_nested() and t != pl.Binary)
        if not self.columns:
            raise ValueError(f"{path.name} has no column of texts or numbers")

    def chunks(self, position: int = 0, line: int = 0) -> Iterator[Chunk]:
        rows = pl.scan_parquet(self.table).select(self.columns)
        for start in range(position, self.span, sources.CHUNK_ROWS):
            try:
                frame = as_text(rows.slice(start, sources.CHUNK_ROWS).collect())
            except pl.exceptions.PolarsError:
                raise fetch.Broken(f"{self.path.name} is broken: it cannot be read whole") from None
            lines = np.arange(line, line := line + frame.height)
            yield Chunk(frame, lines, [], start + frame.height, line)
