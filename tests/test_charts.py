"""Charts hold what they were given: means, intervals, names, and marks that never cover each other."""

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import charts, plots, summaries, verdict
from scipy import stats


def results(
    methods=("A", "B", "C"), seeds=4, logs=("one", "two"), noise=(0, 30, 100)
) -> list[dict]:
    draw = np.random.default_rng(0)
    return [
        {"model": m, "seed": s, "log": log, "noise": k, "auc": float(0.7 + 0.1 * draw.random())}
        for m in methods
        for s in range(seeds)
        for log in logs
        for k in noise
    ]


def mark_pixels(figure) -> list[tuple[float, float]]:
    """Where the marks of a forest stand, in pixels of a figure 700 wide."""
    layout = plots.bundle(figure)[plots.PLOTLY]["layout"]
    width, height = 700 - 60 - 20, layout["height"] - 62 - 60
    (left, right), (bottom, top) = layout["xaxis"]["range"], layout["yaxis"]["range"]
    return [
        (width * (x - left) / (right - left), height * (y - top) / (bottom - top))
        for trace in figure.data
        for x, y in zip(trace.x, trace.y, strict=True)
        if x is not None
    ]


# Means, intervals and differences


def test_an_interval_by_hand():
    """1, 2, 3: mean 2, standard error 1/sqrt(3), t(2) = 4.3027."""
    mean, low, high = summaries.interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert high - mean == pytest.approx(4.302653 / 3**0.5, abs=1e-6)
    assert mean - low == pytest.approx(high - mean)


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], [1.0, 2.0, math.nan], [1.0, math.inf, 2.0]])
def test_there_is_no_interval_with_two_seeds_or_a_missing_value(values):
    assert summaries.interval(values)[1:] == (None, None)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.1, 100), min_size=3, max_size=8))
def test_intervals_agree_with_scipy_and_logs_give_the_geometric_mean(values):
    _, low, high = summaries.interval(values)
    if np.std(values) > 1e-9:
        slow = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert (low, high) == pytest.approx(slow)
    assert summaries.interval(values, log=True)[0] == pytest.approx(stats.gmean(values))


def test_differences_are_paired_by_seed_in_each_group():
    rows = [
        {"model": m, "seed": s, "log": log, "auc": base + s + step * (m == "A")}
        for log, step in (("one", 1.0), ("two", -2.0))
        for m, base in (("A", 0.0), ("B", 0.0))
        for s in (3, 1, 2)
    ]
    for i, r in enumerate(r for r in rows if r["model"] == "A"):
        r["auc"] += (0.1, 0.0, -0.1)[i % 3]
    one, two = charts.differences(rows[::-1], "auc", "B", group="log")[::-1]
    assert (one["name"], one["group"], one["value"]) == ("A", "one", pytest.approx(1))
    assert two["value"] == pytest.approx(-2)
    half = 4.302653 * 0.1 / 3**0.5  # seeds are worth 1 to 3, paired they spread by 0.1
    assert one["high"] - one["value"] == pytest.approx(half, abs=1e-6)


def test_equal_differences_have_no_interval_unless_they_are_zero():
    rows = [{"model": m, "seed": s, "auc": s + (m == "A")} for m in "ABC" for s in range(4)]
    a, c = charts.differences(rows, "auc", "B")
    assert (a["low"], a["high"]) == (None, None)
    assert (c["low"], c["high"]) == (0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, rows[0]], "two rows with model = 'A', seed = 0: choose one"),
        (lambda rows: rows[1:], "seed 0 has only one of A and B"),
        (lambda rows: [r for r in rows if r["model"] != "B"], "no rows with model = 'B'"),
        (lambda rows: [{"model": "A", "seed": 1}], "a row has no 'auc'; it has: model, seed"),
        (lambda rows: [], "no rows to draw"),
    ],
)
def test_differences_refuse_what_is_no_pair(change, message):
    rows = [{"model": m, "seed": s, "auc": 0.5} for m in "ABC" for s in range(3)]
    with pytest.raises(ValueError, match=message):
        charts.differences(change(rows), "auc", "B")


# Forest


def test_a_forest_has_a_row_a_method_its_colour_and_its_interval():
    parts = charts.differences(results(logs=("one",), noise=(0,)), "auc", "B")
    figure = charts.forest(parts, title="t", delta=0.02)
    assert list(figure.layout.yaxis.ticktext) == ["A", "C"]
    for trace, part in zip(figure.data, parts, strict=True):
        assert trace.marker.color == plots.colour(part["name"])
        assert trace.x == (part["value"],)
        assert trace.x[0] + trace.error_x.array[0] == pytest.approx(part["high"])
        assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(part["low"])
    bands = [s for s in figure.layout.shapes if s.type == "rect"]
    assert [(s.x0, s.x1) for s in bands] == [(-0.02, 0.02)] * 2
    assert "95 %" in figure.layout.xaxis.title.text and "Grey" in figure.layout.meta["note"]


