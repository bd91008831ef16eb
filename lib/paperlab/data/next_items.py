"""Next-item prediction from user-item interactions: TIN's protocol, streamed in bounded memory.

Of a user's items b_1 .. b_n in order of time, one row has the history b_1 .. b_k, the target
b_{k+1} and label 1; a twin row of the same history and time has label 0 and, as its target, an item
without any interaction of the user, drawn uniformly from the items of all kept users. k + 1 = 2 .. n-2 are for training, n-1 for validation, n
for the test. The test part has a second form whose negatives are drawn in proportion to their number
of events, so that popularity alone does not find the positive.

Only the first event of a user with an item counts: a negative is never in the history, so a repeated
target would be recognised as a positive by that alone. Users with fewer than four items are left out.
The negatives avoid the user's later items too, which is a slight look ahead, as in the paper's code.

Three passes: events are partitioned by user into shares that fit into memory, each share is sorted,
then rows are written. Ties in time are shuffled by a seeded hash of the line.
"""

from __future__ import annotations

import inspect
import json
import shutil
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch

from .. import checks
from . import fetch, stores
from .catalogue import Entry
from .interactions import EVENT, Dealt, Interactions, deal
from .schema import Field, Schema
from .sources import Source
from .store import SPLITS, Log, open_store

if TYPE_CHECKING:
    from jaxtyping import Int

VERSION = 2  # raise when a store's bytes change: stores are then prepared anew
LENGTH = 100  # of a history as a model sees it; the store keeps all of it
SHORTEST = 4  # items: one row to train on, one to validate, one to test, one to begin with
SEEDS = {"train": 0, "valid": 1, "test": 2, "test_popular": 3}  # of negatives
COLUMNS = {"ids": "<i4", "values": "<f4", "spans": "<i8", "times": "<i8", "users": "<i4"}


class Histories(NamedTuple):
    """The events of a set or of one of its parts."""

    source: Source
    what: Interactions
    part: str | None = None


def loader(find: Callable[..., Histories]) -> Callable[..., Log]:
    """Make the ``load`` of a set out of a function that finds its events.

    ``load`` takes the options of ``find`` and these:
    length: most recent events of a history that a row uses.
    negatives: how those of the test part are drawn.
    seed: of ties in time and of negatives.
    """

    def load(
        entry: Entry,
        *,
        length: int = LENGTH,
        negatives: Literal["uniform", "popular"] = "uniform",
        seed: int = 0,
        **options,
    ) -> Log:
        source, what, part = find(entry, **options)
        name = f"{entry.name}-{part}" if part else entry.name

        def make(folder: Path, notes: dict) -> None:
            prepare(source, what, folder, notes, seed)

        folder = stores.prepared(entry, name, [VERSION, seed, repr(what), source.stamp], make)
        return open_next_items(folder, name, length=length, negatives=negatives)

    own, shared = (inspect.signature(f, eval_str=True).parameters for f in (find, load))
    both = [*own.values(), *(p for n, p in shared.items() if n not in ("entry", "options"))]
    load.__signature__ = inspect.Signature(both, return_annotation=Log)
    load.__doc__ = find.__doc__
    return load


def prepare(
    source: Source,
    what: Interactions,
    folder: Path,
    notes: dict,
    seed: int = 0,
) -> None:
    """Write ``source`` as a column store of histories at ``folder``, in folder + ".part" until done.

    A source with a method ``categories(items) -> DataFrame(item, category)`` supplies categories that
    its rows lack. ``users`` holds the user key. Malformed rows go to rejected.tsv. A store that is there
    already is kept; of several processes one prepares and the others wait.
    Raises ValueError when a column is missing, when no user has four items, or when one has them
    all.
    """
    if lacking := sorted(set(what.columns) - set(source.columns)):
        raise ValueError(f"{folder.name}: the source has no column {', '.join(lacking)}")
    with stores.locked(folder):
        if not stores.is_store(folder):
            _prepare(source, what, folder, notes, seed)


