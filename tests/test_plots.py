"""Figures carry their data and name, small; pictures are drawn only where a browser is."""

import html
import json
import math
import re
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from paperlab import manifest, plots, widgets


def book_with(figure: go.Figure) -> dict:
    output = {"data": plots.bundle(figure), "metadata": {"paperlab": {"figure": "line"}}}
    return {"cells": [{"outputs": [output]}, {"outputs": [{"output_type": "stream"}]}]}


def test_a_simple_figure_is_small_and_a_method_keeps_its_colour():
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]))
    assert len(json.dumps(plots.bundle(figure))) < 4000
    assert plots.colour("DNN") == "#222222"
    assert plots.colour("something new") == plots.colour("something new")


def test_figures_are_found_by_name():
    assert [name for name, _ in plots.figures_of(book_with(go.Figure()))] == ["line"]


def test_without_a_browser_nothing_is_drawn_and_nothing_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "browser", lambda: None)
    assert plots.attach_pictures(book_with(go.Figure()), tmp_path, "101_x") == []


@pytest.mark.skipif(plots.browser() is None, reason="no Chrome or Chromium on this machine")
def test_pictures_go_to_the_folder_and_into_the_outputs(tmp_path):
    book = book_with(go.Figure(go.Scatter(x=[1, 2], y=[3, 4])))
    (path,) = plots.attach_pictures(book, tmp_path, "101_x")
    assert path.name == "101_x_line.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "image/png" in book["cells"][0]["outputs"][0]["data"]


@pytest.mark.skipif(plots.browser() is None, reason="no Chrome or Chromium on this machine")
def test_a_picture_keeps_the_colour_of_every_method(tmp_path):
    """Fifteen thin lines and a colour scale that asks for colours of its own."""
    from PIL import Image

    root = manifest.project_root(Path(__file__))
    methods = dict(list(manifest.colours(root).items())[:20])
    figure = go.Figure(go.Heatmap(z=[list(range(60))], y=[-2], colorscale="Viridis"))
    for k, colour in enumerate(methods.values()):
        figure.add_scatter(x=[0, 59], y=[k, k], line={"color": colour, "width": 2})
    (path,) = plots.attach_pictures(book_with(figure), tmp_path, "101_x")
    drawn = {c for _, c in Image.open(path).convert("RGB").getcolors()}
    for name, colour in methods.items():
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        nearest = min(max(abs(a - b) for a, b in zip(wanted, c, strict=True)) for c in drawn)
        assert nearest <= 8, f"{name}: {colour} is {nearest} off"


def test_tables_show_three_digits_and_dashes(capsys):
    frame = pl.DataFrame(
        {"a": [0.123456, None, 12345.6], "b": [1234567, 2, -3], "my_name": ["x"] * 3}
    )
    lines = [
        "| a | b | my name |",
        "|---:|---:|---|",
        "| 0.123 | 1,234,567 | x |",
        "| – | 2 | x |",
        "| 12,346 | -3 | x |",
    ]
    assert plots.markdown(frame).splitlines() == lines
    assert plots.markdown(frame.to_dicts()).splitlines() == lines
    assert plots.markdown(frame.to_pandas()).splitlines() == lines
    plots.table(frame)
    assert "Markdown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((0.75123, "0.751"), (999.7, "1,000"), (123456.7, "123,457"), (1e-5, "1e-05")),
        *((-0.0, "0"), (math.nan, "–"), (math.inf, "inf"), (1e20, "1e+20"), (10**6, "1,000,000")),
        *((np.float32(0.5), "0.5"), (np.int64(1234), "1,234")),
    ],
)
def test_numbers(value, shown):
    assert plots.number(value) == shown


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-4, 1e6), st.integers(2, 6))
def test_a_number_is_off_by_half_a_digit_at_most(value, digits):
    step = 10.0 ** min(math.floor(math.log10(value)) - digits + 1, 0)
    assert abs(float(plots.number(value, digits).replace(",", "")) - value) <= 0.5001 * step


