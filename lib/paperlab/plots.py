"""Figures of the notebooks: one style, one colour a method, pictures drawn in one batch."""

from __future__ import annotations

import base64
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from . import manifest

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl

SIZE = {"width": 700, "height": 380}
PLOTLY = "application/vnd.plotly.v1+json"


def colour(method: str) -> str:
    """The colour of a method in every notebook: its manifest's, else one that its name decides."""
    declared = manifest.colours(manifest.project_root()).get(method)
    return declared or f"hsl({sum(ord(c) * 37 for c in method) % 360}, 55%, 42%)"


def show(figure: go.Figure, name: str, caption: str) -> None:
    """Display a figure and, under it, what to look for.

    The output is plotly's own format, interactive wherever plotly is known; `attach_pictures` adds
    a PNG for every other reader afterwards. Needs no browser.
    """
    from IPython.display import Markdown, display

    display(bundle(figure), raw=True, metadata={"paperlab": {"figure": name}})
    display(Markdown(f"*{caption}*"))


def bundle(figure: go.Figure) -> dict:
    """The display data of a figure in the house style; its size is the figure's data, no template."""
    grid = {"gridcolor": "#e5e5e5", "zerolinecolor": "#cccccc", "automargin": True}
    figure.update_layout(
        template="none",
        font={"size": 13},
        title={"font": {"size": 15}, "x": 0.02, "xanchor": "left", "y": 0.97, "yanchor": "top"},
        margin={"l": 60, "r": 20, "t": 62, "b": 60},  # room for subplots' titles under the title
        height=figure.layout.height or SIZE["height"],
    )
    figure.update_xaxes(**grid).update_yaxes(**grid)
    return {PLOTLY: json.loads(figure.to_json())}


def table(frame: pl.DataFrame) -> None:
    """Display a polars table, as `markdown` writes it."""
    from IPython.display import Markdown, display

    display(Markdown(markdown(frame)))


def markdown(frame: pl.DataFrame) -> str:
    """A polars table: floats to 4 significant digits or to whole numbers, with separators."""

    def cell(value) -> str:
        if isinstance(value, bool) or value is None:
            return "" if value is None else str(value)
        if isinstance(value, float):
            return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:,.4g}"
        if isinstance(value, int):
            return f"{value:,}"
        return str(value).replace("|", "\\|").replace("\n", " ")

    lines = ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * frame.width]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in frame.iter_rows()]
    return "\n".join(lines)


def figures_of(book: dict) -> list[tuple[str, dict]]:
    """Name and output of every figure that `show` put into an executed notebook."""
    return [
        (output["metadata"]["paperlab"]["figure"], output)
        for cell in book["cells"]
        for output in cell.get("outputs", [])
        if "figure" in output.get("metadata", {}).get("paperlab", {})
    ]


def attach_pictures(book: dict, folder: Path, prefix: str) -> list[Path]:
    """Draw all figures of an executed notebook in one batch, as folder/prefix_name.png.

    The PNGs also go into the notebook's outputs. Without a Chrome or Chromium that starts nothing
    is drawn and the list is empty.
    """
    found = figures_of(book)
    if not found or browser() is None:
        return []
    import kaleido
    import plotly.graph_objects as go
    from PIL import Image

    os.environ["BROWSER_PATH"] = browser()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{prefix}_{name}.png" for name, _ in found]
    pictures = [
        {
            "fig": go.Figure(output["data"][PLOTLY]).to_dict(),
            "path": path,
            "opts": {"format": "png", "width": SIZE["width"], "scale": 1},
        }
        for (_, output), path in zip(found, paths, strict=True)
    ]
    try:
        kaleido.write_fig_from_object_sync(pictures)
    except RuntimeError as error:  # what a browser that does not start raises; a run outlives it
        reason = str(error).splitlines()[0]
        warnings.warn(f"no figures drawn, {browser()} did not start: {reason}", stacklevel=2)
        return []
    for (_, output), path in zip(found, paths, strict=True):
        # A palette keeps a notebook of ten figures under 400 KB; with fewer than about a hundred
        # colours thin lines take those of others.
        Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
        output["data"]["image/png"] = base64.b64encode(path.read_bytes()).decode()
    return paths


def browser() -> str | None:
    """The Chrome or Chromium that draws pictures, BROWSER_PATH where it is one, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    named = os.environ.get("BROWSER_PATH") or ""
    return next((p for n in (named, *names) if (p := shutil.which(n))), None)
