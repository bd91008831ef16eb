"""Loaders of histories: official files or local forms to next-item logs, prepared once."""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl

from . import fetch, movielens, next_items, prepare
from .catalogue import Entry
from .next_items import Interactions
from .prepare import Chunk, FrameSource, TextSource
from .store import Log

VERSION = 1  # raise when a loader's result changes: prepared stores are then made anew


def load(entry: Entry, cache: Path, *, seed: int = 0, part: str | None = None, **view) -> Log:
    """A set of histories as a next-item log: see `next_items`.

    part: which of an entry's sets, where it has several. seed: of ties and negatives.
    view: ``length`` (>= 1, most recent events that a row uses, 100) and ``negatives`` of the test
    part ("uniform" or "popular"), see `next_items.open_next_items`.
    Raises ValueError for an unknown part or option, FileNotFoundError as `fetch` does.
    """
    parts = PARTS.get(entry.name, lambda _: [None])(entry)
    wrong = sorted(set(view) - {"length", "negatives"})
    if wrong:
        known = "length, negatives, seed" + (", part" if parts[0] else "")
        raise ValueError(f"{entry.name} takes {known}, not {', '.join(wrong)}")
    if part is None:
        part = parts[0]
    if part not in parts:
        choice = ", ".join(parts) if parts[0] else "no parts"
        raise ValueError(f"{entry.name} has {choice}, not {part!r}")
    source, what = MAKERS[entry.name](entry, *([part] if part else []))
    name = f"{entry.name}-{part}" if part else entry.name
    key = json.dumps([VERSION, name, seed, repr(what), source.stamp])
    folder = cache / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
    if not (folder / "schema.json").is_file():
        notes = {"title": entry.title, "terms": entry.terms, "citation": entry.citation}
        next_items.prepare(source, what, folder, notes, seed)
    return next_items.open_next_items(folder, name, **view)


def _frames(entry: Entry, *names: str) -> list[pl.DataFrame]:
    found = fetch.local_form(entry, *names)
    if found is None:
        raise fetch.missing(entry, *names)
    return [pl.read_parquet(found[n]) for n in names]


def _table(path: Path, needed: tuple[str, ...]) -> TextSource:
    """A .csv with a header that holds at least the needed columns."""
    with path.open() as file:
        columns = tuple(file.readline().strip().split(","))
    lacking = sorted(set(needed) - set(columns))
    if lacking:
        raise ValueError(f"{path.name} has no column {', '.join(lacking)}: not the official file")
    return TextSource(path, columns, ",", header=True)


# Amazon -------------------------------------------------------------------------------------------


class Reviews:
    """Amazon's 5-core reviews, one JSON object a line, gzipped; categories from the products' file."""

    size = None
    ASIN = re.compile(rb"""['"]asin['"]:\s*['"]([^'"]+)""")

    def __init__(self, reviews: Path, products: Path):
        self.path, self.products = reviews, products
        self.size_in_memory = 4 * reviews.stat().st_size  # texts of reviews are not kept
        self.stamp = " ".join(
            f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in (reviews, products)
        )

    def chunks(self, position: int = 0, line: int = 0) -> Iterator[Chunk]:
        with fetch.reading(self.path), gzip.open(self.path, "rb") as file:
            file.seek(position)
            while texts := file.readlines(prepare.CHUNK_BYTES):
                good, numbers, rejected = [], [], []
                for number, text in enumerate(texts, line):
                    try:
                        row = json.loads(text)
                        good.append([str(row[k]) for k in ("reviewerID", "asin", "unixReviewTime")])
                        numbers.append(number)
                    except (ValueError, KeyError, TypeError) as error:
                        reason = f"no {error}" if isinstance(error, KeyError) else "not JSON"
                        shown = text.decode(errors="replace").strip()[:200]
                        rejected.append((number, reason, shown))
                line += len(texts)
                schema = dict.fromkeys(("user", "item", "time"), pl.String)
                frame = pl.DataFrame(good, schema, orient="row")
                yield Chunk(frame, pl.Series(numbers, dtype=pl.Int64).to_numpy(), rejected,
                            file.tell(), line)  # fmt: skip

    def categories(self, items: pl.Series) -> pl.DataFrame:
        """The last element of a product's (last) category path; "" where it cannot be read.

        The files of 2014 hold Python literals, those of 2018 JSON.
        """
        wanted, found = set(items.to_list()), {}
        with fetch.reading(self.products), gzip.open(self.products, "rb") as file:
            for line in file:
                asin = self.ASIN.search(line)
                if asin and (name := asin[1].decode(errors="replace")) in wanted:
                    found.setdefault(name, _leaf(line))
        schema = {"item": pl.String, "category": pl.String}
        return pl.DataFrame({"item": list(found), "category": list(found.values())}, schema)


