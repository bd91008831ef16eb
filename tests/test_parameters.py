"""Ranges and comments of a parameters cell are read right, in every way to write a number."""

import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paperlab.commands import table
from paperlab.parameters import BadInput, Parameter, inspect
from rich.console import Console


def read(folder, cell: str):
    path = folder / "900_toy.ipynb"
    tagged = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": cell}
    path.write_text(json.dumps({"cells": [tagged]}))
    return inspect(path)


@pytest.mark.parametrize(
    ("line", "low", "high"),
    [
        ("lr: float = 0.001  # rate (0.00001..0.1)", 1e-5, 0.1),
        ("lr: float = 0.001  # rate (1e-5..0.1)", 1e-5, 0.1),
        ("lr: float = 0.001  # rate (per step, 1E-5..1e-1)", 1e-5, 0.1),
        ("rows: int = 50  # rows (10..1e6)", 10, 1e6),
        ("rows: int = 50  # rows (..1e6)", None, 1e6),
        ("rows: int = 50  # rows (rows, 10..)", 10, None),
        ("rows: int = 50  # rows (10..1,000)", 10, 1000),
        ("rows: int = 50  # rows (rows, 1_0..1_000)", 10, 1000),
        ("rows: int = 5  # rows (1 .. 10)", 1, 10),
        ("shift: float = -1.5  # shift (nats, -2.5..-1)", -2.5, -1),
        ("sizes: list[int] = [\n    1,\n    2,\n]  # sizes (1..9)", 1, 9),
        ("rate: float = 0.5  # rate (.1..1)", 0.1, 1),
        ("rate: float = 0.5  # rate (per step, +0.1 .. .9)", 0.1, 0.9),
        ("rows: int = 5  # rows of 8 fields (5..6)", 5, 6),
        ("sizes: list[int] = [  # sizes (1..9)\n    1,\n    2,\n]", 1, 9),
        ("sizes: list[int] = [  # sizes\n    1,  # the first\n]  # each (1..9)", 1, 9),
        ("name: str = 'a # (1..9)'  # of a thing", None, None),
        ("labels: int = 5  # fewest, ..., most (labels)", None, None),
        ("x: float = 5.0  # page 3-7..9", None, None),
        ("x: float = 5.0  # no range at all", None, None),
    ],
)
def test_a_range_is_read_as_it_is_written(tmp_path, line, low, high):
    (parameter,) = read(tmp_path, line).values()
    assert (parameter.low, parameter.high) == (low, high)
    assert parameter.meaning


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("x: float = 0.3  # rate (0,5..1)", "x: the range in 'rate (0,5..1)' cannot be read"),
        ("x: int = 1500  # rows (1 000..2 000)", "x: the range in"),
        ("x: int = 1500  # rows (1,0000..20000)", "x: the range in"),
        ("x: float = 0.3  # rate (0...5)", "x: the range in"),
        ("x: float = 0.3  # rate (0..inf)", "x: the range in"),
        ("x: float = 0.3  # rate (1e-5..0.1, log scale)", "x: the range in"),
        ("x: float = 0.3  # rate (1e-5..0.1). Adam's", "x: the range in"),
        ("x: float = 0.3  # rate (−1..1)", "x: the range in"),
        ("x: float = 0.3  # rate (1e-5..10^2)", "x: the range in"),
        ("x: float = 0.3  # rate (1..0.1)", "is empty: its ends are reversed"),
        ("x: float = 0.3  # rate (0..1e400)", "is too large for a float"),
        ("x: float = 0.3  # rate (0..0.2)", "x takes float in 0..0.2"),
        ("x: list[int] = [  # a (1..9)\n    1,\n]  # b (1..5)", "two ranges"),
        ("x: list[int] = [\n    1,  # a (1..9)\n]", "'a (1..9)' is a range, but follows"),
        ("x: int = 1\n# rows (1..9)", "'rows (1..9)' is a range, but follows"),
        ("x: int = 1; y: int = 3  # rows (0..9)", "one parameter a line"),
        ("x: int = 1\nX: int = 2", "each name once"),
        ("seeds: list[int] = [1, 2, 1]  # runs (seed, 0..)", "'1' is repeated"),
    ],
)
def test_what_could_be_misread_is_refused(tmp_path, cell, message):
    with pytest.raises(BadInput, match=re.escape(message)) as error:
        read(tmp_path, cell)
    assert "\n" not in str(error.value)


