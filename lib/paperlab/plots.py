"""Figures and tables of the notebooks: one style, one colour a method, pictures in one batch."""

from __future__ import annotations

import base64
import html
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import manifest

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import polars as pl

SIZE = {"width": 700, "height": 380}
HEADINGS = {
    "auc": "AUC",
    "gauc": "GAUC",
    "logloss": "log loss",
    "lr": "learning rate",
    "dense": "dense parameters",
    "embedding": "embedding parameters",
    "samples_per_second": "samples/s",
    "peak_memory_mb": "peak memory (MB)",
    "±": "± (95 %)",
}
PLOTLY = "application/vnd.plotly.v1+json"


def colour(method: str) -> str:
    """The colour of a method in every notebook: its manifest's, else a hash of its name."""
    declared = manifest.colours(manifest.project_root()).get(method)
    return declared or f"hsl({sum(ord(c) * 37 for c in method) % 360}, 55%, 42%)"


def show(figure: go.Figure, name: str, caption: str) -> None:
    """Display a figure and, under it, what to look for.

    figure: its title says what is seen; what its error bars are (``layout.meta["note"]``, set by
    `charts`) follows the caption. Raises ValueError without a title.
    The output is plotly's own format, interactive wherever plotly is known; `attach_pictures` adds
    a PNG for every other reader afterwards. Needs no browser.
    """
    from IPython.display import Markdown, display

    if not figure.layout.title.text:
        raise ValueError(f"figure {name!r} needs a title that says what is seen")
    display(bundle(figure), raw=True, metadata={"paperlab": {"figure": name}})
    note = (figure.layout.meta or {}).get("note", "")
    display(Markdown(f"*{caption}* {note}".rstrip()))


def bundle(figure: go.Figure) -> dict:
    """The display data of a figure in the house style: rounded numbers, no template."""
    from plotly.utils import PlotlyJSONEncoder

    grid = {"gridcolor": "#e5e5e5", "zerolinecolor": "#cccccc", "automargin": True}
    grid["title"] = {"font": {"size": 13}, "standoff": 8}
    margin = {"l": 60, "r": 20, "t": 62, "b": 60}  # room for subplots' titles under the title
    title = {"font": {"size": 15}, "x": 0.02, "xanchor": "left", "y": 1, "yanchor": "top"}
    figure.update_layout(
        template="none",
        font={"size": 13},
        title=title | {"pad": {"t": 14}},  # pixels, so that a tall figure's title stays on top
        margin=margin | figure.layout.margin.to_plotly_json(),
        height=figure.layout.height or SIZE["height"],
    )
    figure.update_xaxes(**grid).update_yaxes(**grid)
    data = [rounded(trace.to_plotly_json()) for trace in figure.data]
    drawn = {"data": data, "layout": figure.layout.to_plotly_json()}
    return {PLOTLY: json.loads(json.dumps(drawn, cls=PlotlyJSONEncoder))}


def rounded(value):
    """A trace whose lists of floats have 4 significant digits; other values as they are.

    No number is rounded to more than 1/10,000 of its list's range, nor before the decimal point.
    """
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if not isinstance(value, (list, tuple, np.ndarray)):
        return value
    kinds = {type(v) for v in value} if not isinstance(value, np.ndarray) else {value.dtype.kind}
    if "f" not in kinds and not (kinds & {float, np.float64, np.float32}):
        return [rounded(v) for v in value]
    try:
        numbers = np.asarray(value, float)
    except (TypeError, ValueError):  # text among the numbers
        return [rounded(v) for v in value]
    finite = numbers[np.isfinite(numbers)]
    span = np.ptp(finite) if finite.size else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        places = 3 - np.floor(np.log10(np.abs(numbers)))
        places = np.maximum(places, 4 - np.floor(np.log10(span)) if span else 0)
    scale = 10.0 ** np.clip(np.nan_to_num(places, posinf=0, neginf=0), 0, 15)
    short = np.where(np.isfinite(numbers), np.round(numbers * scale) / scale, np.nan)
    return np.where(np.isnan(short), None, short.astype(object)).tolist()