@pytest.mark.parametrize(("methods", "logs"), [(2, 1), (2, 8), (21, 1), (21, 3)])
def test_marks_of_a_forest_do_not_cover_each_other(methods, logs):
    names = tuple(f"m{i}" for i in range(methods))
    rows = results(names, 3, tuple(f"log {i}" for i in range(logs)), (0,))
    marks = mark_pixels(
        charts.forest(charts.differences(rows, "auc", "m0", group="log"), title="t")
    )
    assert len(marks) == (methods - 1) * logs
    gaps = [abs(a[1] - b[1]) for a, b in itertools.combinations(marks, 2)]
    assert min(gaps, default=99) > 9  # the size of a mark


def test_an_interval_that_is_not_there_is_not_drawn():
    """One seed: a hollow mark. A missing value: no mark, but the name stays."""
    rows = results(logs=("one",), noise=(0,))
    one = [r for r in rows if r["seed"] == 0]
    figure = charts.forest(charts.differences(one, "auc", "B"), title="t")
    assert figure.data[0].marker.symbol == ("circle-open",)
    assert figure.data[0].error_x.array == (None,)
    assert "2 of 2 without an interval" in figure.layout.meta["note"]
    rows[0]["auc"] = None
    figure = charts.forest(charts.differences(rows, "auc", "B"), title="t")
    assert list(figure.layout.yaxis.ticktext) == ["A", "C"]
    drawn = plots.bundle(figure)[plots.PLOTLY]
    assert drawn["data"][0]["x"] == [None] and drawn["data"][1]["x"] != [None]
    assert all(map(math.isfinite, drawn["layout"]["xaxis"]["range"]))


def test_names_are_text():
    rows = results(("a|b", "<b>x</b>", "x & y"), logs=("<i>",), noise=(0,))
    figure = charts.forest(charts.differences(rows, "auc", "a|b", group="log"), title="t")
    assert list(figure.layout.yaxis.ticktext) == ["&lt;b&gt;x&lt;/b&gt;", "x &amp; y"]
    names = {
        t.name
        for t in charts.curves(results(("<b>", "|")), "noise", "auc", title="t", panel="log").data
    }
    assert names == {"&lt;b&gt;", "|"}


def test_a_forest_refuses_nothing_and_nine_groups():
    with pytest.raises(ValueError, match="at least one comparison"):
        charts.forest([], title="t")
    rows = results(logs=tuple(map(str, range(9))), noise=(0,))
    with pytest.raises(ValueError, match="at most 8 groups"):
        charts.forest(charts.differences(rows, "auc", "B", group="log"), title="t")


def judged(metric, delta, better, *spans):
    def estimate(low, high):
        return SimpleNamespace(value=(low + high) / 2, interval=lambda level: (low, high))

    parts = [
        SimpleNamespace(label=f"A - B {i}", estimate=estimate(*span), source={"a": "A"})
        for i, span in enumerate(spans)
    ]
    claim = SimpleNamespace(metric=metric, delta=delta, better=better, comparisons=parts)
    return SimpleNamespace(claim=claim)


def test_claims_of_one_metric_keep_its_unit():
    figure = charts.forest([judged("auc", 0.01, "higher", (0.0, 0.02), (0.01, 0.03))], title="t")
    assert figure.data[0].x == pytest.approx((0.01, 0.02))
    assert figure.data[0].error_x.array == pytest.approx((0.01, 0.01))
    assert figure.layout.xaxis.title.text.startswith("difference in AUC")
    assert figure.data[0].marker.color == plots.colour("A")


def test_claims_of_several_metrics_are_in_units_of_delta_with_the_claim_to_the_right():
    lower = judged("seconds", 2.0, "lower", (-8.0, -2.0), (-math.inf, math.inf))
    figure = charts.forest([judged("auc", 0.01, "higher", (0.0, 0.02)), lower], title="t")
    assert figure.data[0].x[:2] == pytest.approx((1.0, 2.5))
    assert figure.data[0].error_x.array[:2] == pytest.approx((1.0, 1.5))
    assert figure.data[0].marker.symbol[2] == "circle-open"
    assert {s.x1 for s in figure.layout.shapes if s.type == "rect"} == {1.0}
    assert list(figure.layout.yaxis.ticktext) == [
        "A - B 0: AUC",
        "A - B 0: seconds",
        "A - B 1: seconds",
    ]