@given(st.text("0123456789.,-+eE_ ", max_size=14))
def test_a_comment_in_brackets_bounds_as_python_reads_it_or_is_refused(tmp_path_factory, text):
    """Where two dots stand between numbers, the ends are what float() makes of both sides."""
    folder = tmp_path_factory.mktemp("x")
    try:
        found = read(folder, f"x: list[float] = []  # rate ({text})")["x"]
    except BadInput as error:
        assert "\n" not in str(error)
        return
    if (found.low, found.high) == (None, None):
        assert not re.search(r"\d\s*\.\.|\.\.\s*[-+]?\d", text)
        return
    low, _, high = text.rpartition(", ")[2].rpartition("..")
    for end, bound in ((low, found.low), (high, found.high)):
        plain = re.sub(r"(?<=\d),(?=\d{3})|_", "", end).strip(" ,")
        assert bound == (float(plain.split()[-1]) if plain else None)


@pytest.mark.parametrize("text", ["nan", "-nan", "inf", "-Infinity", "1e400", "-1e400", "1e-5..0.1", "..1e6"])  # fmt: skip
@pytest.mark.parametrize("kind", ["int", "float", "list[int]", "list[float]", "bool"])
def test_no_text_becomes_a_number_that_is_none(text, kind):
    default = [1] if "list" in kind else 1
    parameter = Parameter("x", kind, default, "")
    for written in (text, f"[{text}]", f"[1, {text}]"):
        with pytest.raises(BadInput, match=rf"x takes {re.escape(kind)}"):
            parameter.cast(written)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 10**400])
def test_nor_does_a_manifests_number(number):
    with pytest.raises(BadInput, match="x takes float"):
        Parameter("x", "float", 1.0, "").cast(number)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12))
def test_seeds_and_names_stand_once_and_other_lists_as_often_as_wanted(values):
    once = len(set(values)) == len(values)
    words = [f"n{v}" for v in values]
    for name, kind, given_ in (("seeds", "list[int]", values), ("models", "list[str]", words)):
        parameter = Parameter(name, kind, given_[:1], "")
        for written in (given_, repr(given_)):
            if once:
                assert parameter.cast(written) == given_
            else:
                with pytest.raises(BadInput, match="is repeated"):
                    parameter.cast(written)
    assert Parameter("strength", "list[int]", [1], "").cast(values) == values


def test_a_value_outside_a_scientific_range_is_refused(tmp_path):
    parameter = read(tmp_path, "lr: float = 0.001  # rate (1e-5..0.1)")["lr"]
    assert parameter.cast("1e-3") == 0.001
    for text in ("-3", "1e-6", "0.2", "nan", "1e400"):
        with pytest.raises(BadInput, match="lr takes float in 1e-05..0.1"):
            parameter.cast(text)
    rates = read(tmp_path, "rates: list[float] = [0.1]  # rates (0..1)")["rates"]
    assert rates.cast("[1e-3, 3e-3]") == rates.cast([1e-3, 3e-3]) == [0.001, 0.003]


@given(st.floats(-1e12, 1e12), st.floats(0, 1e12), st.sampled_from(["r", ".6e", "_", ","]))
def test_any_two_numbers_make_their_range(tmp_path_factory, low, width, form):
    def text(number: float) -> str:
        if form == "r":
            return repr(number)
        return f"{number:.6e}" if form == ".6e" else f"{number:{form}.0f}"

    ends = text(low), text(low + width)
    want = [float(end.replace("_", "").replace(",", "")) for end in ends]
    folder = tmp_path_factory.mktemp("x")
    parameter = read(folder, f"x: float = {want[0]!r}  # x (units, {ends[0]}..{ends[1]})")["x"]
    assert [parameter.low, parameter.high] == want


@pytest.mark.parametrize(
    "text", ["none of [/data/a.csv] is there", "column [user_id]", "[/s] to [s]"]
)
def test_a_cell_of_a_terminal_table_is_text(text):
    out = io.StringIO()
    Console(file=out, width=120).print(table(text, [text], [[text]]))
    assert out.getvalue().count(text) == 3
