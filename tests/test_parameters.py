"""Ranges and comments of a parameters cell are read right, in every way to write a number."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paperlab.commands import table
from paperlab.parameters import BadInput, inspect
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
        ("x: float = 5.0  # page 3-7..9", None, None),
        ("x: float = 5.0  # no range at all", None, None),
    ],
)
def test_a_range_is_read_as_it_is_written(tmp_path, line, low, high):
    (parameter,) = read(tmp_path, line).values()
    assert (parameter.low, parameter.high) == (low, high)
    assert parameter.meaning


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