def test_labels_of_two_lines_have_room():
    few = [judged("auc", 0.01, "higher", *[(0.0, 0.02)] * 6)]
    short = charts.forest(few, title="t").layout.height
    for part in few[0].claim.comparisons:
        part.label = "a method with a long name - another method with a long name (noise 4)"
    figure = charts.forest(few, title="t")
    lines = max(t.count("<br>") + 1 for t in figure.layout.yaxis.ticktext)
    assert lines == 2 and figure.layout.height >= short + 6 * 10
    assert figure.layout.height - 140 >= 6 * 17 * lines  # pixels of a line
    assert "Holm's level" in figure.layout.meta["note"]


def test_outcomes_have_a_row_each_the_interval_that_decided_and_the_band():
    every = verdict.examples()
    figure = charts.outcomes(every, title="t")
    assert list(figure.layout.yaxis.ticktext) == list(verdict.OUTCOMES)
    parts = [(y, p, s) for y, j in enumerate(every) for p, s in zip(j.claim.comparisons, j.spans, strict=True)]  # fmt: skip
    for trace, (y, part, span) in zip(figure.data, parts, strict=True):
        assert list(trace.x) == [span[0], part.estimate.value, span[1]] and set(trace.y) == {y}
        assert trace.line.color == charts.SHADES[every[y].outcome]
    assert [(s.x0, s.x1) for s in figure.layout.shapes] == [(-1.0, 1.0), (0, 0)]


# Curves


def test_curves_are_means_over_seeds():
    rows = results(logs=("one",))
    figure = charts.curves(
        rows, "noise", "auc", title="t", reference={"best": "noise", "coin": 0.5}
    )
    a, *_, best, coin = figure.data
    mine = [[r["auc"] for r in rows if (r["model"], r["noise"]) == ("A", k)] for k in (0, 30, 100)]
    assert a.y == pytest.approx([np.mean(v) for v in mine])
    high = [stats.t.interval(0.95, 3, np.mean(v), stats.sem(v))[1] for v in mine]
    assert np.add(a.y, a.error_y.array) == pytest.approx(high)
    assert a.customdata == (0, 30, 100) and a.line.color == plots.colour("A")
    assert best.y == (0, 30, 100) and coin.y == (0.5,) * 3
    assert "95 %" in figure.layout.yaxis.title.text and "4 seeds" in figure.layout.meta["note"]


@pytest.mark.parametrize("log", ["", "x"])
@pytest.mark.parametrize("methods", [1, 2, 20])
def test_curves_stand_side_by_side_and_in_order(methods, log):
    names = tuple(f"m{i}" for i in range(methods))
    figure = charts.curves(
        results(names, logs=("one",), noise=(1, 10, 1000)), "noise", "auc", title="t", log=log
    )
    scale = np.log10 if log else np.asarray
    at = scale(np.array([t.x for t in figure.data]))  # (method, x)
    assert at.mean(0) == pytest.approx(scale([1, 10, 1000]))
    gaps = np.diff(at.T.ravel())
    assert (gaps > 0).all()  # no two marks at one place, and none of the next x before
    assert methods > 1 or at[0] == pytest.approx(scale([1, 10, 1000]))


def test_names_as_x_have_marks_without_lines_in_the_order_of_the_rows():
    figure = charts.curves(results(noise=(0,)), "log", "auc", title="t")
    assert list(figure.layout.xaxis.ticktext) == ["one", "two"]
    assert {t.mode for t in figure.data} == {"markers"}


def test_panels_share_one_legend():
    figure = charts.curves(
        results(), "noise", "auc", title="t", panel="log", reference={"coin": 0.5}
    )
    assert [a.text for a in figure.layout.annotations] == ["one", "two"]
    shown = [t.name for t in figure.data if t.showlegend]
    assert sorted(shown) == ["A", "B", "C", "coin"] and len(figure.data) == 8


def test_a_missing_value_leaves_a_hole_and_is_counted():
    rows = results(logs=("one",))
    rows[0]["auc"] = None
    figure = charts.curves(rows, "noise", "auc", title="t")
    assert figure.data[0].y[0] is None and None not in figure.data[0].y[1:]
    assert "Not drawn: 1 points" in figure.layout.meta["note"]


def test_one_seed_has_hollow_marks_and_no_bars():
    figure = charts.curves(results(seeds=1, logs=("one",)), "noise", "auc", title="t")
    assert figure.data[0].marker.symbol == "circle-open"
    assert set(figure.data[0].error_y.array) == {None}
    assert "too few" in figure.layout.meta["note"] and "95" not in figure.layout.yaxis.title.text


