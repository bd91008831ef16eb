"""Outcomes by their tables, mirrored by a swap, found again from a record, refused where trivial."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from paperlab import evidence, intervals, verdict
from paperlab.verdict import EQUAL


def rows(**metric):
    return [{"model": m, "seed": s, "auc": v} for m, vs in metric.items() for s, v in enumerate(vs)]


def source(**metric):
    roles = {"group": "model", "metric": "auc", "better": "higher", "pair": "seed"}
    return {"metrics": {"main": rows(**metric)}, "tables": {"main": roles}}


def around(mean, n=5, sd=0.01):
    return [mean + sd * x for x in np.linspace(-1, 1, n)]


def one(value, se, df=4.0, n=5, delta=0.1, **claim):
    made = verdict.Comparison("a - b", intervals.Student(value, se, df, n), {})
    return verdict.Claim("t", [made], "auc", delta, **claim)


@pytest.mark.parametrize(
    ("signs", "every", "some"),
    [
        ([2], "supported", "supported"),
        ([1], "leans for", "leans for"),
        ([-2], "contradicted", "contradicted"),
        ([EQUAL], "no difference", "no difference"),
        ([0], "unresolved", "unresolved"),
        ([2, 2], "supported", "supported"),
        ([2, 0], "leans for", "supported"),
        ([2, 1], "leans for", "supported"),
        ([2, EQUAL], "leans for", "supported"),
        ([1, 0], "leans for", "leans for"),
        ([2, -2], "mixed", "mixed"),
        ([1, -1], "mixed", "mixed"),
        ([0, -2], "contradicted", "leans against"),
        ([EQUAL, -2], "contradicted", "leans against"),
        ([0, -1], "leans against", "leans against"),
        ([EQUAL, EQUAL], "no difference", "no difference"),
        ([EQUAL, 0], "unresolved", "unresolved"),
    ],
)
def test_the_table_of_outcomes(signs, every, some):
    told = [verdict.OUTCOMES[verdict.outcomes(np.array(signs), q)] for q in ("all", "some")]
    assert told == [every, some]


@pytest.mark.parametrize(
    ("value", "se", "outcome"),
    [
        (0.30, 0.02, "supported"),
        (0.08, 0.02, "leans for"),  # above 0, below delta, and not within delta
        (0.05, 0.01, "no difference"),  # significant and too small to matter
        (0.00, 0.02, "no difference"),
        (0.05, 0.05, "unresolved"),
        (0.30, 0.20, "unresolved"),
        (-0.08, 0.02, "leans against"),
        (-0.30, 0.02, "contradicted"),
        (math.nan, math.inf, "unresolved"),
        (0.00, math.inf, "unresolved"),
    ],
)
def test_one_comparison(value, se, outcome):
    assert verdict.judge([one(value, se)])[0].outcome == outcome
    lower = verdict.judge([one(value, se, better="lower")])[0].outcome
    assert lower == verdict.MIRROR[outcome]


ESTIMATES = st.tuples(
    st.floats(-0.5, 0.5), st.sampled_from([0.0, 0.01, 0.03, 0.1, math.inf]), st.integers(2, 30)
)


@seed(0)
@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(ESTIMATES, min_size=1, max_size=4), st.sampled_from(["all", "some"])),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_swapping_the_sides_mirrors_every_outcome(notebook, floored):
    claims = []
    for parts, quantifier in notebook:
        made = [intervals.Student(v, s, float(df), df + 1) for v, s, df in parts]
        floor = {"coin": (made[0], made[-1])} if floored else {}
        compared = [verdict.Comparison(str(e), e, floor) for e in made]
        claims.append(verdict.Claim("t", compared, "auc", 0.05, quantifier))
    found = [j.outcome for j in verdict.judge(claims)]
    swapped = verdict.judge([c.swapped() for c in claims])
    assert [j.outcome for j in swapped] == [verdict.MIRROR[o] for o in found]
    lower = verdict.judge([replace(c.swapped(), better="lower") for c in claims])
    for claim, told, was in zip(claims, lower, found, strict=True):
        if len(claim.comparisons) == 1:  # the same claim in other words
            assert told.outcome == was or floored  # a floor has a direction of its own


def test_one_counter_example_refutes_all():
    claim = verdict.claim(
        source(a=around(0.5), b=around(0.7, sd=0.02), c=around(0.501, sd=0.2)),
        *("a is better than all", "main", "a", ["b", "c"]),
        delta=0.01,
    )
    assert verdict.judge([claim])[0].signs == ("--", "?")
    assert verdict.judge([claim])[0].outcome == "contradicted"


def test_holm_counts_the_comparisons_of_the_whole_notebook():
    edge = one(0.3, 0.1)  # p = .04
    assert verdict.judge([edge])[0].outcome == "supported"
    first, second = verdict.judge([edge, one(0.3, 0.3)])
    assert (first.outcome, first.levels) == ("unresolved", (0.025,))
    assert first.spans[0] == pytest.approx(edge.comparisons[0].estimate.interval(0.975))
    assert second.levels == (0.025,)
    exact = verdict.claim(source(a=[3.0], b=[1.0]), "t", "main", "a", "b", delta=1.0, kind="exact")
    same = verdict.claim(source(a=[1.0]), "t", "main", "a", level=1.0, delta=1.0, kind="exact")
    judged = verdict.judge([edge, exact, same])  # what has no error needs no correction
    assert [j.outcome for j in judged] == ["supported", "supported", "no difference"]


def test_the_interval_leaves_out_zero_exactly_where_a_sign_is_given():
    rng = np.random.default_rng(0)
    for _ in range(50):
        claims = [one(v, 0.1, delta=1e-6) for v in rng.normal(0, 0.3, 6)]
        for judged in verdict.judge(claims):
            low, high = judged.spans[0]
            assert (low > 0 or high < 0) == (judged.signs[0] in ("++", "--"))


def test_identical_differences_prove_nothing():
    same = around(0.7)
    for a, b, outcome in (
        ([0.8] * 5, [0.7] * 5, "unresolved"),
        ([0.7] * 5, [0.7] * 5, "unresolved"),
        ([x + 0.5 for x in same], same, "unresolved"),
        (same, same, "no difference"),
    ):
        claim = verdict.claim(source(a=a, b=b), "t", "main", "a", "b", delta=0.001)
        judged = verdict.judge([claim])[0]
        assert judged.outcome == outcome
        assert ("identical differences" in judged.note) == (outcome == "unresolved")


def test_exact_comparisons_by_their_number():
    for a, outcome in ((1.2, "supported"), (1.05, "no difference"), (0.5, "contradicted")):
        made = verdict.claim(source(a=[a]), "t", "main", "a", level=1.0, delta=0.1, kind="exact")
        assert verdict.judge([made])[0].outcome == outcome
    with pytest.raises(ValueError, match="exact needs one row each, got 2 of 'a'"):
        verdict.claim(source(a=[1.0, 2.0]), "t", "main", "a", level=1.0, delta=0.1, kind="exact")


def test_two_perfect_methods_are_not_at_the_floor_though_their_error_is_unknown():
    rows = [{"model": m, "seed": k, "score": v} for k in range(3) for m, v in (("a", 1.0), ("b", 1.0), ("coin", 0.5))]  # fmt: skip
    rows += [{"model": "c", "seed": k, "score": 0.5} for k in range(3)]
    record = {"metrics": {"main": rows}, "tables": {"main": {"metrics": {"score": "higher"}}}}
    how = {"metric": "score", "better": "higher", "delta": 0.01, "floor": ["coin"]}
    [perfect] = verdict.judge([verdict.claim(record, "t", "main", "a", "b", **how)])
    assert perfect.outcome == "unresolved" and perfect.note.startswith("error unknown")
    [trivial] = verdict.judge([verdict.claim(record, "t", "main", "c", "c", **how)])
    assert (trivial.outcome, trivial.note) == (
        "unresolved",
        "at the floor: neither side beats coin",
    )


def test_both_sides_at_the_floor_are_unresolved_whatever_the_sign():
    known = source(
        a=around(0.5, sd=0.001), b=around(0.4), c=around(0.6, sd=0.02), coin=around(0.5, sd=0.03)
    )
    for x, y in (("a", "b"), ("b", "a")):
        free = verdict.claim(known, "t", "main", x, y, delta=0.01)
        assert verdict.judge([free])[0].outcome in ("supported", "contradicted")
        for floor in (0.5, "coin"):
            held = verdict.claim(known, "t", "main", x, y, delta=0.01, floor=[floor])
            judged = verdict.judge([held])[0]
            assert (judged.outcome, judged.note) == ("unresolved", f"at the floor: neither side beats {floor}")  # fmt: skip
    edge = intervals.Student(0.25, 0.1, 4.0, 5)  # one-sided p = .034; at .025 not above the floor
    for gap, outcome in ((edge, "unresolved"), (replace(edge, value=0.3), "supported")):
        found = verdict.Comparison(
            "a - b", intervals.Student(1.0, 0.1, 4.0, 5), {"coin": (gap, edge)}
        )
        assert verdict.judge([verdict.Claim("t", [found], "auc", 0.1)])[0].outcome == outcome
    above = verdict.claim(known, "t", "main", "c", "b", delta=0.01, floor=["coin"])
    assert verdict.judge([above])[0].outcome == "supported"


def test_a_claim_that_a_coin_wins_is_refused():
    known = source(a=around(0.8, sd=0.02), weak=around(0.3), strong=around(0.6), coin=around(0.5, sd=0.03))  # fmt: skip
    weak, strong = (
        verdict.claim(known, f"beats {b}", "main", "a", b, delta=0.01, floor=["coin", 0.5])
        for b in ("weak", "strong")
    )
    assert [j.outcome for j in verdict.judge([weak, strong])] == ["supported"] * 2
    verdict.refuse_trivial([strong])
    with pytest.raises(ValueError, match="'beats weak': coin wins it too"):
        verdict.refuse_trivial([strong, weak])
    level = verdict.claim(known, "above 0.4", "main", "a", level=0.4, delta=0.01, floor=[0.5])
    with pytest.raises(ValueError, match="'above 0.4': 0.5 wins it too"):
        verdict.refuse_trivial([level])


def test_unresolved_says_what_would_resolve_it():
    note = verdict.judge([one(0.05, 0.1)])[0].note
    power = intervals.power(intervals.Student(0.0, 0.1, 4.0, 5), 0.2, 0.05)
    assert note.startswith(f"power {power:.0%} at 2 delta; ")
    needed = int(note.split("; ")[1].removesuffix(" pairs for 80 %"))
    at = [
        intervals.power(intervals.Student(0.0, 0.1, 4.0, 5), 0.2, 0.05, n)
        for n in (needed, needed - 1)
    ]
    assert at[0] >= 0.8 > at[1]
    tight = one(0.09, 0.02)  # 2 delta is ruled out, 0 is nearly so
    assert verdict.judge([tight])[0].outcome == "leans for"
    open_ = verdict.judge([one(0.04, 0.04, df=30.0, n=31)])[0].note
    power, pairs = open_.split("; ")
    assert float(power.split()[1].rstrip("%")) > 80
    n = int(pairs.removesuffix(" pairs to show no difference"))
    draws = np.random.default_rng(0).normal(0, 0.04 * 31**0.5, (4000, n))
    same = intervals.paired(draws, 0.0)
    shown = (np.maximum(same.above(-0.1), same.below(0.1)) <= 0.05).mean()
    assert shown == pytest.approx(0.8, abs=0.03)
    sample = intervals.Student(0.05, 0.1, 200.0, 5, seed_share=0.0)
    claim = verdict.Claim("t", [verdict.Comparison("a - b", sample, {})], "auc", 0.1)
    assert "more pairs alone are not enough" in verdict.judge([claim])[0].note


def test_bad_claims_are_refused():
    good = one(0.1, 0.1)
    for change, message in (
        ({"delta": 0.0}, "delta must be a number above 0, got 0.0"),
        ({"delta": math.nan}, "delta must be a number above 0, got nan"),
        ({"quantifier": "most"}, "quantifier must be all or some, got 'most'"),
        ({"better": "larger"}, "better must be higher or lower, got 'larger'"),
        ({"comparisons": ()}, "'t' needs at least one comparison"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(good, **change)


def test_pairs_are_by_seed_and_must_be_whole():
    found = evidence.paired(rows(a=[1.0, 2.1, 3.0], b=[0.0, 1.0, 2.0])[::-1], "a", "b", metric="auc")  # fmt: skip
    assert found.estimate.value == pytest.approx(3.1 / 3)
    for table, message in (
        (rows(a=[1.0]), "no rows with model = 'b'"),
        (rows(a=[1.0, 2.0], b=[0.0]), r"'a' and 'b' are not paired: seed = \[1\] on one side only"),
        (rows(a=[1.0], b=[0.0, 2.0]), r"'a' and 'b' are not paired: seed = \[1\] on one side only"),
        (rows(a=[1.0], b=[0.0]) * 2, "two rows with model = 'a', seed = 0: choose one"),
    ):
        with pytest.raises(ValueError, match=message):
            evidence.paired(table, "a", "b", metric="auc")
    with pytest.raises(ValueError, match="kind must be one of t, log, .*, got 'z'"):
        evidence.paired(rows(a=[1.0], b=[0.0]), "a", "b", metric="auc", kind="z")
    with pytest.raises(ValueError, match="name a rival b or a level, and not both"):
        evidence.paired(rows(a=[1.0]), "a", metric="auc")
    with pytest.raises(ValueError, match="log ratios need values above 0 in 'auc'"):
        evidence.paired(rows(a=[1.0], b=[0.0]), "a", "b", metric="auc", kind="log")


def test_heavy_tails_in_logs_and_ranks():
    a, b = [1.0, 20.0, 400.0, 3.0, 9.0, 70.0], [2.1, 39.0, 820.0, 6.0, 18.5, 139.0]
    logs = evidence.paired(rows(a=a, b=b), "a", "b", metric="auc", kind="log").estimate
    assert logs.value == pytest.approx(-math.log(2), abs=0.05)
    assert 2 * logs.below(0) < 1e-5 < 2 * evidence.paired(rows(a=a, b=b), "a", "b", metric="auc").estimate.below(0)  # fmt: skip
    ranks = evidence.paired(rows(a=a, b=b), "a", "b", metric="auc", kind="ranks").estimate
    assert 2 * ranks.below(0) == pytest.approx(2 / 2**6)


def test_time_until_with_runs_that_never_arrive():
    table = [
        {"model": m, "seed": s, "steps": t, "reached": t < 100}
        for m, ts in (("a", [10, 12, 14, 16, 18, 20]), ("b", [50, 100, 100, 90, 100, 100]))
        for s, t in enumerate(ts)
    ]
    found = evidence.paired(table, "a", "b", metric="steps", kind="log-rank")
    claim = verdict.Claim("a is sooner", [found], "log hazard", 0.5, better="lower")
    assert verdict.judge([claim])[0].outcome == "supported"
    assert verdict.judge([replace(claim, better="higher")])[0].outcome == "contradicted"


def whole(**metric):
    """A record with its claims shown, as JSON gives it back."""
    record = SimpleNamespace(verdicts=[], **source(**metric))
    wide = [r | {"noise": k} for k in (0, 30) for r in record.metrics["main"]]
    record.metrics["wide"], record.tables["wide"] = wide, record.tables["main"]
    claims = [
        verdict.claim(record, "better", "main", "a", ["b", "c"], delta=0.01, floor=[0.5]),
        verdict.claim(record, "in noise", "wide", "a", "b", delta=0.01, where=[{"noise": 0}, {"noise": 30}], quantifier="some"),
        verdict.claim(record, "above .6", "main", "a", level=0.6, delta=0.01, better="lower"),
        verdict.claim(record, "in logs", ["main"], "a", "c", delta=0.1, kind="log"),
    ]  # fmt: skip
    judged = verdict.show(record, claims)
    kept = {k: getattr(record, k) for k in ("metrics", "tables", "verdicts")}
    return json.loads(json.dumps(kept)), judged


def test_a_record_gives_its_outcomes_again(capsys):
    record, judged = whole(a=around(0.8), b=around(0.7, sd=0.03), c=around(0.79, sd=0.05))
    again = verdict.rejudge(record)
    assert [j.stored() for j in again] == record["verdicts"]
    assert [j.outcome for j in again] == [j.outcome for j in judged]
    assert {"text", "evidence", "outcome"} <= set(record["verdicts"][0])
    record["metrics"]["main"][0]["auc"] = None  # a value that the run lost
    assert verdict.rejudge(record)[0].outcome != judged[0].outcome
    record["verdicts"][0] = {"text": "old", "evidence": "+1", "outcome": "partly"}
    with pytest.raises(ValueError, match="'old' was recorded before the engine"):
        verdict.rejudge(record)


def test_show_prints_one_table(monkeypatch):
    from paperlab import plots

    seen = []
    monkeypatch.setattr(plots, "table", seen.append)
    whole(a=around(0.8), b=around(0.7, sd=0.03), c=around(0.8, sd=0.5))
    (rows,) = seen
    assert list(rows[0])[1] == "difference [interval: Student's t over pairs, Student's t of log ratios; Holm over 6]"  # fmt: skip
    assert rows[0]["smallest effect that matters"] == "0.01 auc"
    assert rows[1]["outcome"].data == "**supported**"
    assert rows[3]["outcome"].data.startswith("**unresolved** (power ")


def test_claims_on_test_units_are_found_again_from_their_file(tmp_path):
    rng = np.random.default_rng(0)
    labels, users = rng.random(400) < 0.4, rng.integers(0, 80, 400)
    score = {(m, s): rng.normal(0, 1, 400) + k * labels for m, k in (("a", 1.5), ("b", 0.8)) for s in range(3)}  # fmt: skip
    sums = {key: np.round(rng.normal(1, 1, 80) + (key[0] == "a"), 2) for key in score}
    record = SimpleNamespace(
        metrics={},
        verdicts=[],
        units={
            "rows": evidence.Units(score, labels=labels, clusters=users),
            "queries": evidence.Units(sums, weights=np.arange(80) % 3 + 1.0),
        },
    )
    claims = [
        verdict.claim(record, "ranks better", "rows", "a", "b", better="higher", delta=0.01, kind="auc", floor=[0.5]),
        verdict.claim(record, "larger sums", "queries", "a", "b", better="higher", delta=0.1, kind="two-level"),
        verdict.claim(record, "above a quarter", "queries", "b", level=0.25, better="higher", delta=0.01, kind="two-level"),
    ]  # fmt: skip
    judged = verdict.judge(claims)
    assert [j.outcome for j in judged] == ["supported"] * 3
    sides = [np.stack([score[m, s] for s in range(3)]) for m in "ab"]
    assert claims[0].comparisons[0].estimate == intervals.auc(labels, *sides, users)
    sides = [np.stack([sums[m, s] for s in range(3)]) for m in "ab"]
    assert claims[1].comparisons[0].estimate == intervals.two_level(*sides, np.arange(80) % 3 + 1.0)
    for name, units in record.units.items():
        units.write(tmp_path / f"{name}.parquet")
    kept = {"metrics": {}, "units": {n: f"{n}.parquet" for n in record.units}, "verdicts": [j.stored() for j in judged]}  # fmt: skip
    again = verdict.rejudge(json.loads(json.dumps(kept)), tmp_path)
    for old, new in zip(judged, again, strict=True):
        assert new.outcome == old.outcome
        assert new.spans[0] == pytest.approx(old.spans[0], rel=1e-5)
    assert again[0].spans == judged[0].spans  # ranks lose nothing
    with pytest.raises(ValueError, match="'a' has seeds"):
        evidence.paired_units(evidence.Units({("a", 0): labels, ("b", 1): labels}), "a", "b")
    with pytest.raises(ValueError, match="20,001 units"):
        evidence.Units({("a", 0): np.zeros(20_001)}).write(tmp_path / "x.parquet")


def test_compare_marks_what_seeds_cannot_resolve():
    table = verdict.compare(
        rows(best=[0.80, 0.81, 0.82], near=[0.81, 0.79, 0.82], far=[0.70, 0.712, 0.72], once=[0.1])
        + [{"model": "none", "seed": s, "auc": None} for s in range(3)],
        "auc",
        columns=["seed"],
    )
    assert table["model"].to_list() == ["best", "near", "far", "once", "none"]
    assert table["best?"].to_list() == ["yes", "cannot tell", "", "cannot tell", "cannot tell"]
    assert table.columns == ["model", "auc", "±", "best?", "seeds", "seed"]
    assert table["seeds"].to_list() == [3, 3, 3, 1, 3]
    assert table["±"].is_null().to_list() == [False, False, False, True, True]
    alike = verdict.compare(rows(a=[0.5] * 4, b=[0.5, 0.6, 0.7, 0.8]), "auc")
    assert alike["±"].is_null().to_list() == [
        False,
        True,
    ]  # equal values say nothing of their error
    lower = verdict.compare(rows(a=[1.0, 1.1], b=[2.0, 2.1]), "auc", better="lower")
    assert lower["model"][0] == "a"


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ([], {}, "no rows to compare"),
        (rows(a=[0.5]) * 2, {}, "two rows with model = 'a', seed = 0: choose one"),
        (rows(a=[0.5]), {"metric": "loss"}, "a row of 'a' has no 'loss'; it has: model, seed, auc"),
        (rows(a=[0.5]), {"pair": "fold"}, "a row of 'a' has no 'fold'"),
        (rows(a=[0.5]), {"better": "more"}, "better must be higher or lower, got 'more'"),
    ],
)
def test_a_leaderboard_refuses_in_one_line(given, options, message):
    with pytest.raises(ValueError, match=message) as raised:
        verdict.compare(given, **{"metric": "auc"} | options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["t", "log", "ranks"])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, None])
def test_a_diverged_seed_leaves_its_claim_unresolved(kind, wrong):
    """And no other: the rest of the notebook is judged as ever."""
    good = source(a=around(0.9, 8), b=around(0.5, 8, sd=0.02))
    bad = source(a=[*around(0.9, 7), wrong], b=around(0.5, 8, sd=0.02))
    claims = [verdict.claim(s, "t", "main", "a", "b", delta=0.01, kind=kind) for s in (good, bad)]
    known, unknown = verdict.judge(claims)
    assert (known.outcome, unknown.outcome) == ("supported", "unresolved")
    assert "error unknown" in unknown.note and "error unknown" in unknown.evidence
    assert "nan" not in unknown.evidence
    assert json.loads(json.dumps(unknown.stored(), allow_nan=False))["outcome"] == "unresolved"


def test_a_level_stands_against_and_a_rival_is_subtracted():
    known = source(a=around(0.6), b=around(0.5))
    claim = lambda **rival: verdict.claim(known, "t", "main", "a", delta=0.01, **rival)  # noqa: E731
    assert claim(level=0.0).comparisons[0].label == "a against 0"
    assert claim(level=0.125).comparisons[0].label == "a against 0.125"
    assert claim(b="b").comparisons[0].label == "a - b"


@pytest.mark.parametrize(
    ("values", "own", "message"),
    [
        ({}, {}, "at least one method and seed"),
        (
            {("a", 0): np.zeros(3), ("b", 0): np.zeros(4)},
            {},
            r"\('b', 0\).*as long as .*\('a', 0\)",
        ),
        ({("a", 0): np.zeros((3, 1))}, {}, "must be a vector"),
        ({("a", 0): np.zeros(3)}, {"clusters": np.zeros(2, int)}, "'clusters'.*as long as"),
        ({("a", 0): np.zeros(3)}, {"weights": np.ones(4)}, "'weights'.*as long as"),
        ({("a", 0): np.array([0, np.nan, 1])}, {"labels": np.array([0, 1, 1])}, "hold NaN"),
    ],
)
def test_units_are_of_one_length_and_scores_are_numbers(values, own, message):
    with pytest.raises(ValueError, match=message):
        evidence.Units(values, **own)


def test_times_of_runs_that_did_not_say_whether_they_arrived_are_refused():
    made = [
        r | {"reached": None if r["seed"] == 1 else True} for r in rows(a=[1, 2, 3], b=[4, 5, 6])
    ]
    with pytest.raises(ValueError, match="'reached' must be True or False"):
        evidence.paired(made, "a", "b", metric="auc", kind="log-rank")


def test_there_is_an_example_of_each_outcome():
    assert [j.outcome for j in verdict.examples()] == list(verdict.OUTCOMES)


def test_a_direction_is_declared_or_said():
    known = source(a=around(0.5), b=around(0.6, sd=0.02))
    known["metrics"]["main"] = [r | {"logloss": 1 - r["auc"]} for r in known["metrics"]["main"]]
    with pytest.raises(ValueError, match="'main' does not declare what is better in 'logloss'"):
        verdict.claim(known, "t", "main", "a", "b", metric="logloss", delta=0.01)
    said = verdict.claim(known, "t", "main", "a", "b", metric="logloss", delta=0.01, better="lower")
    assert verdict.judge([said])[0].outcome == "contradicted"
    known["tables"]["main"]["metrics"] = {"auc": "higher", "logloss": "lower"}
    ways = {
        m: verdict.claim(known, "t", "main", "a", "b", delta=0.01, metric=m).better
        for m in ("auc", "logloss")
    }
    assert ways == known["tables"]["main"]["metrics"]
    known["tables"] = {}
    with pytest.raises(ValueError, match="'main' declares no metric: name one"):
        verdict.claim(known, "t", "main", "a", "b", delta=0.01)


def test_a_comparison_without_a_table_is_not_stored():
    record = SimpleNamespace(verdicts=[])
    with pytest.raises(ValueError, match="'t': build its comparisons from the record's tables"):
        verdict.show(record, [one(0.3, 0.02)])


def test_numpy_values_are_stored_as_numbers():
    known = source(a=around(0.5), b=around(0.6, sd=0.02))
    made = verdict.claim(known, "t", "main", "a", "b", delta=np.float64(0.01), where={"seed": np.int64(0)})  # fmt: skip
    kept = verdict.judge([made])[0].stored()
    assert json.loads(json.dumps(kept)) == kept
    assert kept["comparisons"][0]["where"] == {"seed": 0}


def test_evidence_in_words():
    known = source(a=around(0.8), b=around(0.7, sd=0.02), c=around(0.6, sd=0.02), d=around(0.9, sd=0.02), e=around(0.8, sd=0.9))  # fmt: skip
    many = verdict.claim(known, "t", "main", "a", ["b", "c", "d", "e"], delta=0.01)
    told = verdict.judge([many])[0].evidence
    assert told.startswith("2 for, 1 against, 0 equivalent, 1 open, of 4; weakest: a - d: -0.1 [")
    two = verdict.claim(known, "t", "main", "a", ["b", "c"], delta=0.01)
    assert verdict.judge([two])[0].evidence.count("a - ") == 2
    assert verdict.judge([one(0.0, 0.02)])[0].evidence == "+0 [-0.0426, +0.0426] (90 %)"
