"""MovieLens's three tables, from the official archives or a local form."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import polars as pl

from .. import fetch
from ..catalogue import Entry
from . import parquet

LARGEST = 1 << 30  # bytes of a table in an archive: those of ml-1m have 24 MB at most

# Of "Drama|War" (archives) or "Drama War" (local form).
FIRST_GENRE = (
    pl.col("genres").str.split(" ").list.first().str.split("|").list.first()
)  # fmt: skip


def tables(entry: Entry) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Ratings (user_id, item_id, rating, timestamp in s), users, and items with their genres."""
    if entry.local and fetch.local_form(entry):
        ratings, users, items = parquet.local(
            entry, *(f"{n}.parquet" for n in ("ratings", "users", "items"))
        )
        items = items.rename({"class": "genres"} if "class" in items.columns else {})
        users = users.rename({"zip_code": "zip"} if "zip_code" in users.columns else {})
        return ratings, users, items
    if not entry.files:
        raise fetch.missing(entry)
    return _archive(fetch.official(entry, entry.files[0].name))


def _archive(path: Path) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Ratings, users and items of ml-100k.zip or ml-1m.zip, read inside the archive.

    Raises Broken for an archive that is cut, lacks a table, or has one that is too large or no table.
    """
    small = path.name == "ml-100k.zip"
    files = ("u.data", "u.user", "u.item") if small else ("ratings.dat", "users.dat", "movies.dat")
    marks = ("\t", "|", "|") if small else ("::",) * 3
    columns = (
        ("user_id", "item_id", "rating", "timestamp"),
        ("user_id", "age", "gender", "occupation", "zip")
        if small
        else ("user_id", "gender", "age", "occupation", "zip"),
        ("item_id", "title", "genres"),
    )
    frames = []
    with fetch.reading(path), zipfile.ZipFile(path) as archive:
        for name, mark, heads in zip(files, marks, columns, strict=True):
            try:
                frames.append(_table(archive.getinfo(f"{path.stem}/{name}"), archive, mark, heads))
            except (KeyError, ValueError, RuntimeError, pl.exceptions.PolarsError):
                raise fetch.Broken(f"{path.name} has no table {name} that can be read") from None
    return tuple(frames)


def _table(member: zipfile.ZipInfo, archive, mark: str, heads: tuple[str, ...]) -> pl.DataFrame:
    if member.file_size > LARGEST:
        raise ValueError(f"{member.filename} claims {member.file_size:,} bytes")
    text = archive.read(member).decode("latin-1").replace(mark, "\x1f")
    frame = pl.read_csv(io.StringIO(text), separator="\x1f", has_header=False, quote_char=None)
    if member.filename.endswith("u.item"):
        # 19 flags from column 6 on; the first raised one is the genre
        flags = frame.columns[5:]
        genre = pl.coalesce(
            pl.when(pl.col(c).cast(pl.Int8) == 1).then(pl.lit(f"g{k}")) for k, c in enumerate(flags)
        )
        frame = frame.select(*frame.columns[:2], genre.alias("genres"))
    return frame.rename(dict(zip(frame.columns, heads, strict=True)))
