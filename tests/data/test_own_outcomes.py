"""Funnels, amounts and late conversions of one's own: labels, parts and ids, and what is refused."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
import torch
from helpers.own_files import written
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import data
from paperlab.data import sources
from paperlab.data.own import shelf

PARTS = ("train", "valid", "test")
WATCH = {"amount": "watch", "user": "who", "time": "ts"}


def watches(rows: int = 400) -> pl.DataFrame:
    """Seconds watched of videos of some length, by users who come late."""
    draw = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "who": [f"u{k}" for k in draw.integers(0, 30, rows) + np.arange(rows) // 20],
            "ts": draw.permutation(rows) + 1_700_000_000,
            "topic": draw.choice(list("abcd"), rows),
            "seconds": draw.uniform(5, 90, rows).round(1),
            "watch": draw.exponential(20, rows).round(2),
        }
    )


def test_amounts_against_a_slow_version():
    """Labels, vocabularies, buckets, parts and keys, row by row."""
    frame = watches()
    log = data.from_frame(frame, "amounts", length="seconds", min_count=3, **WATCH)
    rows = frame.to_dicts()
    times = sorted(row["ts"] for row in rows)
    part = [(row["ts"] >= times[320]) + (row["ts"] >= times[360]) for row in rows]
    train = [row for row, p in zip(rows, part, strict=True) if p == 0]
    vocabulary = {}
    for column in ("who", "topic"):
        counts = Counter(row[column] for row in train)
        known = sorted((v for v in counts if counts[v] >= 3), key=lambda v: (-counts[v], v))
        vocabulary[column] = {v: k for k, v in enumerate(known, 1)}
    lengths = sorted(row["seconds"] for row in train)
    ends = sorted({lengths[k * len(lengths) // 16] for k in range(1, 16)})
    keys = {u: k for k, u in enumerate(sorted(set(frame["who"])))}
    assert log.schema.labels == ("watch",)
    assert [f.name for f in log.schema.fields] == ["who", "topic", "seconds"]
    for p, name in enumerate(PARTS):
        mine, split = [row for row, q in zip(rows, part, strict=True) if q == p], getattr(log, name)
        assert split.ids.tolist() == [
            [
                vocabulary["who"].get(row["who"], 0),
                vocabulary["topic"].get(row["topic"], 0),
                1 + sum(row["seconds"] > e for e in ends),
            ]
            for row in mine
        ]
        assert split.labels[:, 0].tolist() == pytest.approx([row["watch"] for row in mine])
        assert log.user(name).tolist() == [keys[row["who"]] for row in mine]
    assert (log.test.ids[:, 0] == 0).any()  # users whom training does not know


@pytest.mark.parametrize("form", ["semicolon.csv", "jsonl.gz", "parquet"])
def test_every_form_of_file_is_the_log_of_the_table(tmp_path, form):
    path = written(watches(), tmp_path, form)
    made = shelf.add([path], "amounts", name="x", **WATCH)
    log, same = data.load("x"), data.from_frame(watches(), "amounts", **WATCH)
    for part in PARTS:
        for column in ("ids", "values", "users"):
            assert getattr(getattr(log, part), column).equal(getattr(getattr(same, part), column))
    assert (data.kind("x"), made.notes["rows"]) == (
        "amounts",
        {"train": 320, "valid": 40, "test": 40},
    )


@pytest.mark.parametrize("kind", ["amounts", "funnel", "delays"])
def test_bytes_do_not_depend_on_chunks(tmp_path, monkeypatch, kind):
    frames = {"amounts": watches(), "funnel": funnels(), "delays": late(seed=3)}
    path = written(frames[kind], tmp_path, "csv")
    path.write_text(path.read_text() + "torn\n")
    options = {"amounts": WATCH, "funnel": {"split": "random"}, "delays": LATE}[kind]

    def add(name: str) -> dict[str, bytes]:
        folder = shelf.add([path], kind, name=name, **options).folder
        return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}

    whole = add("whole")
    monkeypatch.setattr(sources, "CHUNK_BYTES", 1500)
    assert len([*sources.TextSource.with_header(path, ()).chunks()]) > 2
    assert add("chunks") == whole


def test_amounts_that_are_none_are_set_aside_and_counted():
    frame = watches().with_columns(pl.col("watch").cast(pl.String))
    bad = ["-0.5", "much", "inf", "", "1e39"]
    frame = frame.with_columns(
        watch=pl.Series([*bad, *frame["watch"][5:]]),
        seconds=pl.Series([10.0] * 5 + [0.0, None] + frame["seconds"].to_list()[7:]),
    )
    found = data.from_frame(frame, "amounts", length="seconds", name="x", **WATCH)
    assert found.notes["rejected"] == 6 and sum(found.notes["rows"].values()) == 394
    assert found.notes["missing"] == {"seconds": 1}


def test_the_reasons_of_rows_set_aside(tmp_path):
    frame = watches()
    frame = frame.with_columns(watch=pl.Series(["-1", "x", *map(str, watches()["watch"][2:])]))
    path = written(frame, tmp_path, "csv")
    path.write_text(path.read_text() + "torn\n")
    made = shelf.add([path], "amounts", **WATCH)
    assert made.reasons() == {"watch is below 0": 1, "watch is no number": 1, "1 columns, not 5": 1}
    lines = (made.folder / "rejected.tsv").read_text().splitlines()
    assert sorted(int(line.split("\t")[0]) for line in lines) == [2, 3, 402]


def funnels(rows: int = 400) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    click = draw.random(rows) < 0.5
    return pl.DataFrame(
        {
            "user": draw.integers(0, 30, rows),
            "topic": draw.choice(list("abcd"), rows),
            "click": click.astype(int),
            "order": (click & (draw.random(rows) < 0.4)).astype(int),
        }
    )


def test_a_funnel_keeps_its_labels_in_order():
    frame = funnels()
    log = data.from_frame(frame, "funnel", user="user", split="random", min_count=1)
    assert log.schema.labels == ("click", "order")
    assert [f.name for f in log.schema.fields] == ["user", "topic"]
    rows = [row for part in PARTS for row in getattr(log, part).labels.int().tolist()]
    assert Counter(map(tuple, rows)) == Counter(frame.select("click", "order").iter_rows())
    cart = frame.with_columns(cart=pl.when(pl.col("order") == 1).then(1).otherwise(pl.col("click")))
    three = data.from_frame(cart, "funnel", labels=" click, cart,order ", drop="user")
    assert three.schema.labels == ("click", "cart", "order")
    assert [f.name for f in three.schema.fields] == ["topic"]


def test_rows_that_are_no_funnel_are_set_aside(tmp_path):
    frame = funnels().cast(pl.String)
    rows = [
        ("u", "a", "0", "1"),
        ("u", "a", "2", "1"),
        ("u", "a", "true", "false"),
        ("u", "a", "1", ""),
    ]
    odd = pl.DataFrame(rows, frame.schema, orient="row")
    made = shelf.add([written(pl.concat([odd, frame]), tmp_path, "csv")], "funnel", split="random")
    assert made.reasons() == {
        "order without click": 1,
        "click is not 0 or 1": 1,
        "order is not 0 or 1": 1,
    }
    assert sum(made.notes["rows"].values()) == 401


NOW, DAY = 1_700_000_000, 86_400
LATE = {"end": str(NOW), "days": 3, "min_count": 1}


def late(rows: int = 500, seed: int = 0) -> pl.DataFrame:
    """Clicks of ten days; a third convert, some of them after more than three days."""
    draw = np.random.default_rng(seed)
    click = NOW - draw.integers(0, 10 * DAY, rows)
    conversion = click + draw.exponential(1.5 * DAY, rows).astype(int)
    came = (draw.random(rows) < 0.4) & (conversion <= NOW)
    return pl.DataFrame(
        {
            "topic": draw.choice(list("abcd"), rows),
            "click": click,
            "conversion": [int(c) if k else None for c, k in zip(conversion, came, strict=True)],
        }
    )


def labels(log) -> list[list[int]]:
    return sorted(row for part in PARTS for row in getattr(log, part).labels.int().tolist())


def test_late_conversions_against_a_slow_version():
    """A day is one of 24 hours before the end; rows of the last three days have no label yet."""
    log = data.from_frame(late(), "delays", **LATE)
    slow = []
    for _, click, conversion in late().iter_rows():
        age = (NOW - click) // DAY
        if age < 3:
            continue
        delay = None if conversion is None else age - (NOW - conversion) // DAY
        came = delay is not None and delay <= 3
        slow.append([1, int(came), delay if came else 0, min(age - 3, 3)])
    assert labels(log) == sorted(slow)
    assert log.schema.labels == ("click", "conversion", "days to conversion", "days since click")
    assert log.notes["rejected"] == 500 - len(slow) and log.notes["days"] == 3


def test_a_training_run_knows_what_came_before_it():
    """Whether a conversion had come three days before the end does not depend on whole days."""
    log, frame = data.from_frame(late(), "delays", **LATE), late()
    then = NOW - 3 * DAY
    old = frame.filter(pl.col("click") <= then)
    rows = torch.cat([getattr(log, part).labels for part in PARTS])
    seen = ((rows[:, 1] == 1) & (rows[:, 2] <= rows[:, 3])).sum().item()
    came = old.filter(pl.col("conversion") <= then)
    late_days = (NOW - came["click"]) // DAY - (NOW - came["conversion"]) // DAY
    assert seen == (late_days <= 3).sum() > 20
    assert len(rows) == len(old)


def test_clocks_and_a_column_of_ends():
    base = labels(data.from_frame(late(), "delays", **LATE))
    times = pl.col("click", "conversion")
    for frame, end in (
        (late().with_columns(times * 1000), NOW * 1000),
        (late().with_columns(pl.from_epoch(times)), "2023-11-14 22:13:20"),
        (late().with_columns(times * 1_000_000, until=NOW), "until"),
    ):
        assert labels(data.from_frame(frame, "delays", **LATE | {"end": str(end)})) == base


def test_impressions_without_a_click_train_where_they_have_a_time():
    shown = late().with_columns(shown=pl.col("click") - 60)
    more = shown.with_columns(
        pl.lit(None, pl.Int64).alias("click"), pl.lit(None, pl.Int64).alias("conversion")
    )
    frame = pl.concat([shown, more])
    log = data.from_frame(frame, "delays", time="shown", **LATE)
    rows = labels(log)
    clicks = [row for row in rows if row[0]]
    assert clicks == labels(data.from_frame(late(), "delays", **LATE))
    assert 0 <= len(rows) - 2 * len(clicks) < 5  # a minute earlier
    assert all(row[1:3] == [0, 0] for row in rows if not row[0])
    alone = data.from_frame(frame[:520], "delays", drop="shown", **LATE)
    assert labels(alone) == clicks and alone.notes["rejected"] == 520 - len(clicks)


def test_the_reasons_of_late_conversions_set_aside(tmp_path):
    old, new = NOW - 5 * DAY, NOW + 9
    odd = [
        ("a", old, old - 1, NOW), ("a", None, None, NOW), ("a", old, "soon", NOW), ("a", old, new, NOW),
        ("a", new, None, NOW), ("a", None, old, NOW), ("a", old, None, None), ("a", NOW - 9, None, NOW),
    ]  # fmt: skip
    frame = (
        late(seed=1).filter(pl.col("click") < NOW - 3 * DAY).with_columns(end=NOW).cast(pl.String)
    )
    odd = pl.DataFrame(
        [[None if x is None else str(x) for x in row] for row in odd], frame.schema, orient="row"
    )
    path = written(pl.concat([odd, frame]), tmp_path, "csv")
    made = shelf.add([path], "delays", days=3, min_count=1)
    assert made.reasons() == {
        "conversion before click": 1, "click is no time": 2, "conversion is no time": 1,
        "conversion after the end": 1, "click after the end": 1, "end is no time": 1,
        "less than 3 days before the end": 1,
    }  # fmt: skip
    lines = (made.folder / "rejected.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(k) for k in range(2, 10)]


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**16), st.integers(1, 5))
def test_labels_of_delays_fit_together(seed, days):
    log = data.from_frame(late(600, seed), "delays", end=str(NOW), days=days, min_count=1)
    rows = torch.cat([getattr(log, part).labels for part in PARTS])
    click, converted, delay, since = rows.unbind(1)
    assert (converted <= click).all() and (delay[converted == 0] == 0).all()
    assert ((delay >= 0) & (delay <= days) & (since >= 0) & (since <= days)).all()
    assert len(rows) + log.notes["rejected"] == 600


@settings(deadline=None, max_examples=10)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(-1, 1e4).map(lambda x: round(x, 3))),
        min_size=80,
        max_size=120,
    ).filter(lambda rows: sum(x < 0 for _, x in rows) < 8 and len({x for _, x in rows}) > 60)
)
def test_every_row_is_in_one_part_or_set_aside(rows):
    """With its own amount, whatever the split."""
    frame = {"user": [u for u, _ in rows], "amount": [x for _, x in rows]}
    frame["topic"] = ["xy"[k % 2] for k in range(len(rows))]
    try:
        log = data.from_frame(frame, "amounts", split="random")
    except ValueError as error:
        assert "too few to fill" in str(error) or "nothing can be measured" in str(error)
        return
    found = np.concatenate([getattr(log, part).labels[:, 0].numpy() for part in PARTS])
    good = np.array([x for _, x in rows if x >= 0], np.float32)
    assert sorted(found.tolist()) == sorted(good.tolist())
    assert log.notes["rejected"] == len(rows) - len(good)


SOME = {"a": [*"xy"] * 20, "amount": [*range(40)]}

CLICKS = {"a": [*"xy"] * 20, "click": [NOW - 9 * DAY] * 40, "conversion": [""] * 40}
FUNNEL = {"a": [*"xyzz"] * 10, "click": [0, 1, 1, 1] * 10, "order": [0, 0, 1, 1] * 10}


@pytest.mark.parametrize(
    ("kind", "frame", "options", "message"),
    [
        ("amounts", {"a": ["x"]}, {}, "no column 'amount' for --amount; there are: a"),
        ("amounts", SOME, {"length": "z"}, "no column 'z' for --length; there are: a, amount"),
        ("amounts", SOME | {"amount": [-1] * 40}, {}, "40 of the first 40 rows cannot be used: amount is below 0 .amount '-1'.$"),
        ("amounts", SOME | {"amount": ["x"] * 40}, {}, "40 of the first 40 .* amount is no number"),
        ("amounts", SOME | {"amount": [3] * 40}, {}, "all 3. rows of the train part have amount 3: nothing can be"),
        ("amounts", {"amount": [1, 2, 3]}, {}, "no column is left as a field"),
        ("amounts", SOME, {"split": "time"}, "split 'time' needs the option time"),
        ("amounts", {k: v[:3] for k, v in SOME.items()}, {}, "frame: 3 rows are too few to fill all three parts by random"),
        ("amounts", SOME, {"label": "a"}, "amounts takes amount, length, user, .*, not label"),
        ("delays", SOME, {"end": "2024-01-01"}, "no column 'click' for --click; there are: a, amount; these"),
        ("delays", CLICKS, {}, "no column 'end' for --end; there are: a, click, conversion$"),
        ("delays", CLICKS, {"end": "soon"}, "no column 'soon' for --end; there are: a, click, conversion"),
        ("delays", CLICKS | {"conversion": [NOW - 9 * DAY - 9] * 40}, {"end": str(NOW)}, "40 of the first 40 rows cannot be used: conversion before click .click "),
        ("delays", CLICKS | {"click": ["x"] * 40}, {"end": str(NOW)}, "40 of the first 40 .*: click is no time"),
        ("delays", CLICKS, {"end": str(NOW)}, "all 3. rows of the train part have conversion 0: nothing can be"),
        ("delays", CLICKS, {"end": str(NOW - 5 * DAY)}, "no row could be used: line 1: less than 7 days before the end"),
        ("delays", CLICKS, {"end": str(NOW), "days": 0}, "days must be at least 1, got 0"),
        ("delays", CLICKS, {"end": str(NOW), "split": "time"}, "split must be one of user, random, not 'time'"),
        ("funnel", SOME, {}, "no column 'click' for --labels; there are: a, amount; these fit --kind amounts"),
        ("funnel", SOME, {"labels": "a"}, "--labels a: name two columns or more, dense to sparse"),
        ("funnel", FUNNEL | {"order": [0] * 40}, {}, "all 3. rows of the train part have order 0: nothing can be"),
        ("funnel", FUNNEL | {"click": [1] * 40}, {}, "all 3. rows of the train part have click 1: nothing can be"),
        ("funnel", FUNNEL | {"click": [0] * 40}, {}, "20 of the first 40 .*: order without click .click '0', order '1'.$"),
        ("funnel", FUNNEL | {"order": ["x"] * 40}, {}, "40 of the first 40 rows cannot be used: order is not 0 or 1"),
        ("funnel", FUNNEL, {"labels": "click,click"}, "column 'click' is named by --labels and by --labels"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_one_line(kind, frame, options, message):
    with pytest.raises(ValueError, match=message) as error:
        data.from_frame(frame, kind, **options)
    assert "\n" not in str(error.value)
