"""Charts that notebooks share: differences with intervals, curves over seeds, outcomes of claims.

Each function returns a plotly figure for `plots.show`. Bars are 95 % intervals by Student's t.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import intervals, plots
from .diagrams import diagram as diagram  # notebooks find all their charts here
from .summaries import collect, interval
from .summaries import differences as differences

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from .verdict import Judged

MARKS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "star", "hexagon")
GREY = "#888888"
SHADES = {  # of the outcomes of claims
    "supported": "#2b8a3e",
    "leans for": "#74c476",
    "no difference": "#1f77b4",
    "leans against": "#fd8d3c",
    "contradicted": "#c92a2a",
    "mixed": "#7b4fa3",
    "unresolved": "#adb5bd",
}


def forest(
    parts: Sequence[dict] | Sequence[Judged],
    *,
    title: str,
    headings: dict[str, str] | None = None,
    delta: float | None = None,
) -> go.Figure:
    """Differences with 95 % intervals, a row each, a zero line and the band that does not matter.

    parts: rows of `differences`; those of one name share a row, with a mark for each group. Or what
    `verdict.judge` returns: each comparison is a row, in units of its claim's delta and with the
    claimed side to the right, unless all claims have one metric and one delta.
    delta: half-width of the grey band, for rows of `differences`.
    headings: column -> words, for the metric. A hollow mark has no interval.
    Raises ValueError without rows or with more than 8 groups.
    """
    import plotly.graph_objects as go

    if not parts:
        raise ValueError("forest needs at least one comparison")
    judged = not isinstance(parts[0], dict)
    rows, axis = _of_claims(parts, headings) if judged else _of_rows(parts, headings, delta)
    names = list(dict.fromkeys(r["row"] for r in rows))
    groups = list(dict.fromkeys(r["group"] for r in rows))
    if len(groups) > len(MARKS):
        raise ValueError(f"at most {len(MARKS)} groups can be told apart, got {len(groups)}")
    for r in rows:
        k = groups.index(r["group"])
        r["y"] = names.index(r["row"]) + 0.7 * (k - (len(groups) - 1) / 2) / len(groups)
    figure = go.Figure()
    for method in dict.fromkeys(r["method"] for r in rows):
        mine = [r for r in rows if r["method"] == method]
        ink, hollow = plots.colour(method), [r["low"] is None for r in mine]
        signs = [MARKS[groups.index(r["group"])] for r in mine]
        signs = [s + "-open" * h for s, h in zip(signs, hollow, strict=True)]
        up, down = _bars([(r["value"], r["low"], r["high"]) for r in mine])
        figure.add_scatter(
            x=[r["value"] for r in mine],
            y=[r["y"] for r in mine],
            error_x={**_bar(ink), "array": up, "arrayminus": down},
            marker={"symbol": signs, "size": 9, "color": ink},
            mode="markers",
            name=html.escape(str(method), quote=False),
            showlegend=False,
        )
    if len(groups) > 1:
        for group, sign in zip(groups, MARKS, strict=False):
            mark = {"symbol": sign, "size": 9, "color": GREY}
            written = html.escape(str(group), quote=False)
            figure.add_scatter(x=[None], y=[None], mode="markers", name=written, marker=mark)
    bands = {name: next(r["delta"] for r in rows if r["row"] == name) for name in names}
    for i, band in enumerate(bands.values()):
        if band:
            ends = {"x0": -band, "x1": band, "y0": i - 0.5, "y1": i + 0.5, "layer": "below"}
            figure.add_shape(type="rect", fillcolor="#e9ecef", line_width=0, **ends)
    ends = {"x0": 0, "x1": 0, "y0": -0.5, "y1": len(names) - 0.5, "layer": "between"}
    figure.add_shape(type="line", line={"dash": "dot", "color": "#333333"}, **ends)
    ends = [r[k] for r in rows for k in ("value", "low", "high") if _finite(r[k])]
    ends += [0.0, *(sign * b for b in bands.values() if b for sign in (1.2, -1.2))]
    margin = 0.05 * (max(ends) - min(ends)) or 1.0
    words = ["<br>".join(textwrap.wrap(html.escape(r["label"], quote=False), 36)) for r in rows]
    labels = {r["row"]: w for r, w in zip(rows, words, strict=True)}
    lines = 1 + max(w.count("<br>") for w in words)  # of a label
    figure.update_xaxes(title=axis, range=[min(ends) - margin, max(ends) + margin], zeroline=False)
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[labels[n] for n in names],
        range=[len(names) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    lone = sum(r["low"] is None for r in rows)
    note = "Bars: 95 % intervals of paired differences (Student's t)."
    if judged:
        note = (
            "Bars: each comparison's own 95 % interval. Verdicts and their table use Holm's level, "
        )
        note += "which is wider, and 90 % for “no difference”."
    if any(bands.values()):
        note += " Grey: differences too small to matter."
    note += f" Hollow or without a mark: {lone} of {len(rows)} without an interval." if lone else ""
    return figure.update_layout(
        title=title,
        height=140 + len(names) * max(28, 16 * len(groups), 18 * lines + 4),
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        meta={"note": note},
    )


def curves(
    rows: Sequence[dict],
    x: str,
    y: str,
    *,
    title: str,
    by: str = "model",
    pair: str = "seed",
    panel: str | None = None,
    reference: dict[str, str | float] | None = None,
    log: str = "",
    headings: dict[str, str] | None = None,
) -> go.Figure:
    """Mean over seeds with 95 % intervals against x, a line a method.

    rows: one a method (column ``by``), x, seed (column ``pair``) and panel (column ``panel``).
    x: a column of numbers, or of names (then without lines). Methods at one x stand side by side.
    reference: words -> a column (its mean at each x) or a number, as a dotted grey line.
    log: the axes with a logarithmic scale, "x", "y" or "xy". On a logarithmic y the mean is the
    geometric one. headings: column -> words, for the axes.
    Raises ValueError for two rows of one seed, and for x <= 0 on a logarithmic axis.
    """
    from plotly.subplots import make_subplots

    if log not in ("", "x", "y", "xy"):
        raise ValueError(f'log must be "", "x", "y" or "xy", got {log!r}')
    keys = [c for c in (panel, by, x) if c]
    values = collect(rows, y, *keys, pair=pair)
    place, ticks = _axis([r[x] for r in rows], x, "x" in log)
    methods = list(dict.fromkeys(r[by] for r in rows))
    panels = list(dict.fromkeys(k[:-2] for k in values))
    spots = sorted(place.values())
    gap, span = (min(np.diff(spots)), spots[-1] - spots[0]) if len(spots) > 1 else (1.0, 1.0)
    named = isinstance(next(iter(place)), str)
    step = min(0.5 * gap / len(methods), 0.1 if named else 0.012 * span * len(panels))
    back = (lambda v: 10**v) if "x" in log else (lambda v: v)
    titles = [f"{plots.heading(panel, headings)} {plots.number(p)}" if plots.is_number(p) else str(p) for (p,) in panels] if panel else None  # fmt: skip
    figure = make_subplots(
        1, len(panels), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.04
    )
    counts, left_out = set(), 0
    for column, there in enumerate(panels, 1):
        for k, method in enumerate(methods):
            mine = {at[-1]: list(seeds.values()) for at, seeds in values.items() if at[:-1] == (*there, method)}  # fmt: skip
            if not mine:
                continue
            xs = sorted(mine, key=place.get)
            points = [interval(mine[v], "y" in log) for v in xs]
            counts |= {len(mine[v]) for v in xs}
            left_out += sum(not math.isfinite(p[0]) for p in points)
            up, down = _bars(points)
            ink, sign = plots.colour(method), MARKS[k % len(MARKS)]
            signs = [sign + "-open" * (low is None) for _, low, _ in points]
            signs = signs if len(set(signs)) > 1 else signs[0]
            written = html.escape(str(method), quote=False)
            shift = (k - (len(methods) - 1) / 2) * step
            figure.add_scatter(
                x=[back(place[v] + shift) for v in xs],
                y=[p[0] if math.isfinite(p[0]) else None for p in points],
                error_y={**_bar(ink), "array": up, "arrayminus": down},
                customdata=xs,
                hovertemplate="%{customdata}: %{y}",
                mode="markers" if named else "lines+markers",
                marker={"symbol": signs, "size": 7},
                line={"color": ink, "width": 1.5},
                name=written,
                legendgroup=written,
                showlegend=not any(t.name == written for t in figure.data),
                row=1,
                col=column,
            )
        here = [r for r in rows if not panel or r[panel] == there[0]]
        for k, (words, source) in enumerate((reference or {}).items()):
            level = _level(here, x, source)
            xs = sorted(level, key=place.get)
            figure.add_scatter(
                x=[back(place[v]) for v in xs],
                y=[level[v] for v in xs],
                mode="lines" if len(xs) > 1 else "markers",
                line={"color": GREY, "dash": ("dot", "dash", "dashdot")[k % 3]},
                name=html.escape(words, quote=False),
                legendgroup=words,
                showlegend=column == 1,
                row=1,
                col=column,
            )
    figure.update_annotations(font_size=13)
    figure.update_xaxes(title=plots.heading(x, headings), zeroline=False, **ticks)
    figure.update_yaxes(type="log" if "y" in log else "linear", exponentformat="power")
    bars = max(counts) >= intervals.FEWEST
    words = plots.heading(y, headings) + (" (bars: 95 % intervals)" if bars else "")
    figure.update_yaxes(title=words, col=1)
    kind = "geometric mean" if "y" in log else "mean"
    seeds = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"
    note = f"Bars: 95 % intervals of the {kind} over {seeds} {pair}s (Student's t)."
    if not bars:
        note = f"The {kind} of {seeds} {pair}{'s' * (max(counts) > 1)}: too few for an interval."
    note += f" Not drawn: {left_out} points with a missing value." if left_out else ""
    height = max(plots.SIZE["height"], 130 + 20 * (len(methods) + len(reference or {})))
    figure.update_layout(title=title, height=height, meta={"note": note})
    return figure.update_layout(showlegend=True, legend_tracegroupgap=0)


def outcomes(judged: Sequence[Judged], *, title: str) -> go.Figure:
    """Judged claims of one delta, a row each, named by its outcome: the intervals that decided.

    judged: see `verdict.examples`, which has one claim for each outcome.
    """
    import plotly.graph_objects as go

    figure, band = go.Figure(), judged[0].claim.delta
    for y, each in enumerate(judged):
        for part, ends in zip(each.claim.comparisons, each.spans, strict=True):
            x = [ends[0], part.estimate.value, ends[1]]
            figure.add_scatter(
                x=x,
                y=[y] * 3,
                mode="lines+markers",
                line_color=SHADES[each.outcome],
                marker_size=[1, 9, 1],
                showlegend=False,
            )
    figure.add_vrect(x0=-band, x1=band, fillcolor="#e9ecef", layer="below", line_width=0)
    figure.add_vline(x=0, line_dash="dot")
    names = [each.outcome for each in judged]
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, autorange="reversed")
    figure.update_xaxes(title="difference a − b; grey: too small to matter (±δ)")
    note = "Bars: 95 % intervals, of “no difference” 90 %. “Mixed” has two comparisons, all others one."
    return figure.update_layout(title=title, meta={"note": note})


def _of_rows(parts, headings, delta) -> tuple[list[dict], str]:
    """Rows of `differences` as `forest` draws them, and the title of the axis."""
    first = parts[0]
    axis = f"{plots.heading(first['metric'], headings)} minus that of {first['against']}"
    own = ({"row": p["name"], "label": str(p["name"]), "method": p["name"]} for p in parts)
    rows = [p | {"delta": delta} | more for p, more in zip(parts, own, strict=True)]
    return rows, f"{html.escape(axis, quote=False)} (bars: 95 % intervals)"


def _of_claims(judged, headings) -> tuple[list[dict], str]:
    """Comparisons of judged claims as `forest` draws them, and the title of the axis."""
    claims = [j.claim for j in judged]
    alike = len({(c.metric, c.delta, c.better) for c in claims}) == 1
    rows = []
    for claim in claims:
        way = 1.0 if claim.better == "higher" else -1.0
        scale = 1.0 if alike else way / claim.delta
        for c in claim.comparisons:
            low, high = sorted(scale * float(end) for end in c.estimate.interval(0.95))
            ends = (low, high) if math.isfinite(high - low) else (None, None)
            written = c.label if alike else f"{c.label}: {plots.heading(claim.metric, headings)}"
            rows.append({"row": len(rows), "label": written, "group": None, "value": scale * float(c.estimate.value), "low": ends[0], "high": ends[1], "method": str((c.source or {}).get("a", c.label)), "delta": claim.delta if alike else 1.0})  # fmt: skip
    metric = plots.heading(claims[0].metric, headings)
    lower = ", lower is better" if claims[0].better == "lower" else ""
    axis = f"difference in {metric}{lower}" if alike else "difference in units of the smallest effect that matters; right: for the claim"  # fmt: skip
    return rows, f"{html.escape(axis, quote=False)}{' ' if alike else '<br>'}(bars: 95 % intervals)"


def _axis(values: Sequence, x: str, log: bool) -> tuple[dict, dict]:
    """Where each x stands on its axis (its logarithm on a logarithmic one), and the axis' ticks."""
    known = list(dict.fromkeys(values))
    if any(isinstance(v, str) for v in known):
        place = {v: float(i) for i, v in enumerate(known)}
        words = [html.escape(str(v), quote=False) for v in known]
        ends = [-0.5, len(known) - 0.5]
        return place, {"tickvals": list(place.values()), "ticktext": words, "range": ends}
    wrong = [v for v in known if not _finite(v) or (log and v <= 0)]
    if wrong:
        raise ValueError(f"{x} must be a finite number{' above 0' * log}, got {wrong[0]!r}")
    place = {v: math.log10(v) if log else float(v) for v in sorted(known)}
    at = list(place.values())
    ticks = {"type": "log" if log else "linear"}
    if len(at) > 1 and min(np.diff(at)) >= 0.07 * (at[-1] - at[0]):
        ticks |= {"tickvals": list(place), "ticktext": [plots.number(v) for v in place]}
    return place, ticks


def _level(rows: Sequence[dict], x: str, source: str | float) -> dict:
    """A reference at each x: a number, or the mean of a column."""
    at: dict = {}
    for row in rows:
        if isinstance(source, str) and source not in row:
            raise ValueError(f"a row has no {source!r}; it has: {', '.join(map(str, row))}")
        at.setdefault(row[x], []).append(row[source] if isinstance(source, str) else source)
    return {v: float(np.mean(found)) for v, found in at.items()}


def _bars(points: Iterable[tuple]) -> tuple[list, list]:
    """Lengths of the error bars up and down, None where there is no interval."""
    points = list(points)
    up = [None if high is None else high - mean for mean, _, high in points]
    return up, [None if low is None else mean - low for mean, low, _ in points]


def _bar(ink: str) -> dict:
    return {"type": "data", "symmetric": False, "thickness": 1.5, "width": 0, "color": ink}


def _finite(value) -> bool:
    return plots.is_number(value) and math.isfinite(value)
