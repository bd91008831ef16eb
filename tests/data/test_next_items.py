"""The next-item protocol, row by row against the sheet; ties, negatives, chunks, and what is refused."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.data import next_items, sources
from paperlab.data.interactions import Interactions
from paperlab.data.next_items import open_next_items

WHAT = Interactions("u", "i", "t", "c")


def events(users: int = 60, items: int = 40, seed: int = 0) -> pl.DataFrame:
    """1 to 14 events a user in any order; times with ties, repeats of items, popular items."""
    draw = np.random.default_rng(seed)
    count = draw.integers(1, 15, users)
    item = (items * draw.random(count.sum()) ** 2).astype(int)
    frame = pl.DataFrame(
        {
            "u": [f"u{u}" for u in np.repeat(np.arange(users), count)],
            "i": [f"i{i}" for i in item],
            "t": draw.integers(1000, 1030, count.sum()),
            "c": [f"c{i % 7}" for i in item],
        }
    )
    return frame.sample(fraction=1, shuffle=True, seed=seed)


def made(frame: pl.DataFrame, folder: Path, what: Interactions = WHAT, seed: int = 0, **view):
    next_items.prepare(sources.FrameSource(frame), what, folder, {"title": "x"}, seed)
    return open_next_items(folder, "x", **view)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_rows_are_those_of_the_protocol(tmp_path):
    frame = events()
    log = made(frame, tmp_path / "x")
    wanted = {"train": Counter(), "valid": Counter(), "test": Counter()}
    for (_user,), mine in frame.group_by("u"):
        first = mine.group_by("i").agg(pl.col("t").min())
        n = first.height
        if n < 4:
            continue
        for k in range(2, n + 1):  # predict b_k from k - 1 items
            part = "train" if k <= n - 2 else "valid" if k == n - 1 else "test"
            wanted[part][k - 1] += 2
    for part, lengths in wanted.items():
        split = getattr(log, part)
        have = Counter((split.spans[:, 1] - split.spans[:, 0]).tolist())
        assert have == lengths
        assert split.labels[:, 0].tolist() == [1, 0] * (len(split) // 2)
        assert torch.equal(split.spans[::2], split.spans[1::2])
        assert torch.equal(split.users[::2], split.users[1::2])
        assert torch.equal(split.times[::2], split.times[1::2])
        at = split.spans[::2, 1]  # the positive is the event after the history
        assert torch.equal(split.ids[::2], log.events.ids[at])
        assert torch.equal(split.times[::2], log.events.times[at])
    assert log.user("test").unique(return_counts=True)[1].tolist() == [2] * log.notes["users"]
    assert [f.name for f in log.schema.fields] == [
        "item", "category", "item_history", "category_history",
    ]  # fmt: skip


def test_histories_go_forward_hold_each_item_once_and_negatives_none_of_them(tmp_path):
    frame = events()
    log = made(frame, tmp_path / "x", negatives="popular")
    starts = {}
    for part in ("train", "valid", "test"):
        split = getattr(log, part)
        for (a, b), user in zip(split.spans.tolist(), split.users.tolist(), strict=True):
            starts.setdefault(user, [a, b])[1] = max(starts.get(user, [a, b])[1], b + 1)
    for a, b in starts.values():
        times, items = log.events.times[a:b], log.events.ids[a:b, 0].tolist()
        assert (times.diff() >= 0).all()
        assert len(set(items)) == len(items)
    for split in (log.train, log.valid, log.test, open_next_items(tmp_path / "x", "x").test):
        for item, user in zip(split.ids[1::2, 0].tolist(), split.users[1::2].tolist(), strict=True):
            a, b = starts[user]
            assert item not in log.events.ids[a:b, 0].tolist()
            assert item in log.events.ids[:, 0]


def test_a_negative_has_the_category_of_its_item(tmp_path):
    log = made(events(), tmp_path / "x")
    every = torch.cat([log.events.ids, log.train.ids, log.valid.ids, log.test.ids])
    assert len(every.unique(dim=0)) == len(every[:, 0].unique())
    alone = made(events(), tmp_path / "y", Interactions("u", "i", "t"))
    assert len(alone.schema.fields) == 2
    assert torch.equal(alone.train.ids[:, 0], log.train.ids[:, 0])


def test_only_the_test_part_knows_how_its_negatives_were_drawn(tmp_path):
    log = made(events(900, 600), tmp_path / "x")
    popular = open_next_items(tmp_path / "x", "x", negatives="popular", length=3)
    for part in ("train", "valid"):
        assert torch.equal(getattr(log, part).ids, getattr(popular, part).ids)
    assert torch.equal(log.test.ids[::2], popular.test.ids[::2])
    count = torch.bincount(log.events.ids[:, 0]).double()
    positives, uniform, matched = (
        count[ids[:, 0].long()].mean()
        for ids in (log.test.ids[::2], log.test.ids[1::2], popular.test.ids[1::2])
    )
    assert uniform < 0.75 * positives
    assert abs(matched - positives) < 0.35 * (positives - uniform)
    assert popular.schema.length == popular.test.take(slice(None)).history.shape[1] == 3
    assert log.schema.length == 100


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.integers(1, 40))
def test_neither_chunks_nor_order_of_columns_change_a_byte(tmp_path_factory, seed, rows):
    folder = tmp_path_factory.mktemp("x")
    frame = events(20, seed=seed)
    made(frame, folder / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "CHUNK_ROWS", rows)
        made(frame.select("c", "t", "i", "u"), folder / "cut")
    assert contents(folder / "whole") == contents(folder / "cut")


def test_many_shares_hold_the_rows_of_one(tmp_path):
    frame, logs = events(), []
    for shares in (1, 5):
        source = sources.FrameSource(frame)
        source.size_in_memory = (shares - 1) << 26
        next_items.prepare(source, WHAT, tmp_path / str(shares), {})
        logs.append(open_next_items(tmp_path / str(shares), "x"))
    positives = []
    for log in logs:
        batch = log.train.take(torch.arange(0, len(log.train), 2))
        rows = torch.cat([batch.ids, batch.history.flatten(1)], 1)
        positives.append(sorted(map(tuple, rows.tolist())))
    assert positives[0] == positives[1]


def test_ties_are_shuffled_by_the_seed_and_rows_without_times_keep_their_order(tmp_path):
    frame = pl.DataFrame({"u": ["a"] * 12 + ["b"] * 4, "i": range(16), "t": [5] * 16})
    logs = [made(frame, tmp_path / str(s), Interactions("u", "i", "t"), seed=s) for s in (0, 0, 1)]
    orders = [log.events.ids[:12, 0].tolist() for log in logs]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == list(range(1, 13))
    assert len({tuple(o) for o in (*orders, range(1, 13))}) == 3
    kept = made(frame, tmp_path / "order", Interactions("u", "i"))
    assert kept.events.ids[:, 0].tolist() == list(range(1, 17))
    assert kept.events.times is None and kept.train.take(slice(None)).elapsed is None


def test_malformed_events_are_counted_and_put_aside(tmp_path):
    frame = events(30).with_columns(pl.col("t").cast(pl.String)).head(120)
    rows = frame.rows()
    rows[3] = ("", *rows[3][1:])
    rows[4] = (rows[4][0], "", *rows[4][2:])
    for k, text in enumerate(("soon", "-4", "nan", "inf", "", "999", "2000.5")):
        rows[10 + k] = (*rows[10 + k][:2], text, rows[10 + k][3])
    broken = pl.DataFrame(rows, frame.schema, orient="row")
    what = Interactions("u", "i", "t", "c", window=(1000, 2000))
    with pytest.warns(UserWarning, match="9 malformed rows set aside"):
        log = made(broken, tmp_path / "x", what)
    assert log.notes["rejected"] == 9
    aside = [r.split("\t") for r in (tmp_path / "x/rejected.tsv").read_text().splitlines()]
    assert [int(r[0]) for r in aside] == [4, 5, *range(11, 18)]
    assert [r[1] for r in aside[:2]] == ["no user", "no item"]
    assert {r[1] for r in aside[2:7]} == {"time is not a number >= 0"}
    assert {r[1] for r in aside[7:]} == {"time is outside the data's own window"}
    good = [k for k in range(120) if k not in (3, 4, *range(10, 17))]
    clean = made(broken[good], tmp_path / "y", what)
    assert clean.notes["events"] == log.notes["events"]


def test_only_events_that_count_count_and_ticks_are_parts_of_a_second(tmp_path):
    frame = events().with_columns(pl.col("t") * 1000, k=pl.col("i").str.len_chars().cast(pl.String))
    log = made(frame, tmp_path / "x", Interactions("u", "i", "t", ticks=1000, only=("k", "3")))
    assert log.events.times.min() >= 1000 and log.events.times.max() < 1030
    assert log.events.ids.max() < 31  # i10 .. i39


def test_what_cannot_be_made_is_refused_and_leaves_no_store(tmp_path):
    few = pl.DataFrame({"u": [1, 1, 1], "i": [1, 2, 3], "t": [1, 2, 3]})
    with pytest.raises(ValueError, match="no user has 4 different items"):
        made(few, tmp_path / "x", Interactions("u", "i", "t"))
    every = pl.DataFrame({"u": [1] * 5, "i": range(5), "t": range(5)})
    with pytest.raises(ValueError, match="a user has all 5 items"):
        made(every, tmp_path / "x", Interactions("u", "i", "t"))
    assert not (tmp_path / "x").exists()
    made(events(), tmp_path / "x")
    for view in ({"length": 0}, {"negatives": "hard"}):
        with pytest.raises(ValueError, match="must be"):
            open_next_items(tmp_path / "x", "x", **view)


def test_notes_say_what_was_left_out(tmp_path):
    frame = events()
    log = made(frame, tmp_path / "x")
    met = frame.unique(["u", "i"]).group_by("u").len()
    assert log.notes["users"] == (met["len"] >= 4).sum()
    assert log.notes["users left out"] == (met["len"] < 4).sum()
    assert log.notes["repeated events left out"] == frame.height - met["len"].sum()
    assert log.notes["events"] == met.filter(pl.col("len") >= 4)["len"].sum()
    assert not [p for p in (tmp_path / "x").iterdir() if p.suffix not in (".npy", ".json")]
    assert (
        json.loads((tmp_path / "x/notes.json").read_text())["rows"]["valid"]
        == 2 * log.notes["users"]
    )
