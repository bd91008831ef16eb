"""Boxes and arrows: how the parts of a method fit together, as a plotly figure for `plots.show`."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go

TINTS = ("#eeeeee", "#dbe9f6", "#fde3c8", "#d8f0dc", "#f3d9ee", "#fff3bf")  # of columns


def diagram(boxes: dict[str, tuple], arrows: Iterable[tuple[str, ...]], *, title: str) -> go.Figure:
    """Boxes on a grid, with arrows between them.

    boxes: name -> (column, row, text) or (column, row, text, rows spanned); columns count from the
    left, rows from the top, and may be fractions. A line break in the text is one in the box.
    arrows: (from, to) or (from, to, words at the arrow). An arrow between columns joins the facing
    sides, inside a column it joins bottom and top.
    Raises ValueError for an arrow whose ends are not boxes.
    """
    import plotly.graph_objects as go

    columns = sorted({b[0] for b in boxes.values()})
    letters = {c: max(len(line) for b in boxes.values() if b[0] == c for line in b[2].split("\n")) for c in columns}  # fmt: skip
    free = 660 - 45 * (len(columns) - 1) - 16 * len(columns)  # pixels for text
    font = min(13.0, max(9.0, free / (0.58 * sum(letters.values()))))
    width = {c: 16 + 0.58 * font * n for c, n in letters.items()}
    between = max(45.0, (660 - sum(width.values())) / max(1, len(columns) - 1))
    start = {c: sum(width[d] + between for d in columns[:i]) for i, c in enumerate(columns)}
    line = max((b[2].count("\n") + 1) / (b[3] if len(b) > 3 else 1) for b in boxes.values())
    tall, gap = 18 + 1.4 * font * line, 18.0
    corners = {}
    figure = go.Figure()
    for name, (column, row, text, *rest) in boxes.items():
        x0, y0 = start[column], row * (tall + gap)
        x1, y1 = x0 + width[column], y0 + (rest[0] if rest else 1) * (tall + gap) - gap
        corners[name] = x0, x1, y0, y1
        tint = TINTS[columns.index(column) % len(TINTS)]
        edges = {"x0": x0, "x1": x1, "y0": y0, "y1": y1, "line_width": 1, "layer": "below"}
        figure.add_shape(type="rect", fillcolor=tint, **edges)
        words = html.escape(text, quote=False).replace("\n", "<br>")
        middle = {"x": (x0 + x1) / 2, "y": (y0 + y1) / 2}
        figure.add_annotation(text=words, showarrow=False, font_size=font, **middle)
    for one, two, *words in arrows:
        for name in (one, two):
            if name not in corners:
                raise ValueError(f"an arrow needs boxes: {name!r} is none of {', '.join(corners)}")
        (ax, ay), (x, y) = _ends(corners[one], corners[two])
        figure.add_annotation(x=x, y=y, ax=ax, ay=ay, axref="x", ayref="y", arrowhead=2, text="")
        if words:
            written = html.escape(words[0], quote=False)
            middle = {"x": (x + ax) / 2, "y": (y + ay) / 2, "yshift": 9}
            figure.add_annotation(text=written, showarrow=False, font_size=font - 1, **middle)
    right, low = (max(c[i] for c in corners.values()) for i in (1, 3))
    figure.add_scatter(x=[0, right], y=[0, low], mode="markers", marker_opacity=0, hoverinfo="skip")
    figure.update_xaxes(visible=False, range=[-5, right + 5])
    figure.update_yaxes(visible=False, range=[low + 5, min(c[2] for c in corners.values()) - 5])
    margin = {"l": 20, "b": 20}
    return figure.update_layout(title=title, height=92 + int(low), margin=margin, showlegend=False)


def _ends(one: tuple[float, ...], two: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    """Tail and head of an arrow between two boxes (x0, x1, y0, y1)."""
    if one[1] <= two[0] or two[1] <= one[0]:  # in different columns: facing sides
        x, to = (one[1], two[0]) if one[1] <= two[0] else (one[0], two[1])
        low, high = max(one[2], two[2]), min(one[3], two[3])
        if low < high:  # a level arrow where the boxes face each other
            return (x, (low + high) / 2), (to, (low + high) / 2)
        return (x, (one[2] + one[3]) / 2), (to, (two[2] + two[3]) / 2)
    down = one[2] < two[2]
    tail = ((one[0] + one[1]) / 2, one[3] if down else one[2])
    return tail, ((two[0] + two[1]) / 2, two[2] if down else two[3])
