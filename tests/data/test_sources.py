"""Text files of other kinds than the official ones: marks, line ends, quotes, encodings, headers."""

import csv
import io
import json
import warnings

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.data import next_items, open_store, sources
from paperlab.data.formats import json_lines
from paperlab.data.interactions import Interactions
from paperlab.data.prepare import prepare
from paperlab.data.recipe import Recipe, by_line
from paperlab.data.sets import amazon_reviews
from paperlab.data.sources import FrameSource, TextSource


def read(path, **options) -> tuple[list[tuple], list[tuple[int, str]]]:
    """All rows of a file with a header, and the lines that were refused with their reasons."""
    rows, rejected = [], []
    for chunk in TextSource.with_header(path, (), **options).chunks():
        lines = chunk.lines.tolist()
        cells = chunk.frame.fill_null("").rows()
        rows += [(line, *row) for line, row in zip(lines, cells, strict=True)]
        rejected += [(line, reason) for line, reason, _ in chunk.rejected]
    return rows, rejected


def test_marks_and_line_ends_are_dropped(tmp_path):
    plain = b"a,b\n1,x\n2,y\n"
    for name, content in {
        "plain": plain,
        "mark": b"\xef\xbb\xbf" + plain,
        "crlf": plain.replace(b"\n", b"\r\n"),
        "both": b"\xef\xbb\xbf" + plain.replace(b"\n", b"\r\n"),
        "no last line end": plain[:-1],
        "quoted names": plain.replace(b"a,b", b'"a","b"'),
    }.items():
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path / name) == ([(1, "1", "x"), (2, "2", "y")], []), name


def test_a_mark_before_a_file_without_header(tmp_path):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbf1\tx\n")
    (chunk,) = TextSource(tmp_path / "x", ("a", "b")).chunks()
    assert chunk.frame.rows() == [("1", "x")]


def test_quoted_cells_hold_commas_line_ends_and_quotes(tmp_path):
    lines = [
        "a,b",
        '1,"x, y"',
        '2,"two',
        'lines, ""said"""',
        "3,z",
        '4,bro"ken',
        '5,"open',
        "6,w",
        "",
    ]
    (tmp_path / "x").write_text("\n".join(lines))
    rows, rejected = read(tmp_path / "x")
    assert rows[:3] == [(1, "1", "x, y"), (2, "2", 'two\nlines, "said"'), (4, "3", "z")]
    assert rows[-1] == (7, "6", "w")
    assert {line for line, _ in rejected} | {row[0] for row in rows} == {1, 2, 4, 5, 6, 7}
    assert 6 in [line for line, _ in rejected]
    (tmp_path / "tabs").write_text('a\tb\n1\t"x\n')
    assert read(tmp_path / "tabs", separator="\t") == ([(1, "1", '"x')], [])  # a quote is text


cell = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=6)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(cell, cell), min_size=1, max_size=12), st.integers(1, 60))
def test_what_a_csv_writer_writes_is_read_whatever_the_chunks(tmp_path_factory, rows, size):
    path = tmp_path_factory.mktemp("x") / "x.csv"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *rows])
    path.write_bytes(text.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "CHUNK_BYTES", size)
        found, rejected = read(path)
    assert ([row[1:] for row in found], rejected) == (rows, [])


