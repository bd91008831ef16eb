"""An explorer: the start figure is a plain output, and a slider redraws it in place."""

import IPython.display
import plotly.graph_objects as go
import pytest
from paperlab import plots, widgets

PLOTLY = "application/vnd.plotly.v1+json"


@pytest.fixture
def shown(monkeypatch):
    """What was displayed, and what took its place afterwards."""
    shown, updates = [], []

    class Handle:
        def update(self, data, **options):
            updates.append((data, options))

    def display(data, **options):
        shown.append((data, options))
        return Handle() if options.get("display_id") else None

    monkeypatch.setattr(IPython.display, "display", display)
    return shown, updates


def compute(T: int, alpha: float) -> go.Figure:
    return go.Figure(go.Scatter(x=[0, 1], y=[T, alpha]))


def test_the_figure_of_the_start_values_is_a_plain_output(shown):
    widgets.explore(compute, "explorer", "What to see.", T=(1, 5, 3), alpha=(0.0, 1.0, 0.25))
    panel, (figure, options), _caption = shown[0]
    assert [type(c).__name__ for c in panel[0].children] == [
        "IntSlider",
        "FloatSlider",
        "ExplorerView",
    ]
    assert figure[PLOTLY]["data"][0]["y"] == [3, 0.25]
    output = {"data": figure, "metadata": options["metadata"]}
    assert [n for n, _ in plots.figures_of({"cells": [{"outputs": [output]}]})] == ["explorer"]


@pytest.fixture
def controls(shown):
    """Sliders and the page's part of an explorer, that part in a page that has loaded it."""
    widgets.explore(compute, "explorer", "What to see.", T=(1, 5, 3), alpha=(0.0, 1.0, 0.25))
    (panel, _), *_ = shown[0]
    *sliders, view = panel.children
    view.seen = True
    return sliders, view


def test_a_slider_hands_the_new_figure_to_the_page(shown, controls):
    sliders, view = controls
    drawn = []
    view.observe(lambda change: drawn.append(change.new["data"][0]["y"]), "figure")
    sliders[0].value = 5
    sliders[1].value = 0.5
    assert drawn == [[5, 0.25], [5, 0.5]]
    assert view.figure["layout"]["height"] == plots.SIZE["height"]
    assert len(shown[0]) == 3, "a move of a slider adds no output"
    assert shown[1] == [], "and changes none"


@pytest.mark.parametrize("page", ["without Plotly", "without the view"])
def test_a_page_that_cannot_draw_gets_the_output_updated_under_its_name(shown, controls, page):
    sliders, view = controls
    view.seen = page == "without Plotly"
    sliders[0].value = 5
    if view.seen:
        view._handle_custom_msg("no Plotly to draw with", [])  # as the page's message comes in
    (between, _), (figure, options) = shown[1]
    assert list(between) == ["text/html"]
    assert figure[PLOTLY]["data"][0]["y"] == [5, 0.25]
    assert options["metadata"]["paperlab"]["figure"] == "explorer"


@pytest.fixture
def tried(monkeypatch):
    """tried(compute) explores with the ends computed; the values of every figure, in order."""

    def explore(drawn) -> list[tuple]:
        values = []

        def noted(T: int, alpha: float) -> go.Figure:
            values.append((T, alpha))
            return drawn(T, alpha)

        widgets.explore(noted, "explorer", "What to see.", T=(1, 5, 3), alpha=(0.0, 1.0, 0.0))
        return values

    monkeypatch.setenv("PAPERLAB_EXPLORE", "ends")
    return explore


def test_in_tests_every_end_is_computed_once(shown, tried, monkeypatch):
    ends = {(1, 0.0), (5, 0.0), (3, 1.0)}
    start, *others, shown_one = tried(compute)
    assert start == shown_one == (3, 0.0)
    assert set(others) == ends and len(others) == 3
    monkeypatch.delenv("PAPERLAB_EXPLORE")
    assert tried(compute) == [(3, 0.0)]


def test_an_end_that_raises_or_changes_nothing_but_the_title_fails_the_cell(shown, tried):
    def raises(T, alpha):
        return compute(T, alpha / (5 - T))

    def stays(T, alpha):
        return compute(3, alpha).update_layout(title=f"T={T}")

    with pytest.raises(ZeroDivisionError):
        tried(raises)
    with pytest.raises(ValueError, match=r"T = \d gives the same figure as T = 3"):
        tried(stays)
    assert shown[0] == []