def test_the_best_is_bold_with_those_that_look_the_same():
    rows = [{"m": "A", "auc": 0.75111, "loss": 0.3}, {"m": "B", "auc": 0.7512, "loss": 0.2}]
    rows += [{"m": "C", "auc": None, "loss": math.nan}, {"m": "D", "auc": 0.6}]
    text = plots.markdown(rows, best={"auc": "higher", "loss": "lower"}, headings={"m": "Model"})
    assert text.splitlines() == [
        "| Model | AUC | loss |",
        "|---|---:|---:|",
        "| A | **0.751** | 0.3 |",
        "| B | **0.751** | **0.2** |",
        "| C | – | – |",
        "| D | 0.6 | – |",
    ]
    assert "**0.7512**" in plots.markdown(rows, best={"auc": "higher"}, digits=4)


def test_a_table_refuses_what_it_has_not():
    rows = [{"auc": 1.0}]
    with pytest.raises(ValueError, match="no column 'x'; there are: auc"):
        plots.markdown(rows, best={"x": "higher"})
    with pytest.raises(ValueError, match="no column 'x'"):
        plots.markdown(rows, headings={"x": "X"})
    with pytest.raises(ValueError, match="must be higher or lower, got 'max'"):
        plots.markdown(rows, best={"auc": "max"})
    assert plots.markdown([]) == "*no rows*"


SIGNS = [
    "|Q| < 9",
    "*a* **b**",
    "_a_ __init__ my_name",
    "[x](y)",
    "`q`",
    "$5 and $6",
    "a\nb",
    "<b>x</b>",
]


@pytest.mark.parametrize("text", SIGNS)
def test_a_cell_is_text(text):
    """What a Markdown reader makes of the table is the text, in one cell."""
    parser = MarkdownIt("commonmark").enable("table")
    page = parser.render(plots.markdown([{"a": text, "b": 1}]))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    assert [html.unescape(c) for c in cells] == [text.replace("\n", " "), "1"]
    assert "<b>" not in page and "<em>" not in page


def test_an_underscore_inside_a_word_is_not_escaped():
    assert "| max_steps |" in plots.markdown([{"a": "max_steps"}])


def test_a_markdown_object_is_markup():
    from IPython.display import Markdown

    text = plots.markdown([{"a": Markdown("[x](y)")}, {"a": "[x](y)"}])
    assert "| [x](y) |" in text and "| \\[x\\](y) |" in text


def test_what_a_figure_shows_stands_under_it(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda what, **_: shown.append(what))
    figure = go.Figure(layout={"title": "t", "meta": {"note": "Bars: 95 % intervals."}})
    plots.show(figure, "f", "What to look for: x.")
    assert shown[1].data == "*What to look for: x.* Bars: 95 % intervals."
    with pytest.raises(ValueError, match="figure 'f' needs a title"):
        plots.show(go.Figure(), "f", "x")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_figures_are_rounded_below_what_an_eye_sees(values):
    for short, value in zip(plots.rounded({"y": values})["y"], values, strict=True):
        assert abs(short - value) <= max(1e-4 * np.ptp(values), 1e-15) or not np.ptp(values)
        assert abs(short - value) <= max(5.001e-4 * abs(value), 1e-15)


def test_only_floats_are_rounded():
    figure = go.Figure(
        go.Scatter(x=[10**9 + 1, 2], y=[1 / 3, None], text=["a", "b"], customdata=[[1, "x"]])
    )
    figure.add_heatmap(z=np.full((2, 3), 2 / 3))
    line, heat = plots.bundle(figure)[plots.PLOTLY]["data"]
    assert (line["x"], line["y"]) == ([10**9 + 1, 2], [0.3333, None])
    assert (line["text"], line["customdata"]) == (["a", "b"], [[1, "x"]])
    assert heat["z"] == [[0.6667] * 3] * 2


def test_an_explorer_refuses_a_start_outside_its_range():
    with pytest.raises(ValueError, match="T starts at 9, outside 1..5"):
        widgets.explore(lambda T: go.Figure(), "name", "caption", T=(1, 5, 9))


def test_a_browser_that_does_not_start_draws_nothing_and_says_so(tmp_path, monkeypatch):
    broken = tmp_path / "chrome"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(broken))
    with pytest.warns(UserWarning, match="did not start"):
        assert plots.attach_pictures(book_with(go.Figure()), tmp_path, "101_x") == []


def test_a_browser_path_that_is_none_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for path in ("", str(tmp_path / "nothing")):
        monkeypatch.setenv("BROWSER_PATH", path)
        assert plots.browser() is None