def _prepare(source, what: Interactions, folder: Path, notes: dict, seed: int) -> None:
    work = folder.with_name(folder.name + ".part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        dealt = deal(source, what, work, seed)
    except fetch.Broken:
        shutil.rmtree(work)
        raise
    if dealt.rejected:
        aside = f"{dealt.rejected:,} malformed rows set aside in rejected.tsv"
        warnings.warn(f"{folder.name}: {aside}", stacklevel=3)
    ordered = _order(work, dealt, what)
    if not len(ordered.counts):
        lost = f"; {dealt.rejected:,} rows are malformed" if dealt.rejected else ""
        raise ValueError(f"{folder.name}: no user has {SHORTEST} different items{lost}")
    known = int((ordered.popularity > 0).sum())
    if ordered.counts.max() >= known:
        raise ValueError(f"{folder.name}: a user has all {known:,} items: no negative is left")
    rows = _write_rows(work, dealt, ordered, what, seed)

    sizes = {"item": dealt.items + 1}
    if dealt.category is not None:
        sizes["category"] = int(dealt.category.max()) + 1
    fields = [Field(n, size=size) for n, size in sizes.items()]
    fields += [Field(f"{n}_history", "sequence", length=LENGTH, shares=n) for n in sizes]
    notes = notes | {
        "rows": rows,
        "rejected": dealt.rejected,
        "events": int(ordered.counts.sum()),
        "users": len(ordered.counts),
        "repeated events left out": ordered.repeats,
        "users left out": ordered.short,
    }
    for leftover in work.glob("*.share"):
        leftover.unlink()
    (work / "notes.json").write_text(json.dumps(notes, indent=1))
    (work / "schema.json").write_text(Schema(tuple(fields)).to_json())
    work.replace(folder)


def open_next_items(
    folder: Path,
    name: str,
    *,
    length: int = LENGTH,
    negatives: Literal["uniform", "popular"] = "uniform",
) -> Log:
    """Map a prepared store; only the test part depends on ``negatives``.

    length: the most recent events of a history that a row uses, >= 1.
    Raises ValueError for values out of range.
    """
    checks.whole(length=length)
    checks.one_of(("uniform", "popular"), negatives=negatives)
    log = open_store(folder, name)
    fields = (replace(f, length=length if f.length else 0) for f in log.schema.fields)
    parts = {p: replace(getattr(log, p), length=length) for p in SPLITS}
    if negatives == "popular":
        ids = torch.from_numpy(np.load(folder / "test_popular.ids.npy"))
        parts["test"] = replace(parts["test"], ids=ids)
    return replace(log, schema=replace(log.schema, fields=tuple(fields)), **parts)


# pass two: order ---------------------------------------------------------------------------------


@dataclass
class _Ordered:
    counts: Int[np.ndarray, " users"]  # items of each user, in the order of the event table
    users: list[int]  # of each share
    popularity: Int[np.ndarray, " codes"]  # events of every item code
    repeats: int
    short: int


def _order(work: Path, dealt: Dealt, what: Interactions) -> _Ordered:
    """The event table: users one after another, each in order of time, each item once."""
    counts, users, repeats, short = [], [], 0, 0
    popularity = np.zeros(dealt.items + 1, np.int64)
    width = 1 if dealt.category is None else 2
    with (work / "events.ids").open("wb") as ids, (work / "events.times").open("wb") as times:
        for k in range(dealt.shares):
            events = np.fromfile(work / f"{k}.share", EVENT)
            events = events[np.lexsort((events["tie"], events["time"], events["user"]))]
            pair = events["user"].astype(np.int64) * (dealt.items + 1) + events["item"]
            first = np.sort(np.unique(pair, return_index=True)[1])
            repeats += len(events) - len(first)
            events = events[first]
            _, place, count = np.unique(events["user"], return_inverse=True, return_counts=True)
            events = events[count[place] >= SHORTEST]
            short += int((count < SHORTEST).sum())
            count = count[count >= SHORTEST]
            counts.append(count)
            users.append(len(count))
            popularity += np.bincount(events["item"], minlength=dealt.items + 1)
            ids.write(_with_category(events["item"], dealt.category).tobytes())
            if what.time:
                times.write((events["time"] // what.ticks).tobytes())
    counts = np.concatenate(counts)
    _finish(work / "events.ids", (int(counts.sum()), width), "<i4")
    if what.time:
        _finish(work / "events.times", (int(counts.sum()),), "<i8")
    else:
        (work / "events.times").unlink()
    return _Ordered(counts, users, popularity, repeats, short)


def _with_category(items: Int[np.ndarray, " n"], category) -> Int[np.ndarray, "n C"]:
    columns = [items] if category is None else [items, category[items]]
    return np.stack(columns, 1).astype(np.int32)


# pass three: rows --------------------------------------------------------------------------------


def _write_rows(work: Path, dealt: Dealt, ordered: _Ordered, what: Interactions, seed: int):
    """Rows of every part, share by share; returns how many."""
    events = np.load(work / "events.ids.npy", mmap_mode="r")
    times = np.load(work / "events.times.npy", mmap_mode="r") if what.time else None
    rows = dict.fromkeys(SPLITS, 0)
    names = [f"{p}.{c}" for p in SPLITS for c in COLUMNS if what.time or c != "times"]
    names.append("test_popular.ids")
    known, events_to = np.flatnonzero(ordered.popularity), ordered.popularity.cumsum()

    def uniform(rng: np.random.Generator, n: int) -> np.ndarray:
        return known[rng.integers(len(known), size=n)]

    def popular(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.searchsorted(events_to, rng.integers(events_to[-1], size=n), "right")

    with ExitStack() as stack:
        files = {n: stack.enter_context((work / n).open("wb")) for n in names}
        user, start = 0, 0
        for k, count in enumerate(np.split(ordered.counts, np.cumsum(ordered.users)[:-1])):
            total = int(count.sum())
            item = np.asarray(events[start : start + total, 0])
            owner = np.repeat(np.arange(len(count)), count)
            begin = np.repeat(count.cumsum() - count, count)
            met = np.sort(owner * (dealt.items + 1) + item)
            left = np.repeat(count, count) - 1 - (np.arange(total) - begin)  # events still to come
            later = np.arange(total) > begin
            for part, mine in zip(SPLITS, (later & (left >= 2), left == 1, left == 0), strict=True):
                at = np.flatnonzero(mine)
                ways = [(part, uniform), ("test_popular", popular)][: 1 + (part == "test")]
                for name, way in ways:
                    draw = partial(way, np.random.default_rng([seed, k, SEEDS[name]]))
                    never = _never_met(draw, owner[at], met, dealt.items)
                    ids = _with_category(np.stack([item[at], never], 1).ravel(), dealt.category)
                    files[f"{name}.ids"].write(ids.tobytes())
                twice = np.repeat(at, 2)
                columns = {
                    "values": np.tile([1, 0], len(at)),
                    "spans": np.stack([begin[twice], twice], 1) + start,
                    "users": owner[twice] + user,
                }
                if times is not None:
                    columns["times"] = times[start + twice]
                for name, column in columns.items():
                    files[f"{part}.{name}"].write(column.astype(COLUMNS[name]).tobytes())
                rows[part] += len(twice)
            user, start = user + len(count), start + total
    width = events.shape[1]
    for name in names:
        part, column = name.replace("_popular", "").split(".")
        wide = {"ids": (width,), "values": (1,), "spans": (2,)}.get(column, ())
        _finish(work / name, (rows[part], *wide), COLUMNS[column])
    return rows


def _finish(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    stores.finish_npy(path, shape, dtype)
    path.unlink()


def _never_met(
    draw: Callable[[int], Int[np.ndarray, " n"]],
    user: Int[np.ndarray, " n"],
    met: Int[np.ndarray, " events"],
    items: int,
) -> Int[np.ndarray, " n"]:
    """For each row an item without interaction of its user; ``met`` holds user * (items + 1) + item, sorted."""
    drawn = draw(len(user))
    open_ = np.arange(len(user))
    while len(open_):
        pair = user[open_] * (items + 1) + drawn[open_]
        place = np.minimum(np.searchsorted(met, pair), len(met) - 1)
        open_ = open_[met[place] == pair]
        drawn[open_] = draw(len(open_))
    return drawn
