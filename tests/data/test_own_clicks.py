"""Logs of one's own: every form of file gives one log, mess is counted, a kill loses nothing."""

import csv
import io
import json
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from helpers.own_files import OPTIONS, clicks, written
from paperlab import data
from paperlab.data import catalogue, prepare, sources
from paperlab.data.own import files, shelf

PARTS = ("train", "valid", "test")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERLAB_LOCAL", str(tmp_path / "local"))
    return tmp_path / "local"


def same(a, b) -> bool:
    return a.schema == b.schema and all(
        torch.equal(getattr(getattr(a, p), c), getattr(getattr(b, p), c))
        for p in PARTS
        for c in ("ids", "values", "users")
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


FORMS = ("csv", "semicolon.csv", "csv.gz", "tsv", "tsv.gz", "jsonl", "jsonl.gz", "parquet")


@pytest.mark.parametrize("form", [*FORMS, "parquet.gz", "folder"])
def test_every_form_of_file_is_the_log_of_the_table(tmp_path, form):
    frame = clicks()
    shelf.add([written(frame, tmp_path, form)], "clicks", name="x", **OPTIONS)
    log = data.load("x")
    assert same(log, data.from_frame(frame, **OPTIONS))
    assert data.kind("x") == "clicks"
    assert log.notes["rows"] == {"train": 1200, "valid": 150, "test": 150}
    assert log.notes["missing"] == {"price": 38}
    assert log.notes["dropped"] == {"source": "constant"}


def test_tables_in_memory():
    frame = clicks()
    log = data.from_frame(frame, **OPTIONS)
    assert same(log, data.from_frame(frame.lazy(), **OPTIONS))
    assert same(log, data.from_frame({c.name: c.to_numpy() for c in frame}, **OPTIONS))
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({c.name: c.to_list() for c in frame}, index=range(7, 1507))
    assert same(log, data.from_frame(table, **OPTIONS))
    nested = frame.with_columns(tags=pl.lit([1, 2]))
    with pytest.warns(UserWarning, match="columns of lists are left out: tags"):
        assert same(log, data.from_frame(nested, **OPTIONS))
    assert not log.train.mapped
    assert log.train.take(slice(0, 2)).ids.shape == (2, 3)


def test_the_log_against_a_slow_version():
    """Vocabularies, buckets, parts and keys, row by row."""
    frame = clicks()
    log = data.from_frame(frame, **OPTIONS, min_count=3)
    rows = frame.to_dicts()
    times = sorted(row["ts"] for row in rows)
    part = [(row["ts"] >= times[1200]) + (row["ts"] >= times[1350]) for row in rows]
    train = [row for row, p in zip(rows, part, strict=True) if p == 0]
    vocabulary = {}
    for column in ("user_id", "city"):
        counts = Counter(row[column] for row in train)
        known = sorted((v for v in counts if counts[v] >= 3), key=lambda v: (-counts[v], v))
        vocabulary[column] = {v: k for k, v in enumerate(known, 1)}
    prices = sorted(row["price"] for row in train if row["price"] is not None)
    ends = [prices[k * len(prices) // 32] for k in range(1, 32)]
    keys = {u: k for k, u in enumerate(sorted(set(frame["user_id"])))}
    for p, name in enumerate(PARTS):
        mine = [row for row, q in zip(rows, part, strict=True) if q == p]
        ids = [
            [
                vocabulary["user_id"].get(row["user_id"], 0),
                vocabulary["city"].get(row["city"], 0),
                0 if row["price"] is None else 1 + sum(row["price"] > e for e in ends),
            ]
            for row in mine
        ]
        split = getattr(log, name)
        assert split.ids.tolist() == ids
        assert split.labels[:, 0].tolist() == [row["click"] for row in mine]
        assert log.user(name).tolist() == [keys[row["user_id"]] for row in mine]
    assert (log.test.ids[:, 0] == 0).any()  # users whom training does not know


def test_standardised_numbers_have_the_training_parts_mean_and_deviation():
    log = data.from_frame(clicks(), **OPTIONS, numbers="standardised")
    assert [f.name for f in log.schema.numeric] == ["price"]
    known = log.train.values[:, 0][log.train.values[:, 0] != 0]
    assert known.mean().item() == pytest.approx(0, abs=1e-6)
    assert known.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert set(log.train.labels.flatten().tolist()) == {0, 1}


@pytest.mark.parametrize("split", ["time", "user", "random"])
@pytest.mark.parametrize("form", ["csv", "folder"])
def test_bytes_do_not_depend_on_chunks_or_on_kills(tmp_path, monkeypatch, split, form):
    path = written(clicks(), tmp_path, form)

    def add(name, **more):
        return contents(
            shelf.add([path], "clicks", name=name, split=split, **OPTIONS, **more).folder
        )

    whole = add("whole")
    monkeypatch.setattr(sources, "CHUNK_BYTES", 9000)
    monkeypatch.setattr(sources, "CHUNK_ROWS", 300)
    assert add("chunks") == whole
    write, chunks = prepare._write_state, sources.TextSource.chunks
    begun, left = [], []

    def stop(work, state):
        left.pop()
        if not left:
            raise KeyboardInterrupt
        write(work, state)

    def seen(self, position=0, line=0):
        begun.append(position)
        return chunks(self, position, line)

    for when in (1, 2, 4, 6):
        left[:] = range(when)
        monkeypatch.setattr(prepare, "_write_state", stop)
        with pytest.raises(KeyboardInterrupt):
            add("cut", force=True)
        begun.clear()
        monkeypatch.setattr(prepare, "_write_state", write)
        monkeypatch.setattr(sources.TextSource, "chunks", seen)
        assert add("cut", force=True) == whole
        monkeypatch.setattr(sources.TextSource, "chunks", chunks)
    if form == "csv":
        assert max(begun) > 0  # the last time it went on where it was


def messy() -> bytes:
    """A log with a mark, CRLF, quoted line ends, bad rows, another encoding, and prices of words."""
    words = ["nan", "inf", "1e400", "", "N/A", "-"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(["user_id", "ts", "city", "price", "note", "click"])
    for k, row in enumerate(clicks(600).to_dicts()):
        price = words[k % 6] if k % 10 == 0 else row["price"]
        note = "two\r\nlines, quoted" if k % 7 == 0 else "plain"
        writer.writerow([row["user_id"], row["ts"], row["city"], price, note, row["click"]])
    lines = text.getvalue().encode().split(b"\r\n")
    whole = [k for k, line in enumerate(lines) if line.endswith((b"plain,0", b"plain,1"))]
    lines[whole[50]] = b"torn,row"
    lines[whole[60]] = lines[whole[60]][:-1] + b"7"
    lines[whole[70]] = b"u\xfc" + lines[whole[70]]
    return b"\xef\xbb\xbf" + b"\r\n".join(lines)


def test_mess_is_counted_and_set_aside(tmp_path):
    (tmp_path / "clicks.csv").write_bytes(messy())
    made = shelf.add([tmp_path / "clicks.csv"], "clicks", **OPTIONS)
    assert made.name == "clicks"
    assert made.notes["rejected"] == 3
    assert made.reasons() == {"2 columns, not 6": 1, "label is not 0 or 1": 1, "not UTF-8": 1}
    log = data.load("clicks")
    assert sum(log.notes["rows"].values()) == 597
    assert [f.name for f in log.schema.fields] == ["user_id", "city", "note", "price"]
    missing = sum(int((getattr(log, p).ids[:, 3] == 0).sum()) for p in PARTS)
    assert missing == log.notes["missing"]["price"] >= 60
    assert log.schema.fields[2].size == 3


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"label": "klick"}, "no column 'klick' for --label; there are: user_id, ts, city"),
        ({}, {"user": "who"}, "no column 'who' for --user"),
        ({}, {"numeric": "price,cost"}, "no column 'cost' for --numeric"),
        ({}, {"numeric": "city"}, "--numeric city: no number in 1,500 rows"),
        ({}, {"drop": "click"}, "column 'click' is named by --label and by --drop"),
        ({}, {"drop": "price,price"}, "column 'price' is named by --drop and by --drop"),
        ({}, {"drop": "city,price,user_id", "user": None}, "no column is left as a field"),
        ({}, {"split": "user", "user": None}, "split 'user' needs the option user"),
        ({}, {"split": "luck"}, "split must be one of random, user, time, not 'luck'"),
        ({}, {"numbers": "raw"}, "numbers must be one of buckets, standardised, not 'raw'"),
        ({}, {"label_threshold": float("nan")}, "label_threshold must be in"),
        ({}, {"min_count": 0}, "min_count must be at least 1"),
        ({}, {"seed": -1}, "seed must be at least 0"),
        ({}, {"chosen": "x"}, "clicks takes label, user, time, .*, not chosen"),
        ({"click": "yes"}, {}, "--label click must hold 0 and 1, or false and true; it holds 'yes'"),
        ({"click": -1}, {}, "it holds '-1'; for grades, --label-threshold X makes 1"),
        ({"click": "x"}, {"label_threshold": 3.0}, "--label click: 'x' is no number"),
        ({"click": 1}, {}, "all 1,200 rows of the train part have the label 1: nothing can be"),
        ({"ts": 5}, {}, "a split by time needs at least three different times"),
        ({"ts": "soon"}, {}, "no row could be read: line .: ts is neither a number nor a date"),
        ({"user_id": "me"}, {"split": "user"}, "1500 rows are too few to fill all three parts by user"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_a_log_that_cannot_be_made_is_one_line_and_leaves_nothing(
    tmp_path, home, change, options, message
):
    frame = clicks().with_columns(**{c: pl.lit(v) for c, v in change.items()})
    path = written(frame, tmp_path, "csv")
    with pytest.raises(ValueError, match=message) as error:
        shelf.add([path], "clicks", **(OPTIONS | options))
    assert "\n" not in str(error.value)
    assert shelf.sets() == {}
    assert not [p for p in home.rglob("*") if p.is_file() and p.suffix != ".lock"]
    with pytest.raises(ValueError, match=message), warnings.catch_warnings(action="ignore"):
        data.from_frame(frame, **(OPTIONS | options))


def test_texts_are_refused_with_what_to_do():
    review = pl.Series([f"review {k} of a thing that I never bought" for k in range(1500)])
    frame = clicks().with_columns(review=review)
    with pytest.raises(ValueError, match=r"review: long, .* by --drop review, or .* --categorical"):
        data.from_frame(frame, **OPTIONS)
    assert same(
        data.from_frame(frame, **OPTIONS, drop=["review"]), data.from_frame(clicks(), **OPTIONS)
    )
    log = data.from_frame(frame, **OPTIONS, categorical=["review"])
    assert [f.name for f in log.schema.fields] == ["user_id", "city", "review", "price"]


def test_what_columns_are_taken_for(tmp_path):
    n = 1200
    frame = pl.DataFrame(
        {
            "label": [k % 2 for k in range(n)],
            "item_id": [k * 7 % 500 for k in range(n)],
            "userId": [k * 3 % 500 for k in range(n)],
            "age": [k * 7 % 61 for k in range(n)],
            "paid": [k * 7 % 997 / 10 for k in range(n)],
            "stars": [k % 5 for k in range(n)],
            "plz": [f"{k % 90:05d}" for k in range(n)],
            "row": list(range(n)),
            "token": [f"{k * 7919 % 10**9:x}" for k in range(n)],
            "day": [f"2024-01-{1 + k % 28:02d}" for k in range(n)],
            "empty": [None] * n,
            "flag": ["x" if k % 3 else None for k in range(n)],
            "one": ["x"] * n,
        }
    )
    _, plan = shelf.planned([written(frame, tmp_path, "csv")], "clicks")
    kinds = {c.name: c.kind for c in plan.columns}
    categorical = ("item_id", "userId", "stars", "plz", "day", "flag")
    expected = dict.fromkeys(categorical, "categorical") | {"label": "label"}
    expected |= dict.fromkeys(("age", "paid"), "numeric")
    expected |= dict.fromkeys(("row", "token", "empty", "one"), "dropped")
    assert kinds == expected
    assert plan.recipe.columns == ("item_id", "userId", "stars", "plz", "day", "flag")


# Files ---------------------------------------------------------------------------------------------


def test_a_sample_is_taken_from_several_files(tmp_path):
    """A column that is constant in each file of a folder is none."""
    for day in range(7):
        frame = clicks(300, day).with_columns(source=pl.lit(f"day{day}"))
        written(frame, tmp_path, "csv").rename(tmp_path / f"{day}.csv")
    _, plan = shelf.planned([tmp_path], "clicks", **OPTIONS)
    assert {c.name: c.kind for c in plan.columns}["source"] == "categorical"


def test_hidden_files_of_a_folder_are_left_out(tmp_path):
    for name in ("b.csv", "a.csv", ".c.csv", "_temporary/d.csv", "in/e.CSV", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("y,a\n1,x\n")
    source = files.opened([tmp_path])
    assert [s.path.name for s in source.sources] == ["a.csv", "b.csv", "e.CSV"]


def test_lines_are_counted_through_all_files(tmp_path):
    (tmp_path / "a.csv").write_text("y,a\n1,x\n2,y,z\n")
    (tmp_path / "b.jsonl").write_text('{"a": "q", "y": true}\n[]\n{"y": null}\n')
    rows, bad = [], []
    for chunk in files.opened([tmp_path / "a.csv", tmp_path / "b.jsonl"]).chunks():
        rows += [(k, *row) for k, row in zip(chunk.lines.tolist(), chunk.frame.rows(), strict=True)]
        bad += [row[:2] for row in chunk.rejected]
    assert rows == [(1, "1", "x"), (3, "true", "q"), (5, "", "")]
    assert bad == [(2, "3 columns, not 2"), (4, "not an object")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"", "x.csv is empty: a line with column names must come first"),
        ("x.csv", b"click,a\n", "no row could be read: there is none"),
        ("x.csv", b"click,a\n1\n", "no row could be read: line 2: 1 columns, not 2"),
        ("x.csv", b"click,a,a\n1,2,3\n", "x.csv: columns occur twice: a"),
        ("x.csv", "click,a\n1,2\n".encode("utf-16"), "x.csv is no UTF-8 text .*: save it as UTF-8"),
        ("x.csv", b"click,\x1b\x02\xf3\n1,2\n", "x.csv is no text: .* control characters"),
        ("x.csv.gz", b"click,a\n1,2\n", "x.csv.gz is broken"),
        ("x.jsonl", b"", "x.jsonl has no line with a JSON object"),
        ("x.jsonl", b"[1]\nnull\n" + b"[" * 10**5, "x.jsonl has no line with a JSON object"),
        ("x.parquet", b"PAR1", "x.parquet is no parquet file that can be read"),
        ("x.xlsx", b"PK", r"x.xlsx: a name must end with .csv, .tsv, .jsonl, .parquet, or one"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        shelf.planned([tmp_path / name], "clicks", label="click")
    assert "\n" not in str(error.value)


def test_paths_that_hold_nothing(tmp_path):
    (tmp_path / "a.csv").write_text("y,a\n1,x\n")
    (tmp_path / "b.csv").write_text("y,b\n1,x\n")
    (tmp_path / "none").mkdir()
    for paths, message in {
        ("c.csv",): "no file or folder",
        ("none",): "none holds no file that ends with",
        ("a.csv", "a.csv"): "files occur twice",
        ("a.csv", "b.csv"): "files differ in columns: a, b",
    }.items():
        with pytest.raises(ValueError, match=message):
            files.opened([tmp_path / p for p in paths])


def test_a_key_may_be_missing_in_a_file_of_json(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"y": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"b": "x", "y": 0}\n')
    rows = [c.frame.rows() for c in files.opened([tmp_path]).chunks()]
    assert rows == [[("1", "")], [("0", "x")]]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"y": [1]}', "y is neither text nor a number"),
        (b'{"y": {}}', "y is neither text nor a number"),
        (rb'{"y": "\ud800"}', "not valid Unicode"),
        (b'{"y": ' + b"[" * 10**5, "nested too deeply"),
        (b'{"y": 1', "not JSON"),
        (b"\xff", "not JSON"),
    ],
    ids=lambda value: str(value[:12]),
)
def test_broken_lines_of_json_are_set_aside(tmp_path, line, reason):
    (tmp_path / "x.jsonl").write_bytes(b'{"y": 1}\n' + line + b'\n{"y": null}\n')
    (chunk,) = files.opened([tmp_path / "x.jsonl"]).chunks()
    assert chunk.frame["y"].to_list() == ["1", ""]
    assert [row[:2] for row in chunk.rejected] == [(1, reason)]


# Names ---------------------------------------------------------------------------------------------


def test_names_are_free_or_replaced(tmp_path, home):
    path = written(clicks(), tmp_path, "csv")
    shelf.add([path], "clicks", **OPTIONS)
    with pytest.raises(ValueError, match="clicks is there already: --force replaces it"):
        shelf.add([path], "clicks", **OPTIONS)
    shelf.add([path], "clicks", force=True, **OPTIONS, split="random")
    assert data.load("clicks").notes["split"] == "random"
    for name, message in {
        "frappe": "the catalogue has a set of this name",
        "add": "the catalogue has a set",
        "../x": "a name holds letters, digits, - and _",
        "": "a name holds letters",
    }.items():
        with pytest.raises(ValueError, match=message):
            shelf.add([path], "clicks", name=name, **OPTIONS)
    with pytest.raises(ValueError, match="clicks takes no options, not length"):
        data.load("clicks", length=3)
    with pytest.raises(ValueError, match="no data set 'click'; there are: .*, clicks, "):
        data.load("click")
    assert shelf.remove("clicks") == home / "clicks"
    with pytest.raises(ValueError, match="no set 'clicks' of your own; there are: none"):
        shelf.remove("clicks")
    assert "clicks" not in catalogue.entries()
    assert [*home.iterdir()] == []


def test_two_who_add_one_name_make_one_whole_set(tmp_path, home):
    path = written(clicks(), tmp_path, "csv")

    def add(_):
        try:
            return shelf.add([path], "clicks", **OPTIONS).name
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(add, range(4)))
    assert said.count("clicks") == 1
    assert all("is there already" in words for words in said if words != "clicks")
    assert same(data.load("clicks"), data.from_frame(clicks(), **OPTIONS))
    assert [p.name for p in home.iterdir()] == ["clicks"]


def test_a_sets_hash_is_that_of_its_content(tmp_path, home):
    frame = clicks()
    changed = frame.with_columns(click=1 - frame["click"].to_numpy())
    path, hashes = written(frame, tmp_path, "csv"), {}
    for name, rows in {"a": frame, "b": frame, "c": changed}.items():
        written(rows, tmp_path, "csv")
        hashes[name] = shelf.add([path], "clicks", name=name, **OPTIONS).notes["sha256"]
    assert hashes["a"] == hashes["b"] != hashes["c"]
    path.write_text(path.read_text() + "torn\n")  # a row that is set aside changes no number
    assert shelf.add([path], "clicks", name="d", **OPTIONS).notes["sha256"] == hashes["c"]


def test_a_set_knows_how_it_was_made(tmp_path, home):
    shelf.add([written(clicks(), tmp_path, "csv")], "clicks", name="x", **OPTIONS, drop="city")
    notes = json.loads((home / "x/notes.json").read_text())
    assert notes["kind"] == "clicks"
    assert notes["source"] == ["clicks.csv"]
    assert notes["options"] == OPTIONS | {"drop": "city"}
    assert sum(notes["positives"].values()) == int(np.sum(clicks()["click"].to_numpy()))
