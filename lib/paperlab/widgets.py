"""Explorers: sliders over a pure function from parameters to a figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from . import plots

if TYPE_CHECKING:
    import plotly.graph_objects as go


def explore(compute: Callable[..., go.Figure], name: str, caption: str, **sliders: tuple) -> None:
    """A slider for each parameter of ``compute``, and its figure, drawn anew at every move.

    sliders: parameter -> (lowest, highest, start); whole numbers give a whole-number slider.
    The figure at the start values is a plain output, so that it is there without a kernel, and no
    widget state needs saving. Raises ValueError for a start outside its range.
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