def heading(column: str, headings: dict[str, str] | None = None) -> str:
    """Human words for a column: the caller's, the house's, or its name without underscores."""
    return (HEADINGS | (headings or {})).get(column, str(column).replace("_", " "))


def number(value: float, digits: int = 3) -> str:
    """A number for a reader: significant digits, separators of thousands, – for NaN."""
    if isinstance(value, Integral):
        return f"{value:,}"
    if math.isnan(value):
        return "–"
    short = f"{value + 0.0:.{digits}g}"
    return f"{value:,.0f}" if "e+" in short and abs(value) < 1e15 else short


def table(
    rows: pl.DataFrame | pd.DataFrame | Sequence[dict],
    *,
    headings: dict[str, str] | None = None,
    best: dict[str, str] | None = None,
    digits: int = 3,
) -> None:
    """Display a table, as `markdown` writes it."""
    from IPython.display import Markdown, display

    display(Markdown(markdown(rows, headings=headings, best=best, digits=digits)))


def markdown(
    rows: pl.DataFrame | pd.DataFrame | Sequence[dict],
    *,
    headings: dict[str, str] | None = None,
    best: dict[str, str] | None = None,
    digits: int = 3,
) -> str:
    """A table in Markdown, with numbers to the right and – for a missing value.

    rows: polars, pandas (its index is left out) or dictionaries. Markup in a cell is escaped, unless
    the cell is an ``IPython.display.Markdown`` object.
    headings: column -> human words, beside those of `HEADINGS`.
    best: column -> "higher" or "lower"; the best value is bold, with those that look the same.
    digits: significant digits of floats; whole parts are never cut.
    Raises ValueError for a column that is not there and for another direction.
    """
    if hasattr(rows, "to_dicts"):
        columns, rows = rows.columns, rows.to_dicts()
    elif hasattr(rows, "to_dict"):
        columns, rows = list(rows.columns), rows.to_dict("records")
    else:
        columns = list(dict.fromkeys(key for row in rows for key in row))
    if not columns:
        return "*no rows*"
    best = best or {}
    for column in (*(headings or {}), *best):
        if column not in columns:
            raise ValueError(f"no column {column!r}; there are: {', '.join(map(str, columns))}")
    heads, rules, cells = [], [], []
    for column in columns:
        values = [row.get(column) for row in rows]
        numeric = [v for v in values if is_number(v)]
        shown = [_cell(v, digits) for v in values]
        if column in best and best[column] not in ("higher", "lower"):
            raise ValueError(f"best of {column!r} must be higher or lower, got {best[column]!r}")
        if column in best and (known := [v for v in numeric if not math.isnan(v)]):
            top = _cell(max(known) if best[column] == "higher" else min(known), digits)
            shown = [f"**{text}**" if text == top else text for text in shown]
        heads.append(_text(heading(column, headings)))
        rules.append("---:" if numeric else "---")
        cells.append(shown)
    lines = [heads, rules, *zip(*cells, strict=True)]
    return "\n".join(
        f"|{'|'.join(line)}|" if line is rules else f"| {' | '.join(line)} |" for line in lines
    )


def is_number(value) -> bool:
    """Whether a value is an int or a float, of Python or numpy, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _cell(value, digits: int) -> str:
    if hasattr(value, "_repr_markdown_"):
        return value._repr_markdown_().replace("\n", " ")
    if value is None:
        return "–"
    return number(value, digits) if is_number(value) else _text(str(value))


def _text(value: str) -> str:
    """Text with every sign escaped that Markdown would read; an underscore inside a word is none."""
    plain = html.escape(" ".join(value.split("\n")), quote=False)
    return re.sub(r"[\\`*\[\]|$~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", plain)


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
