"""Two runs side by side: what differs is said, what is equal is counted, and the page stands alone."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.project import paperlab, project
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import diff, records, runs

ROOT = records.project_root(Path(__file__))
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
A, B = "20261101-101_small-quick-aa", "20261102-101_small-quick-bb"


def rows(shift: float) -> list[dict]:
    """Two models, three seeds; only the second model's AUC moves."""
    return [
        {
            "model": model,
            "seed": seed,
            "auc": 0.5 + 0.01 * seed + (shift + 0.001 * seed * bool(shift)) * (model == "two"),
        }
        for model in ("one", "two")
        for seed in range(3)
    ]


ROLES = {"group": "model", "where": [], "pair": "seed", "metric": "auc", "better": "higher"}
ROLES["metrics"] = {"auc": "higher"}


def claim(text: str, a: str) -> dict:
    """A stored claim that a's AUC is above 0.49; the wrong way round for "none"."""
    source = {"table": "table", "a": a, "b": None, "level": 0.49, "metric": "auc"}
    kept = {"text": text, "metric": "auc", "delta": 0.001, "quantifier": "all", "better": "higher"}
    return kept | {"comparisons": [source], "outcome": "what the run said", "evidence": ""}


def record(**changed) -> dict:
    made = {
        "notebook": "101_small", "profile": "quick", "status": "ok", "seconds": 5.0,
        "parameters": {"n": 3, "rate": 0.1, "seeds": [0, 1, 2]},
        "code": {"commit": "c" * 40, "dirty": False, "digest": "d1"},
        "versions": {"python": "3.12.1", "torch": "2.13.0"}, "machine": "a chip, 2 cores",
        "metrics": {"table": rows(0.0), "alone": 1.5}, "tables": {"table": ROLES},
        "verdicts": [claim("it works", "one")],
        "figures": ["101_small_curve.png"],
    }  # fmt: skip
    return made | changed


def run(folder: Path, name: str, picture: bytes | None = PNG, **changed) -> None:
    place = folder / "data/runs" / name
    place.mkdir(parents=True)
    (place / "record.json").write_text(json.dumps(record(**changed)))
    if picture:
        (place / "101_small_curve.png").write_bytes(picture)


def differing(sections: list[diff.Section]) -> dict[str, list[list[str]]]:
    return {s.title: [c for differs, c in s.lines if differs] for s in sections}


@pytest.fixture
def two(tmp_path) -> tuple[diff.Run, diff.Run]:
    project(tmp_path)
    run(tmp_path, A)
    run(
        tmp_path, B, PNG + b"x", seconds=7.0, parameters={"n": 4, "rate": 0.1, "seeds": [0, 1, 2]},
        code={"commit": "c" * 40, "dirty": True, "digest": "d2"}, machine="b chip, 8 cores",
        versions={"python": "3.12.1", "torch": "2.14.0"},
        metrics={"table": rows(0.25), "alone": 2.5, "new": "x"},
        verdicts=[claim("it works", "two"), claim("<b>more</b>", "two")],
        figures=["101_small_curve.png", "101_small_more.png"],
    )  # fmt: skip
    return diff.find(A, tmp_path), diff.find(B, tmp_path)


def test_everything_that_differs_is_listed_and_nothing_else(two):
    found = differing(diff.sections(*two))
    assert found["Runs"] == [
        ["seconds", "5.0", "7.0"],
        ["machine", "a chip, 2 cores", "b chip, 8 cores"],
        ["code digest", "d1", "d2"],
        ["committed", "true", "false"],
        ["version of torch", "2.13.0", "2.14.0"],
    ]
    assert found["Parameters"] == [["n", "3", "4"]]
    line = ["table", "model=two", "auc", "0.51", "0.761", "-0.251 [-0.255, -0.247]", "3"]
    assert found["Metrics"] == [line]
    assert found["Other results"] == [["alone", "1.5", "2.5"], ["new", "not there", "x"]]
    more = ["<b>more</b>", "not there", "supported"]
    assert found["Claims"] == [["it works", "unresolved", "supported"], more]
    (curve, more) = found["Figures"]
    assert (curve[0], curve[3]) == ("curve", "no")
    assert more == ["more", "no such figure", "no picture kept", "no"]
    notes = {s.title: s.note for s in diff.sections(*two)}
    assert notes["Parameters"] == "2 of 3 are equal"
    assert (
        notes["Metrics"]
        == "1 of 2 cannot be told apart (intervals hold together at 95 %); 1 are equal"
    )


