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
    from IPython.display import display

    controls = {}
    for key, (low, high, start) in sliders.items():
        if not low <= start <= high:
            raise ValueError(f"{key} starts at {start}, outside {low}..{high}")
        whole = all(isinstance(v, int) for v in (low, high, start))
        kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        step = 1 if whole else (high - low) / 50
        controls[key] = kind(start, min=low, max=high, step=step, description=key)

    display(ipywidgets.VBox(list(controls.values())))
    panel = display(
        plots.bundle(compute(**{k: s.value for k, s in controls.items()})),
        raw=True,
        metadata={"paperlab": {"figure": name}},
        display_id=True,
    )

    def redraw(_change) -> None:
        figure = plots.bundle(compute(**{k: s.value for k, s in controls.items()}))
        # Plotly's renderer in JupyterLab draws once and passes over updates; an output of another
        # kind in between, as high, makes JupyterLab take a new renderer without a jump of the page.
        height = figure["application/vnd.plotly.v1+json"]["layout"]["height"]
        panel.update({"text/html": f'<div style="height: {height}px"></div>'}, raw=True)
        panel.update(figure, raw=True, metadata={"paperlab": {"figure": name}})

    for control in controls.values():
        control.observe(redraw, "value")
    from IPython.display import Markdown

    display(Markdown(f"*{caption}*"))