def _leaf(line: bytes) -> str:
    try:
        text = line.decode()
        row = ast.literal_eval(text) if text.startswith("{'") else json.loads(text)
        paths = row.get("categories") or [row["category"]]
        return str(paths[-1][-1])
    except (ValueError, SyntaxError, KeyError, IndexError, TypeError):
        return ""


def _amazon_parts(entry: Entry) -> list[str]:
    files = [f.name.removeprefix("reviews_") for f in entry.files]
    return [f.removesuffix("_5.json.gz").lower() for f in files if f.endswith("_5.json.gz")]


def _amazon(entry: Entry, part: str):
    patterns = rf"(reviews_)?{part}_5\.json\.gz", rf"meta_{part}\.json\.gz"
    reviews, products = (
        next(f.name for f in entry.files if re.fullmatch(p, f.name, re.IGNORECASE))
        for p in patterns
    )
    source = Reviews(fetch.official(entry, reviews), fetch.official(entry, products))
    return source, Interactions("user", "item", "time")


def _s3rec(entry: Entry, part: str):
    """An item's category is its last attribute: the leaf of its category path, after brand and path
    (our reading of the file)."""
    sequences, items = _frames(
        entry, f"{part}_sequences.parquet", f"{part}_item_attributes.parquet"
    )
    leaf = items.select("item", category=pl.col("attributes").list.last())
    events = sequences.rename({"items": "item"}).explode("item")
    events = events.join(leaf, on="item", how="left", maintain_order="left")
    return FrameSource(events), Interactions("user", "item", category="category")


def _sasrec(entry: Entry, part: str):
    (events,) = _frames(entry, f"{part}.parquet")
    return FrameSource(events), Interactions("user", "item")


# Shops --------------------------------------------------------------------------------------------


def _userbehavior(entry: Entry):
    """The set covers 2017-11-25 to 2017-12-03, Beijing time; other times are malformed."""
    columns = ("user", "item", "category", "behaviour", "time")
    source = TextSource(fetch.official(entry, "UserBehavior.csv"), columns, ",")
    window = (1_511_539_200, 1_512_316_800)
    return source, Interactions("user", "item", "time", "category", window=window)


def _retailrocket(entry: Entry):
    needed = ("timestamp", "visitorid", "itemid")
    source = _table(fetch.official(entry, "events.csv"), needed)
    return source, Interactions("visitorid", "itemid", "timestamp", ticks=1000)


def _multibehavior(entry: Entry):
    (events,) = _frames(entry, "train_events.parquet")
    return FrameSource(events), Interactions("user", "item", "timestamp")


# Films, videos, sessions --------------------------------------------------------------------------


def _movielens(entry: Entry):
    """Every rating is an event, whatever its stars; the first genre is the category."""
    ratings, _, items = movielens.tables(entry)
    genre = items.select("item_id", category=movielens.FIRST_GENRE)
    events = ratings.join(genre, on="item_id", how="left", maintain_order="left")
    return FrameSource(events), Interactions("user_id", "item_id", "timestamp", "category")