def test_a_logarithmic_y_has_geometric_means():
    rows = [
        {"model": "A", "seed": s, "n": n, "e": v}
        for n in (1, 2)
        for s, v in enumerate((1, 10, 100))
    ]
    figure = charts.curves(rows, "n", "e", title="t", log="y")
    assert figure.data[0].y == pytest.approx((10, 10))
    assert min(np.subtract(figure.data[0].y, figure.data[0].error_y.arrayminus)) > 0
    assert "geometric" in figure.layout.meta["note"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"log": "x"}, "noise must be a finite number above 0, got 0"),
        ({"log": "z"}, "log must be"),
        ({"y": "aucc"}, "a row has no 'aucc'"),
        ({"reference": {"best": "bayes"}}, "a row has no 'bayes'"),
        ({"panel": None}, "two rows with model = 'A', noise = 0, seed = 0: choose one"),
    ],
)
def test_curves_refuse_in_one_line(options, message):
    given = {"x": "noise", "y": "auc", "title": "t", "panel": "log"} | options
    with pytest.raises(ValueError, match=message):
        charts.curves(results(), **given)


# Diagram


def test_a_diagram_joins_facing_sides_and_boxes_do_not_overlap():
    boxes = {
        "e": (0, 0, "all", 2),
        "a": (1, 0, "one\ntwo"),
        "b": (1, 1, "x < y"),
        "n": (2, 0, "mix", 2),
    }
    arrows = [("e", "a"), ("e", "b"), ("a", "n"), ("b", "n", "why"), ("a", "b"), ("n", "e")]
    figure = charts.diagram(boxes, arrows, title="t")
    corner = {n: (s.x0, s.x1, s.y0, s.y1) for n, s in zip(boxes, figure.layout.shapes, strict=True)}
    for one, two in itertools.combinations(corner.values(), 2):
        assert one[1] < two[0] or two[1] < one[0] or one[3] < two[2] or two[3] < one[2]
    heads = [a for a in figure.layout.annotations if a.axref == "x"]
    for (one, two, *_), a in zip(arrows[:4], heads, strict=False):
        assert (a.ax, a.x) == (corner[one][1], corner[two][0]) and a.y == a.ay
    assert (heads[4].ay, heads[4].y) == (corner["a"][3], corner["b"][2])
    assert (heads[5].ax, heads[5].x) == (corner["n"][0], corner["e"][1])
    texts = {a.text for a in figure.layout.annotations}
    assert {"one<br>two", "x &lt; y", "why"} <= texts


def test_a_wide_diagram_takes_a_smaller_font():
    narrow = charts.diagram({"a": (0, 0, "a")}, [], title="t")
    wide = charts.diagram({str(i): (i, 0, "fifteen letters") for i in range(6)}, [], title="t")
    assert narrow.layout.annotations[0].font.size == 13
    assert 9 <= wide.layout.annotations[0].font.size < 12


def test_an_arrow_to_nowhere_is_refused():
    with pytest.raises(ValueError, match="'b' is none of a"):
        charts.diagram({"a": (0, 0, "a")}, [("a", "b")], title="t")


# All of them


def figures() -> dict:
    names = tuple(f"method {i}" for i in range(20))
    noise = results(noise=(1,))
    boxes = {str(i): (i % 5, i // 5, "eight\nletters") for i in range(20)}
    return {
        "forest": charts.forest(
            charts.differences(noise, "auc", "B", group="log"), title="forest", delta=0.01
        ),
        "curves": charts.curves(
            results(names, noise=tuple(range(1, 11))), "noise", "auc", title="curves", panel="log"
        ),
        "outcomes": charts.outcomes(verdict.examples(), title="outcomes"),
        "diagram": charts.diagram(boxes, [(str(i), str(i + 1)) for i in range(4)], title="diagram"),
    }


def test_every_figure_is_small_json_with_a_title():
    for name, figure in figures().items():
        text = json.dumps(plots.bundle(figure))
        assert len(text) <= 40_000, f"{name}: {len(text)}"
        assert "bdata" not in text and "NaN" not in text and "Infinity" not in text
        assert figure.layout.title.text == name


@pytest.mark.skipif(plots.browser() is None, reason="no Chrome or Chromium on this machine")
def test_every_figure_can_be_drawn(tmp_path):
    outputs = [
        {"data": plots.bundle(figure), "metadata": {"paperlab": {"figure": name}}}
        for name, figure in figures().items()
    ]
    paths = plots.attach_pictures({"cells": [{"outputs": outputs}]}, tmp_path, "101_x")
    assert [p.stem for p in paths] == [f"101_x_{n}" for n in figures()]
