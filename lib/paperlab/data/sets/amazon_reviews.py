"""Amazon's 5-core reviews, one JSON object a line, gzipped; categories from the products' file."""

from __future__ import annotations

import ast
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from ... import checks
from .. import fetch, next_items, sources
from ..catalogue import Entry
from ..formats import json_lines
from ..interactions import Interactions
from ..next_items import Histories
from ..sources import Chunk

KEYS = {"reviewerID": "user", "asin": "item", "unixReviewTime": "time"}
ASIN = re.compile(rb"""['"]asin['"]:\s*['"]([^'"]+)""")


@next_items.loader
def load(entry: Entry, *, part: str | None = None) -> Histories:
    """The next-item log of a category of products; a product's category is the leaf of its path.

    part: which of them; the first by default.
    """
    names = [f.name.removeprefix("reviews_") for f in entry.files]
    parts = [n.removesuffix("_5.json.gz").lower() for n in names if n.endswith("_5.json.gz")]
    part = parts[0] if part is None else part
    checks.one_of(parts, part=part)
    patterns = rf"(reviews_)?{part}_5\.json\.gz", rf"meta_{part}\.json\.gz"
    reviews, products = (
        next(f.name for f in entry.files if re.fullmatch(p, f.name, re.IGNORECASE))
        for p in patterns
    )
    source = Reviews(fetch.official(entry, reviews), fetch.official(entry, products))
    what = Interactions("user", "item", "time")
    return Histories(source, what, part)


class Reviews:
    """A source of reviews; texts of reviews are not kept."""

    size, columns = None, tuple(KEYS.values())

    def __init__(self, reviews: Path, products: Path):
        self.path, self.products = reviews, products
        self.size_in_memory = 4 * reviews.stat().st_size
        self.stamp = " ".join(
            f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in (reviews, products)
        )

    def chunks(self, position: int = 0, line: int = 0) -> Iterator[Chunk]:
        with fetch.reading(self.path), gzip.open(self.path, "rb") as file:
            file.seek(position)
            while texts := file.readlines(sources.CHUNK_BYTES):
                good, numbers, rejected = [], [], []
                for number, text in enumerate(texts, line):
                    cells = _cells(text)
                    if isinstance(cells, str):
                        shown = text.decode(errors="replace").strip()[:200]
                        rejected.append((number, cells, shown))
                    else:
                        good.append(cells)
                        numbers.append(number)
                line += len(texts)
                frame = pl.DataFrame(good, dict.fromkeys(self.columns, pl.String), orient="row")
                yield Chunk(frame, np.array(numbers, np.int64), rejected, file.tell(), line)

    def categories(self, items: pl.Series) -> pl.DataFrame:
        """The last element of a product's (last) category path; "" where it cannot be read.

        The files of 2014 hold Python literals, those of 2018 JSON.
        """
        wanted, leaves = set(items.to_list()), {}
        for line in json_lines.lines(self.products):
            asin = ASIN.search(line)
            if asin and (name := asin[1].decode(errors="replace")) in wanted:
                leaves.setdefault(name, _leaf(line))
        schema = {"item": pl.String, "category": pl.String}
        return pl.DataFrame({"item": list(leaves), "category": list(leaves.values())}, schema)


def _cells(line: bytes) -> list[str] | str:
    """User, item and time of a review, or what is wrong with it."""
    row = json_lines.parse(line)
    if isinstance(row, str):
        return row
    for key in KEYS:
        if key not in row:
            return f"no {key}"
        if isinstance(row[key], bool) or not isinstance(row[key], str | int | float):
            return f"{key} is neither text nor a number"
    cells = [str(row[key]) for key in KEYS]
    return cells if all(map(json_lines.is_unicode, cells)) else "not valid Unicode"


def _leaf(line: bytes) -> str:
    try:
        text = line.decode()
        row = ast.literal_eval(text) if text.startswith("{'") else json.loads(text)
        paths = row.get("categories") or [row["category"]]
        leaf = str(paths[-1][-1])
    except (ValueError, SyntaxError, LookupError, TypeError, AttributeError):
        return ""
    except (RecursionError, MemoryError):  # nested too deeply
        return ""
    return leaf if json_lines.is_unicode(leaf) else ""
