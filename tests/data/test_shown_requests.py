"""Requests of one's own: order, parts, ids and features; what is set aside, and what is refused."""

import gzip

import numpy as np
import polars as pl
import pytest
from helpers.own_files import written
from helpers.shown import NAMES, shown
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import data
from paperlab.data import sources
from paperlab.data.own import shelf


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERLAB_LOCAL", str(tmp_path / "local"))


def made(rows: list[tuple], **options):
    frame = pl.DataFrame(rows, [*NAMES.values()], orient="row")
    return data.from_frame(frame, "requests", name="x", **NAMES | options)


def test_order_parts_and_ids():
    """Worked by hand: c began before b, although b stands first; two requests of one moment."""
    rows = [("b", "v", "i", 20, 1), ("c", "u", "j", 11, 0), ("c", "u", "i", 10, 1)]
    rows += [("d", "u", "i", 20, 0), ("e", "w", "k", 30, 1), ("e", "w", "j", 31, 0)]
    rows += [("f", "v", "i", 40, 0), ("f", "v", "new", 40, 1)]
    log = made(rows, min_count=1)
    assert log.request.tolist() == [0, 0, 1, 2, 3, 3, 4, 4]
    assert log.time.tolist() == [10, 10, 20, 20, 30, 30, 40, 40]
    assert log.part.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    assert log.user.tolist() == [0, 0, 1, 0, 2, 2, 1, 1]
    assert log.item.tolist() == [3, 2, 2, 2, 1, 3, 2, 1]  # i is the most frequent; k, new unknown
    assert log.label.tolist() == [0, 1, 1, 0, 1, 0, 0, 1]
    assert log.features.shape == (8, 0)
    assert repr(log) == (
        "ShownRequests(x: 8 candidates in 5 requests of 3 users; 2 requests have one candidate, "
        "1 no positive)"
    )
    assert made(rows).item.tolist() == [1, 2, 2, 2, 1, 1, 2, 1]  # twice in training: i alone


def test_features_are_those_of_the_training_part():
    frame = shown()
    log = data.from_frame(frame, "requests", **NAMES)
    assert log.columns[0] == "price" and {*log.columns[1:]} == {"shelf=a", "shelf=b", "shelf=c"}
    price = frame["price"].to_numpy()
    train = price[log.part == 0]
    expected = (price - np.nanmean(train)) / np.nanstd(train)
    np.testing.assert_allclose(log.features[:, 0], np.nan_to_num(expected), rtol=1e-5)
    for k, name in enumerate(log.columns[1:], 1):
        assert (log.features[:, k] == (frame["shelf"] == name[-1]).to_numpy()).all()


def test_a_category_has_twenty_columns_at_most():
    frame = shown().with_columns(shelf=pl.col("sku").cast(pl.String) + "x", two=pl.lit("y"))
    assert frame["shelf"].n_unique() == 20
    frame = frame.with_columns(shelf=pl.col("shelf") + (pl.int_range(pl.len()) % 2).cast(pl.String))
    log = data.from_frame(frame, "requests", **NAMES)
    assert len(log.columns) == 21 and (log.features[:, 1:].sum(1) <= 1).all()


MESS = [  # a row and why it is set aside
    ("m0", "", "1", "1700000000", "1", "0", "a", "who is empty"),
    ("m1", "u1", " ", "1700000000", "1", "0", "a", "sku is empty"),
    ("", "u1", "1", "1700000000", "1", "0", "a", "req is empty"),
    ("m2", "u1", "1", "soon", "1", "0", "a", "ts is no time"),
    ("m3", "u1", "1", "1700000000", "1", "2", "a", "click is not 0 or 1"),
    ("m4", "u1", "1", "1700000000", "1", "0", "a", "req of several users"),
    ("m4", "u2", "2", "1700000000", "1", "0", "a", "req of several users"),
    ("m5", "u2", "2", "1700000000", "1", "0", "a", ""),
    ("m5", "u2", "2", "1700000000", "1", "1", "a", "sku again in its req"),
]


