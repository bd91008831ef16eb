"""Explorers: sliders over a pure function from parameters to a figure."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import plots

if TYPE_CHECKING:
    import plotly.graph_objects as go


def explore(compute: Callable[..., go.Figure], name: str, caption: str, **sliders: tuple) -> None:
    """A slider for each parameter of ``compute``, and its figure, drawn anew at every move.

    sliders: parameter -> (lowest, highest, start); whole numbers give a whole-number slider.
    The figure at the start values is a plain output, so that it is there without a kernel, and no
    widget state needs saving. With PAPERLAB_EXPLORE=ends in the environment, as in tests, the figure
    is also computed at both ends of every slider, the others at their starts. Raises ValueError for
    a start outside its range, and for an end with the figure of the start.
    """
    import ipywidgets
    from IPython.display import Markdown, display

    from .explorer_view import ExplorerView

    controls = {}
    for key, (low, high, start) in sliders.items():
        if not low <= start <= high:
            raise ValueError(f"{key} starts at {start}, outside {low}..{high}")
        whole = all(isinstance(v, int) for v in (low, high, start))
        kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        step = 1 if whole else (high - low) / 50
        controls[key] = kind(start, min=low, max=high, step=step, description=key)

    def figure() -> dict:
        return plots.bundle(compute(**{key: control.value for key, control in controls.items()}))

    if os.environ.get("PAPERLAB_EXPLORE") == "ends":
        _check_ends(compute, sliders)
    view, metadata = ExplorerView(), {"paperlab": {"figure": name}}
    display(ipywidgets.VBox([*controls.values(), view]))
    panel = display(figure(), raw=True, metadata=metadata, display_id=True)

    def moved(_change) -> None:
        view.figure = figure()[plots.PLOTLY]
        if not view.seen:
            update()

    def update(*_message) -> None:
        # An output of another kind in between, as high, makes JupyterLab take a new renderer.
        height = view.figure["layout"]["height"]
        panel.update({"text/html": f'<div style="height: {height}px"></div>'}, raw=True)
        panel.update({plots.PLOTLY: view.figure}, raw=True, metadata=metadata)

    view.on_msg(update)
    for control in controls.values():
        control.observe(moved, "value")
    display(Markdown(f"*{caption}*"))


def _check_ends(compute: Callable[..., go.Figure], sliders: dict[str, tuple]) -> None:
    """Compute the figure at the ends of every slider; raises ValueError where it does not change."""

    def drawn(**values) -> dict:
        """All but the title, which may do no more than repeat the values."""
        shown = plots.bundle(compute(**values))[plots.PLOTLY]
        return shown | {"layout": shown["layout"] | {"title": None}}

    starts = {key: start for key, (_, _, start) in sliders.items()}
    unmoved = drawn(**starts)
    for key, (low, high, start) in sliders.items():
        for end in {low, high} - {start}:
            if drawn(**starts | {key: end}) == unmoved:
                raise ValueError(f"{key} = {end} gives the same figure as {key} = {start}")
