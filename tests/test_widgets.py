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
    assert [type(c).__name__ for c in panel[0].children] == ["IntSlider", "FloatSlider"]
    assert figure[PLOTLY]["data"][0]["y"] == [3, 0.25]
    output = {"data": figure, "metadata": options["metadata"]}
    assert [n for n, _ in plots.figures_of({"cells": [{"outputs": [output]}]})] == ["explorer"]


def test_a_slider_redraws_in_place_and_the_figure_keeps_its_name(shown):
    widgets.explore(compute, "explorer", "What to see.", T=(1, 5, 3), alpha=(0.0, 1.0, 0.25))
    (panel, _), *_ = shown[0]
    panel.children[0].value = 5
    panel.children[1].value = 0.5
    assert len(shown[0]) == 3, "a move of a slider adds no output"
    between, figures = shown[1][::2], shown[1][1::2]  # JupyterLab draws anew after another kind
    assert [list(data) for data, _ in between] == [["text/html"], ["text/html"]]
    assert [data[PLOTLY]["data"][0]["y"] for data, _ in figures] == [[5, 0.25], [5, 0.5]]
    assert all(o["metadata"]["paperlab"]["figure"] == "explorer" for _, o in figures)