def test_a_run_does_not_differ_from_itself(tmp_path):
    project(tmp_path)
    run(tmp_path, A)
    a = diff.find(A, tmp_path)
    assert not [lines for lines in differing(diff.sections(a, a)).values() if lines]
    notes = {s.title: s.note for s in diff.sections(a, a)}
    assert notes["Figures"] == "1 of 1 are equal"
    assert notes["Metrics"].endswith("2 are equal")


@pytest.mark.parametrize("path", sorted((ROOT / "data/reference").glob("[0-9]*.json")), ids=lambda p: p.stem)  # fmt: skip
def test_every_kept_record_is_read_and_equals_itself(path):
    a = diff.find(path.stem, ROOT)
    assert a.record == json.loads(path.read_text())
    found = differing(diff.sections(a, diff.find(str(path), ROOT)))
    states = {cells[3] for cells in found.pop("Figures", [])}  # pictures are not kept
    assert states == ({"unknown"} if a.figures() else set())
    assert not [lines for lines in found.values() if lines]


VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
SIDES = st.dictionaries(st.sampled_from("abcde"), VALUES | st.lists(VALUES, max_size=3))


@settings(max_examples=100, deadline=None)
@given(SIDES, SIDES)
def test_order_does_not_matter_and_counts_add_up(x, y):
    sides = [
        diff.Run("", record(parameters=p, metrics=p, figures=[], tables={}, verdicts=[]), Path())
        for p in (x, y)
    ]
    for ahead, back in zip(diff.sections(*sides), diff.sections(*sides[::-1]), strict=True):
        if ahead.title in ("Parameters", "Other results"):
            names = {cells[0] for differs, cells in ahead.lines if differs}
            assert names == {cells[0] for differs, cells in back.lines if differs}
            missing = object()
            assert names == {k for k in x | y if x.get(k, missing) != y.get(k, missing)}
            assert ahead.note == f"{len(x | y) - len(names)} of {len(x | y)} are equal"


def test_runs_that_share_no_rows_still_have_the_rest(two):
    a, _ = two
    other = diff.Run("other", record(metrics={}, tables={}), Path())
    found = {s.title: s for s in diff.sections(a, other)}
    assert (
        found["Metrics"].note
        == "this record of 101_small was recorded before the engine: run it again"
    )
    assert not found["Metrics"].lines
    assert found["Other results"].lines
    assert "before the engine" in diff.page(a, other)


class Page(HTMLParser):
    """Checks that tags close, and collects what a page would load and what it shows."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.loads, self.tags = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [v for k, v in attrs if k in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_shows_both_pictures(two):
    text = diff.page(*two)
    page = Page(text)
    pictures = [f"data:image/png;base64,{base64.b64encode(p).decode()}" for p in (PNG, PNG + b"x")]
    assert page.loads == pictures
    assert not {"script", "link", "iframe", "b"} & set(page.tags)
    assert not re.search(r"https?:|url\(|@import", text)
    assert "&lt;b&gt;more&lt;/b&gt;" in text
    assert text.count('<tr class="differs">') == sum(map(len, differing(diff.sections(*two)).values()))  # fmt: skip
    assert "no picture kept" in text and "no such figure" in text


def test_the_command_as_a_user_types_it(two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # paths are shown as seen from here
    page = tmp_path / "pages/both.html"
    done = paperlab(tmp_path, "diff", "20261101", f"data/runs/{B}", "--html", str(page), COLUMNS="200")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"a = {A}\nb = {B}\n" in done.stdout
    for told in ("Parameters: 2 of 3 are equal", "-0.251 [-0.255, -0.247]", "supported", "d2"):
        assert told in done.stdout
    assert page.read_text() == diff.page(*two)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing", A], "nothing: no such run"),
        (["2026", A], "2 runs begin with it"),
        (["n=3", A], "n=3: name one run"),
        ([A, B, "--html", "both.pdf"], "a name that ends with .html"),
        (["broken", A], "not a record"),
    ],
)
def test_mistakes_are_one_line(two, tmp_path, words, message):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/record.json").write_text("{")
    done = paperlab(tmp_path, "diff", *words)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("paperlab: ") and message in line


def test_a_run_that_was_carried_elsewhere_is_found_by_its_folder(two, tmp_path):
    a, _ = two
    there = tmp_path / "elsewhere"
    (tmp_path / "data/runs" / A).rename(there)
    found = diff.find(str(there), tmp_path)
    assert (found.name, found.record) == ("elsewhere", a.record)
    assert (found.figures(), found.picture("curve")) == (["curve"], PNG)
    with pytest.raises(runs.BadInput, match="no such run"):
        diff.find(A, tmp_path)