def test_other_encodings_are_refused_line_by_line(tmp_path):
    (tmp_path / "x").write_bytes("a,b\n1,x\n2,ü\n3,z\n".encode("latin-1"))
    assert read(tmp_path / "x") == ([(1, "1", "x"), (3, "3", "z")], [(2, "not UTF-8")])
    (tmp_path / "x").write_bytes('a,b\n1,"x"\n2,"ü"\n'.encode("latin-1"))
    assert read(tmp_path / "x") == ([(1, "1", "x")], [(2, "not UTF-8")])
    (tmp_path / "x").write_text("a,b\n1,x\n", "utf-16")
    with pytest.raises(ValueError, match="x is no UTF-8 text"):
        TextSource.with_header(tmp_path / "x", ("a", "b"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.csv is empty: a line with column names must come first"),
        ("\n1,2\n", "x.csv is empty"),
        ("a,c\n", "x.csv has no column b: not the official file"),
        ("a,b,a\n", "x.csv: columns occur twice: a"),
        ("a, b,b\n", "x.csv: columns occur twice: b"),
    ],
)
def test_headers_are_held_against_what_is_needed(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        TextSource.with_header(tmp_path / "x.csv", ("a", "b"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "recipe", "message"),
    [
        ({"y": [], "a": []}, Recipe("y", ("a",)), "x: no row could be read: it is empty"),
        ({"y": ["1"] * 40}, Recipe("y", ("a",)), "x: the source has no column a"),
        ({"a": ["1"] * 40}, Recipe("y", ("a",), user="u"), "the source has no column u, y"),
        ({"y": ["1"] * 2, "a": ["b"] * 2}, Recipe("y", ("a",)), "2 rows are too few to fill"),
        ({"y": ["-1"] * 40, "a": ["b"] * 40}, Recipe("y", ("a",)), "line 1: label is not 0 or 1"),
    ],
)
def test_a_log_that_cannot_be_made_is_one_line(tmp_path, columns, recipe, message):
    with (
        pytest.raises(ValueError, match=message) as error,
        warnings.catch_warnings(action="ignore"),
    ):
        prepare(FrameSource(pl.DataFrame(columns)), recipe, tmp_path / "x", {})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x").exists()


def test_columns_that_stand_twice_or_are_missing():
    with pytest.raises(ValueError, match="duplicate columns: a"):
        Recipe("y", ("a",), ("a",))
    source = FrameSource(pl.DataFrame({"u": [1], "i": [2]}))
    with pytest.raises(ValueError, match="x: the source has no column t"):
        next_items.prepare(source, Interactions("u", "i", "t"), sources.Path("x"), {})


def test_a_quoted_line_end_stays_in_one_line_of_what_is_set_aside(tmp_path):
    text = "y,a,n\n" + '1,"x\r\ny",nan\n' * 5 + "1,b,2\n0,b,2\n" * 100
    (tmp_path / "x.csv").write_bytes(text.encode())
    source = TextSource.with_header(tmp_path / "x.csv", ("y", "a", "n"))
    with pytest.warns(UserWarning, match="5 malformed rows"):
        prepare(source, Recipe("y", ("a",), ("n",)), tmp_path / "x", {})
    lines = (tmp_path / "x/rejected.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["2", "4", "6", "8", "10"]
    assert all("x\\ny" in line for line in lines)


# Numbers as text, and the users' own keys ----------------------------------------------------------


@pytest.mark.parametrize(
    "word", ["nan", "NaN", "inf", "-inf", "1e400", "3.5", "1e300", "seven", "0x7"]
)
def test_a_count_that_is_no_finite_whole_number_is_set_aside(tmp_path, word):
    text = "".join(f"{k % 2}\t{word if k % 3 else 1}\tx\n" for k in range(300))
    (tmp_path / "x.tsv").write_text(text)
    source, recipe = TextSource(tmp_path / "x.tsv", ("y", "n", "a")), Recipe("y", ("a",), ("n",))
    with pytest.warns(UserWarning, match="200 malformed rows"):
        prepare(source, recipe, tmp_path / "x", {})
    log = open_store(tmp_path / "x")
    assert log.notes["rejected"] == 200
    assert log.train.ids[:, 0].unique().tolist() == [1]
    aside = (tmp_path / "x/rejected.tsv").read_text().splitlines()
    assert {line.split("\t")[1] for line in aside} == {"n is not a whole number"}


@pytest.mark.parametrize(("word", "same"), [("7", "7.0"), ("-3", "-3.0"), ("40", "4e1")])
def test_two_ways_to_write_a_count_are_one_value(tmp_path, word, same):
    frame = pl.DataFrame({"y": ["0", "1"] * 100, "n": [word, same] * 100})
    prepare(FrameSource(frame), Recipe("y", (), ("n",)), tmp_path / "x", {})
    assert open_store(tmp_path / "x").schema.fields[0].size == 2


def test_missing_numbers_of_a_table_are_missing(tmp_path):
    frame = pl.DataFrame({"y": [0, 1] * 100, "n": [1.0, float("nan"), None, 1.0] * 50})
    with warnings.catch_warnings(action="error"):
        prepare(FrameSource(frame), Recipe("y", (), ("n",)), tmp_path / "x", {})
    assert open_store(tmp_path / "x").train.ids.unique().tolist() == [1, 2]


@pytest.mark.parametrize("least", [1, 3])
def test_groups_are_the_users_own_whether_training_saw_them_or_not(tmp_path, least):
    draw = np.random.default_rng(0)
    user = draw.integers(0, 900, 2000)
    user[draw.random(2000) < 0.1] = -1
    names = ["" if u < 0 else f"id_{u}" for u in user]
    frame = pl.DataFrame({"u": names, "y": draw.integers(0, 2, 2000)})
    prepare(FrameSource(frame), Recipe("y", ("u",), min_count=least, user="u"), tmp_path / "x", {})
    log, part = open_store(tmp_path / "x"), by_line(np.arange(2000), 0)
    key_of = {}
    for k, name in enumerate(("train", "valid", "test")):
        key, mine = log.user(name).tolist(), user[part == k].tolist()
        for own, u in zip(key, mine, strict=True):
            if u >= 0:  # one key a user in all parts
                assert key_of.setdefault(u, own) == own
        nobody = [own for own, u in zip(key, mine, strict=True) if u < 0]
        assert len(set(nobody)) == len(nobody) and all(own < 0 for own in nobody)
    assert len(set(key_of.values())) == len(key_of) > 700
    assert (log.test.ids[:, 0] == 0).any()  # while the ids of unseen users are one


# JSON lines ----------------------------------------------------------------------------------------


DEEP = b"[" * 200_000


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff{}", "not JSON"),
        (DEEP, "nested too deeply"),
        (b'{"a": ' + DEEP, "nested too deeply"),
        (b"[1]", "not an object"),
        (b"null", "not an object"),
        (b'{"b": "x"}', "a missing or not text"),
        (b'{"a": null}', "a missing or not text"),
        (b'{"a": 3}', "a missing or not text"),
        (rb'{"a": "\ud800"}', "a not valid Unicode"),
    ],
    ids=lambda value: str(value[:12]),
)
def test_a_broken_line_says_what_is_wrong(line, reason):
    assert json_lines.texts(line, ("a",)) == reason


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(codec="utf-8")))
def test_every_text_comes_back(text):
    assert json_lines.texts(json.dumps({"a": text}).encode(), ("a",)) == (text,)


REVIEW = {"reviewerID": "A1", "asin": "B1", "unixReviewTime": 5}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"asin": None}, "asin is neither text nor a number"),
        ({"reviewerID": ["A1"]}, "reviewerID is neither text nor a number"),
        ({"unixReviewTime": True}, "unixReviewTime is neither text nor a number"),
        ({"asin": "\ud800"}, "not valid Unicode"),
    ],
    ids=str,
)
def test_reviews_without_a_user_or_an_item_are_refused(change, reason):
    assert amazon_reviews._cells(json.dumps(REVIEW | change).encode()) == reason


def test_a_review_and_a_category_that_cannot_be_read():
    assert amazon_reviews._cells(json.dumps(REVIEW).encode()) == ["A1", "B1", "5"]
    assert amazon_reviews._cells(b"{}") == "no reviewerID"
    assert amazon_reviews._leaf(b'{"category": ["a", "b"]}') == "b"
    for line in (b"{'categories': " + DEEP, rb'{"category": ["a", "\ud800"]}', b"[1]", b"{"):
        assert amazon_reviews._leaf(line) == ""
