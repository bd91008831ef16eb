"""Sequences, preferences, bandit logs, judgments and problems of one's own; and the command."""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers.own_files import clicks, written
from paperlab import cli, data
from paperlab.data import next_items
from paperlab.data.interactions import Interactions
from paperlab.data.own import shelf
from paperlab.data.sources import FrameSource


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERLAB_LOCAL", str(tmp_path / "local"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "local"


def events(rows: int = 900) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "who": [f"u{u}" for u in draw.integers(0, 30, rows)],
            "sku": draw.integers(0, 200, rows),
            "ms": 1_700_000_000_000 + 1000 * draw.permutation(rows),
            "shelf": draw.choice(list("xyz"), rows),
            "what": draw.choice(["view", "buy"], rows),
        }
    )


NAMES = {"user": "who", "item": "sku", "time": "ms"}


def test_sequences_are_those_of_the_catalogues_preparation(tmp_path):
    frame = events()
    shelf.add(
        [written(frame, tmp_path, "parquet")], "sequences", name="x", category="shelf", **NAMES
    )
    what = Interactions("who", "sku", "ms", "shelf", ticks=1000)
    next_items.prepare(FrameSource(frame), what, tmp_path / "y", {})
    for name in ("schema.json", "events.ids.npy", "events.times.npy", "test_popular.ids.npy"):
        assert (tmp_path / "local/x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()
    log = data.load("x", length=3, negatives="popular")
    assert log.schema.length == 3
    assert log.notes["kind"] == data.kind("x") == "sequences"
    same = data.from_frame(
        frame, "sequences", category="shelf", length=3, negatives="popular", **NAMES
    )
    assert (same.test.ids == log.test.ids).all() and (same.events.ids == log.events.ids).all()
    assert (same.user("test") == log.user("test")).all()


def test_clocks_and_behaviours():
    frame = events()
    seconds = data.from_frame(frame, "sequences", **NAMES).events.times
    iso = frame.with_columns(pl.from_epoch("ms", time_unit="ms"))
    micro = frame.with_columns(pl.col("ms") * 1000)
    for other in (iso, micro, frame.with_columns(pl.col("ms") / 1000)):
        assert (data.from_frame(other, "sequences", **NAMES).events.times == seconds).all()
    ordered = data.from_frame(frame.sort("ms"), "sequences", **NAMES | {"time": ""})
    assert ordered.events.times is None
    bought = data.from_frame(frame, "sequences", behaviour="what=buy", **NAMES)
    other = data.from_frame(frame.filter(pl.col("what") == "buy"), "sequences", **NAMES)
    assert len(bought.train) == len(other.train) < 2 * len(seconds)


def test_preferences(tmp_path):
    rows = [("p", "good", "bad"), ("", "yes", "no"), ("q", "same", "same"), ("q", " ", "x")]
    path = tmp_path / "pairs.jsonl"
    keys = ("prompt", "chosen", "rejected")
    lines = [json.dumps(dict(zip(keys, row, strict=True))) for row in rows]
    path.write_text("\n".join([*lines, "{", '{"prompt": "r"}']))
    made = shelf.add([path], "preferences")
    assert made.notes["rejected"] == 4
    pairs = data.load("pairs")
    assert pairs.rows == tuple(rows[:2])
    assert sorted(pairs.set_aside) == [
        (3, "the two responses are the same"), (4, "a response is empty"), (5, "not JSON"),
        (6, "a response is empty"),
    ]  # fmt: skip
    frame = {"a": ["p", ""], "b": ["good", "yes"], "c": ["bad", "no"]}
    again = data.from_frame(frame, "preferences", prompt="a", chosen="b", rejected="c")
    assert again.rows == pairs.rows


def test_bandit_logs():
    frame = {
        "arm": ["10", "9", "10", "9", "10", ""],
        "gain": ["1.5", "0", "nan", "2", "1", "1"],
        "p": [0.5, 1.0, 0.5, 0.0, 1.1, 0.5],
        "age": [30.5, 20, 1, 1, 1, 1],
        "sex": ["m", "f", "m", "f", "m", "m"],
    }
    names = {"action": "arm", "reward": "gain", "propensity": "p"}
    log = data.from_frame(frame, "bandit", context=["age", "sex"], **names)
    assert log.action.tolist() == [1, 0]  # 9 before 10
    assert log.reward.tolist() == [1.5, 0]
    assert log.propensity.tolist() == [0.5, 1]
    assert log.set_aside == (
        (3, "reward is not a finite number"), (4, "propensity is not in (0, 1]"),
        (5, "propensity is not in (0, 1]"), (6, "action is empty"),
    )  # fmt: skip


def test_the_context_of_a_bandit_log():
    n = 60
    frame = {
        "action": [k % 3 for k in range(n)],
        "reward": [k % 2 for k in range(n)],
        "propensity": [1 / 3] * n,
        "age": [20.5 + k for k in range(n)],
        "sex": ["mf"[k % 2] for k in range(n)],
        "city": [f"c{k}" for k in range(n)],
    }
    log = data.from_frame(frame, "bandit", drop="city")
    assert log.context[:2].tolist() == [[20.5, 0, 1], [21.5, 1, 0]]
    assert (log.actions, log.item_features.shape) == (3, (3, 0))
    assert data.from_frame(frame, "bandit", context="age").context.shape == (n, 1)
    wide = {k: v * 2 for k, v in frame.items()} | {"city": [f"c{k}" for k in range(2 * n)]}
    with pytest.raises(ValueError, match="city has 120 different values, too many .*: --drop city"):
        data.from_frame(wide, "bandit")


def test_relevance_and_problems():
    judged = {"query": ["q", "q", ""], "document": ["d", "e", "f"], "grade": ["2", "inf", "1"]}
    made = data.from_frame(judged, "relevance")
    assert (made.query, made.document, made.grade.tolist()) == (("q",), ("d",), [2])
    assert made.set_aside == ((2, "grade is not a finite number"), (3, "query is empty"))
    made = data.from_frame({"prompt": ["1+1?", "2+2?"], "answer": [2, None]}, "problems")
    assert (made.prompt, made.answer, made.set_aside) == (
        ("1+1?",),
        ("2",),
        ((2, "answer is empty"),),
    )


@pytest.mark.parametrize(
    ("kind", "frame", "options", "message"),
    [
        ("sequences", {"user": [1], "item": [1]}, {}, "no column 'time' for --time; there are: user"),
        ("sequences", {"user": [1], "item": [1], "time": ["x"]}, {}, "--time time holds neither"),
        ("sequences", {"user": [1], "item": [1]}, {"time": ""}, "no user has 4 different items"),
        ("sequences", {"user": [1], "item": [1]}, {"time": "", "behaviour": "x"}, "write COLUMN=VALUE"),
        ("sequences", {"user": [1], "item": [1], "b": ["v"]}, {"time": "", "behaviour": "b=x"}, "b holds v"),
        ("sequences", {"user": [1], "item": [1]}, {"length": 0}, "length must be at least 1"),
        ("sequences", {"user": [1], "item": [1]}, {"negatives": "no"}, "negatives must be one of"),
        ("preferences", {"prompt": ["a"], "chosen": ["b"]}, {}, "no column 'rejected' for --rejected"),
        ("preferences", {"prompt": ["a"], "chosen": ["b"], "rejected": ["b"]}, {}, "line 1: the two resp"),
        ("problems", {"prompt": ["a"], "answer": [""]}, {}, "no row could be used: line 1: answer is"),
        ("relevance", {"query": ["a"], "document": ["b"], "grade": ["A"]}, {}, "grade is not a finite"),
        ("bandit", {"action": ["a"], "reward": [1]}, {}, "no column 'propensity' for --propensity"),
        ("bandit", {"action": ["a"]}, {"context": "z"}, "no column 'reward' for --reward"),
        ("problems", {"prompt": ["a"]}, {"grade": "x"}, "problems takes prompt, answer, not grade"),
        ("graphs", {"a": [1]}, {}, "kind must be one of clicks, sequences, .*, not 'graphs'"),
        ("clicks", [1], {}, "a polars or pandas frame or a dict of columns is needed, not list"),
        ("clicks", {"a": [1, 2], "label": [1]}, {}, "the columns make no table"),
        ("clicks", {"label": [], "a": []}, {}, "no row could be read: there is none"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_one_line(kind, frame, options, message):
    with pytest.raises(ValueError, match=message) as error:
        data.from_frame(frame, kind, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "columns", "hint"),
    [
        ("preferences", ["user", "item", "time", "shop"], "; these fit --kind sequences or stream"),
        ("clicks", ["prompt", "chosen", "rejected"], "; these fit --kind preferences"),
        ("bandit", ["prompt", "answer", "label"], "; these fit --kind clicks or problems"),
        ("problems", ["query", "document"], ""),
    ],
)
def test_a_missing_column_names_the_kinds_that_the_columns_fit(tmp_path, kind, columns, hint):
    (tmp_path / "x.csv").write_text(f"{','.join(columns)}\n{','.join('1' * len(columns))}\n")
    asked = {"clicks": "label", "bandit": "action"}.get(kind, "prompt")
    said = f"no column '{asked}' for --{asked}; there are: {', '.join(columns)}{hint}"
    with pytest.raises(ValueError) as file:
        shelf.add([tmp_path / "x.csv"], kind)
    with pytest.raises(ValueError) as frame:
        data.from_frame({c: [1] for c in columns}, kind)
    assert str(file.value) == str(frame.value) == said


# The command ---------------------------------------------------------------------------------------


@pytest.fixture
def paperlab(monkeypatch, capsys):
    """Call the command: exit code, and what it printed."""

    def call(*words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["paperlab", "data", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code or 0, *capsys.readouterr()

    return call


def test_from_a_file_to_a_log(paperlab, tmp_path, home):
    path = written(clicks(), tmp_path, "csv")
    words = ("add", path, "--label", "click", "--user", "user_id", "--time", "ts")
    code, out, _ = paperlab(*words, "--dry-run")
    assert code == 0
    for cells in (("price", "numeric"), ("source", "dropped", "constant"), ("click", "label")):
        assert any(all(c in line for c in cells) for line in out.splitlines()), cells
    assert "First rows" in out and clicks()["user_id"][0] in out
    assert not home.exists()
    code, out, _ = paperlab(*words)
    assert code == 0
    assert "clicks: clicks, 1,200 / 150 / 150 rows (train / valid / test), split by time" in out
    assert "price: 38 values are missing" in out
    code, out, _ = paperlab()
    assert code == 0 and "frappe" in out
    assert any("clicks" in line and "your own" in line for line in out.splitlines())
    assert paperlab("clicks")[:2] == (0, f"{data.load('clicks')}\n")
    taken = "paperlab: clicks is there already: --force replaces it, --name makes another\n"
    for again in (words, (*words, "--dry-run")):
        assert paperlab(*again) == (2, "", taken)
    assert paperlab(*words, "--dry-run", "--force")[0] == 0
    assert paperlab(*words, "--force", "--drop", "price")[0] == 0
    assert [f.name for f in data.load("clicks").schema.fields] == ["user_id", "city"]
    assert paperlab("remove", "clicks")[0] == 0
    assert shelf.sets() == {}


def test_rows_that_are_set_aside_are_said_in_one_line(paperlab, tmp_path):
    path = written(clicks(), tmp_path, "csv")
    path.write_text(path.read_text() + "torn\ntorn,row\n")
    code, out, _ = paperlab("add", path, "--label", "click", "--name", "x")
    assert code == 0
    (line,) = (line for line in out.splitlines() if "set aside" in line)
    assert line.startswith("2 rows set aside in ") and "1 1 columns, not 6; 1 2 columns" in line
    assert Path(tmp_path / "local/x/rejected.tsv").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nope",), "no data set 'nope'; `paperlab data` lists all"),
        (("frape",), "no data set 'frape'; near it: frappe"),
        (("remove", "nope"), "no set 'nope' of your own; there are: none"),
        (("add", "nope.csv"), "no file or folder nope.csv"),
        (("add", "{csv}"), "no column 'label' for --label; there are: user_id, ts, city, price"),
        (("add", "{csv}", "--label", "click", "--kind", "click"), "kind must be one of clicks, "),
        (("add", "{csv}", "--label", "click", "--split", "user"), "split 'user' needs the option user"),
        (("add", "{csv}", "--label", "click", "--name", "a b"), "--name a b: a name holds letters"),
        (("add", "{csv}", "--label", "click", "--name", "a b", "--dry-run"), "--name a b: a name holds"),
        (("add", "{csv}", "--label", "click", "--name", "frappe", "--dry-run"), "--name frappe: the cat"),
        (("add", "{csv}", "--label", "price", "--dry-run"), "--label price must hold 0 and 1"),
        (("add", "{csv}", "--kind", "problems"), "no column 'prompt' for --prompt"),
        (("add", "{csv}", "--label", "click", "--grade", "x"), "clicks takes label, user, "),
        (("gsm8k", "--set", "part=valid"), "part must be one of train, test, not 'valid'"),
    ],
)  # fmt: skip
def test_a_users_error_is_one_line_and_exit_code_2(paperlab, tmp_path, words, message):
    path = written(clicks(), tmp_path, "csv")
    code, _, error = paperlab(*(w.replace("{csv}", str(path)) for w in words))
    assert code == 2
    assert error.startswith(f"paperlab: {message}")
    assert error.count("\n") == 1
