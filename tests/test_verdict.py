"""Intervals against scipy; judgements at their edges."""

import math

import numpy as np
import pytest
from paperlab import verdict
from scipy import stats


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 10, 29, 120])
def test_t_quantile_equals_scipy(freedom):
    assert verdict.t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-9)


def rows(**metric):
    return [{"model": m, "seed": s, "auc": v} for m, vs in metric.items() for s, v in enumerate(vs)]


def test_gap_is_the_paired_t_interval():
    draw = np.random.default_rng(0)
    a, b = draw.normal(1, 1, 6), draw.normal(0, 1, 6)
    found = verdict.gap(rows(a=a, b=b), "a", "b", "auc")
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.mean == pytest.approx((a - b).mean())
    assert found.n == 6


def test_pairs_are_by_seed_not_by_order():
    shuffled = rows(a=[1.0, 2.0, 3.0], b=[0.0, 1.0, 2.0])[::-1]
    found = verdict.gap(shuffled, "a", "b", "auc")
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)


def test_one_pair_or_a_missing_value_shows_nothing():
    assert verdict.judge(verdict.gap(rows(a=[1.0], b=[0.0]), "a", "b", "auc")) == "not shown"
    broken = verdict.gap(rows(a=[1.0, math.nan], b=[0.0, 0.0]), "a", "b", "auc")
    assert verdict.judge(broken) == "not shown"
    with pytest.raises(ValueError, match="no rows with model = 'c'"):
        verdict.gap(rows(a=[1.0]), "a", "c", "auc")


def test_judgements():
    up, down, open_ = (verdict.Gap(0, *span, 5) for span in ((0.1, 1), (-1, -0.1), (-1, 1)))
    assert verdict.judge(up, up) == "supported"
    assert verdict.judge(up, open_) == "partly"
    assert verdict.judge(up, down) == "mixed"
    assert verdict.judge(open_, down) == "not shown"
    assert verdict.judge(down, down) == "contradicted"


def test_compare_marks_what_seeds_cannot_resolve():
    table = verdict.compare(
        rows(best=[0.80, 0.81, 0.82], near=[0.81, 0.79, 0.82], far=[0.70, 0.71, 0.72]), "auc"
    )
    assert table["model"].to_list() == ["best", "near", "far"]
    assert table["best?"].to_list() == ["yes", "cannot tell", ""]
    assert table["seeds"].to_list() == [3, 3, 3]
    worst_first = verdict.compare(rows(a=[1.0, 1.1], b=[2.0, 2.1]), "auc", higher=False)
    assert worst_first["model"][0] == "a"


def test_a_value_that_a_record_lost_is_a_missing_value():
    broken = rows(a=[1.0, None], b=[0.0, 0.0], c=[0.1, 0.2])
    assert verdict.judge(verdict.gap(broken, "a", "b", "auc")) == "not shown"
    assert verdict.compare(broken, "auc")["model"].to_list() == ["c", "b", "a"]


@pytest.mark.parametrize("higher", [True, False])
def test_a_model_without_a_value_is_never_the_best(higher):
    for order in (1, -1):
        table = verdict.compare(
            rows(a=[math.nan] * 3, b=[1.0, 1.1, 1.2], c=[0.1, 0.2, 0.3])[::order],
            "auc",
            higher=higher,
        )
        assert table["model"].to_list() == (["b", "c", "a"] if higher else ["c", "b", "a"])


def test_two_rows_for_one_pair_are_refused():
    twice = rows(a=[1.0, 2.0], b=[0.0, 1.0]) + rows(a=[5.0])
    with pytest.raises(ValueError, match="two rows with model = 'a', seed = 0"):
        verdict.gap(twice, "a", "b", "auc")
    assert verdict.gap(twice + rows(c=[9.0, 9.0]), "c", "b", "auc").n == 2
