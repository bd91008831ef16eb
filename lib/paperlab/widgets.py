"""Explorers: sliders over a pure function from parameters to a figure (ours)."""

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

    from .redraw import Redraw

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

    redraw, metadata = Redraw(), {"paperlab": {"figure": name}}
    display(ipywidgets.VBox([*controls.values(), redraw]))
    panel = display(figure(), raw=True, metadata=metadata, display_id=True)

    def moved(_change) -> None:
        redraw.figure = figure()[plots.PLOTLY]

    def update(*_message) -> None:
        panel.update({plots.PLOTLY: redraw.figure}, raw=True, metadata=metadata)

    redraw.on_msg(update)
    for control in controls.values():
        control.observe(moved, "value")
    display(Markdown(f"*{caption}*"))