class VideoLogs:
    """KuaiRand's logs, one file after another; categories from its table of videos."""

    def __init__(self, logs: list[Path], videos: Path):
        needed = ("user_id", "video_id", "time_ms", "is_click")
        self.logs, self.videos = [_table(p, needed) for p in logs], videos
        self.size = self.size_in_memory = sum(log.size for log in self.logs)
        self.stamp = " ".join(log.stamp for log in self.logs) + f" {videos.stat().st_size}"

    def chunks(self, position: int = 0, line: int = 0) -> Iterator[Chunk]:
        """Lines and positions are counted through all files."""
        for log in self.logs:
            for chunk in log.chunks():
                rejected = [(line + n, *rest) for n, *rest in chunk.rejected]
                end, lines = position + chunk.position, chunk.lines + line
                yield replace(chunk, lines=lines, rejected=rejected, position=end)
            position, line = end, line + chunk.next_line

    def categories(self, items: pl.Series) -> pl.DataFrame:
        """The first tag of each video."""
        tag = pl.col("tag").str.split(",").list.first()
        videos = pl.scan_csv(self.videos, infer_schema=False).select(item="video_id", category=tag)
        wanted = videos.join(items.to_frame("item").lazy(), on="item", how="semi")
        return wanted.unique("item", keep="first").collect(engine="streaming")


def _kuairand(entry: Entry, part: str):
    """Events are clicks; in the explicit-feedback part, likes."""
    if part == "explicit":
        (events,) = _frames(entry, "kuairand27k_explicit_kcore15.parquet")
        what = Interactions("user_id", "video_id", "time_ms", ticks=1000, only=("label", "1"))
        return FrameSource(events), what
    mine = [f.name for f in entry.files if re.search(rf"_{part}(_part\d)?\.csv$", f.name)]
    logs = [fetch.official(entry, n) for n in mine if n.startswith("log_")]
    videos = fetch.official(entry, next(n for n in mine if n.startswith("video_")))
    what = Interactions("user_id", "video_id", "time_ms", ticks=1000, only=("is_click", "1"))
    return VideoLogs(logs, videos), what


def _sessions(entry: Entry, part: str):
    """A session is a user; the sets' own test prefixes are other sessions and are not used."""
    (sessions,) = _frames(entry, f"{part}_train_sessions.parquet")
    return FrameSource(sessions.explode("items")), Interactions("session", "items")


def _yoochoose(entry: Entry):
    clicks = pl.concat(_frames(entry, "train_full.parquet", "test.parquet"))
    clicks = clicks.with_columns((pl.col("Time") * 1000).round().cast(pl.Int64))
    return FrameSource(clicks), Interactions("SessionId", "ItemId", "Time", ticks=1000)


def _before(ending: str) -> Callable[[Entry], list[str]]:
    """Parts of a set by its local files NAME + ending."""
    return lambda entry: [
        f.name.removesuffix(ending) for f in entry.local if f.name.endswith(ending)
    ]


PARTS: dict[str, Callable[[Entry], list[str]]] = {  # the first is the default
    "amazon-2014": _amazon_parts,
    "amazon-2018": _amazon_parts,
    "amazon-5core-s3rec": _before("_sequences.parquet"),
    "amazon-sasrec": _before(".parquet"),
    "session-sequences": _before("_train_sessions.parquet"),
    "kuairand": lambda _: ["explicit", "pure", "1k", "27k"],
}
MAKERS: dict[str, Callable] = {
    "amazon-2014": _amazon,
    "amazon-2018": _amazon,
    "amazon-5core-s3rec": _s3rec,
    "amazon-sasrec": _sasrec,
    "taobao-userbehavior": _userbehavior,
    "taobao-multibehavior": _multibehavior,
    "retailrocket": _retailrocket,
    "retailrocket-multibehavior": _multibehavior,
    "movielens-100k-sequences": _movielens,
    "kuairand": _kuairand,
    "session-sequences": _sessions,
    "yoochoose-100k": _yoochoose,
}
