"""Figures carry their data and name, small; pictures are drawn only where a browser is."""

import json
from types import SimpleNamespace

import plotly.graph_objects as go
import polars as pl
import pytest
from paperlab import plots, verdict, widgets


def book_with(figure: go.Figure) -> dict:
    output = {"data": plots.bundle(figure), "metadata": {"paperlab": {"figure": "line"}}}
    return {"cells": [{"outputs": [output]}, {"outputs": [{"output_type": "stream"}]}]}


def test_a_simple_figure_is_small_and_a_method_keeps_its_colour():
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]))
    assert len(json.dumps(plots.bundle(figure))) < 4000
    assert plots.colour("DNN") == "#222222"
    assert plots.colour("something new") == plots.colour("something new")
    for methods in plots.FAMILIES.values():
        assert len(set(methods.values())) == len(methods)
    assert len(plots.COLOURS) == sum(map(len, plots.FAMILIES.values()))  # no name in two families


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

    methods = plots.FAMILIES["ctr"]
    figure = go.Figure(go.Heatmap(z=[list(range(60))], y=[-2], colorscale="Viridis"))
    for k, colour in enumerate(methods.values()):
        figure.add_scatter(x=[0, 59], y=[k, k], line={"color": colour, "width": 2})
    (path,) = plots.attach_pictures(book_with(figure), tmp_path, "101_x")
    drawn = {c for _, c in Image.open(path).convert("RGB").getcolors()}
    for name, colour in methods.items():
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        nearest = min(max(abs(a - b) for a, b in zip(wanted, c, strict=True)) for c in drawn)
        assert nearest <= 8, f"{name}: {colour} is {nearest} off"


def test_tables_show_four_digits(capsys):
    frame = pl.DataFrame({"a": [0.123456, None, 12345.6], "b": [1234567, 2, -3]})
    lines = ["| a | b |", "|---|---|", "| 0.1235 | 1,234,567 |", "|  | 2 |", "| 12,346 | -3 |"]
    assert plots.markdown(frame).splitlines() == lines
    plots.table(frame)
    assert "Markdown" in capsys.readouterr().out


def test_a_bar_does_not_end_a_cell(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    plots.table(pl.DataFrame({"a": ["the largest |Q|"]}))
    claims = [verdict.Claim("|Q| < 9", "|Q| = 8", "supported")]
    verdict.show(SimpleNamespace(verdicts=None), claims)
    for markdown in shown:
        *_, last = markdown.data.splitlines()
        assert last.replace("\\|", "").count("|") == markdown.data.splitlines()[1].count("|")


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
