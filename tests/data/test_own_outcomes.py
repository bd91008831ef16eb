"""Funnels, amounts and late conversions of one's own: labels, parts and ids, and what is refused."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from helpers.own_files import written
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import data
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


@settings(deadline=None, max_examples=20)
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