def test_mess_is_set_aside_with_its_line_and_reason(tmp_path):
    frame = shown().cast(pl.String)
    odd = pl.DataFrame([row[:-1] for row in MESS], frame.schema, orient="row")
    text = pl.concat([odd, frame]).write_csv().replace("\n", "\r\n") + "torn\r\n"
    path = tmp_path / "mess.csv.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.encode()))
    own = shelf.add([path], "requests", **NAMES)
    lines = (own.folder / "rejected.tsv").read_text().splitlines()
    found = [(int(n), why) for n, why, *_ in (line.split("\t") for line in lines)]
    expected = [(k, row[-1]) for k, row in enumerate(MESS, 2) if row[-1]]
    assert found == [*expected, (2 + len(MESS) + frame.height, "1 columns, not 7")]
    log, clean = data.load("mess"), data.from_frame(shown(), "requests", **NAMES)
    assert sum(own.notes["rows"].values()) == len(log) == len(clean) + 1
    assert own.notes["missing"] == {"price": shown()["price"].null_count()}
    assert own.notes["rejected"] == len(found) and data.kind("mess") == "requests"


def test_a_file_is_the_table_and_its_bytes_do_not_depend_on_chunks(tmp_path, monkeypatch):
    frame = shown()
    same = data.from_frame(frame, "requests", **NAMES)
    iso = frame.with_columns(pl.from_epoch("ts").cast(pl.Datetime("us")))
    folders = []
    for name, table, form in (("a", frame, "csv"), ("b", frame, "csv"), ("c", iso, "parquet")):
        if name == "b":
            monkeypatch.setattr(sources, "CHUNK_BYTES", 1500)
        path = written(table, tmp_path, form)
        folders.append(shelf.add([path], "requests", name=name, **NAMES).folder)
        log = data.load(name)
        for column in ("request", "user", "item", "time", "label", "part", "features"):
            assert (getattr(log, column) == getattr(same, column)).all()
    a, b = ((f / "requests.parquet").read_bytes() for f in folders[:2])
    assert a == b


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(*[st.integers(0, 6)] * 4, st.integers(0, 1)), min_size=1, max_size=60))
def test_no_row_is_lost(rows):
    base = [
        (f"z{k}", 9, k % 7, 10 * (k // 20), k % 2) for k in range(60)
    ]  # three parts, two labels
    rows = [(str(r[0]), *r[1:]) for r in rows]
    whose = {r[0]: {o[1] for o in rows if o[0] == r[0]} for r in rows}
    kept = {(r[0], r[2]) for r in rows if len(whose[r[0]]) == 1}
    log = made(base + rows)
    assert len(log) == 60 + len(kept)
    assert (np.diff(log.request) >= 0).all() and (np.diff(log.time) >= 0).all()
    for column in (log.user, log.time, log.part):  # one a request
        assert len({*zip(log.request, column, strict=True)}) == log.request[-1] + 1
    assert len({*zip(log.time, log.part, strict=True)}) == len({*log.time})
    assert (np.diff(log.part) >= 0).all()


FEW = shown(20)


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (FEW, {"request": "page"}, "no column 'page' for --request; there are: req, who, sku"),
        (FEW, {"time": "shelf"}, "98 of the first 98 rows cannot be used: shelf is no time"),
        (FEW, {"label": "price"}, "rows cannot be used: price is not 0 or 1"),
        (FEW, {"min_count": 0}, "min_count must be at least 1, got 0"),
        (FEW, {"split": "user"}, "requests takes request, user, .* not split"),
        (FEW.with_columns(click=0), {}, "all .. rows of the train part have click 0: nothing can"),
        (FEW.with_columns(ts=5), {}, "a split by time needs at least three different times"),
        (FEW.with_columns(who=pl.int_range(98), req=pl.lit("r")), {}, "no row could be used: line 1: req of several"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_one_line(frame, options, message):
    with pytest.raises(ValueError, match=message) as error:
        data.from_frame(frame, "requests", **NAMES | options)
    assert "\n" not in str(error.value)
