"""Intervals against scipy, slow versions and simulation; limits where nothing can be known."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from paperlab import intervals, survival
from scipy import stats

NUMBERS = st.floats(-5, 5).map(lambda x: round(x, 3))


@pytest.mark.parametrize("df", [1, 2, 4, 29, 120, np.inf])
def test_t_quantile_equals_scipy(df):
    assert intervals.t_quantile(df, 0.99) == pytest.approx(stats.t.ppf(0.995, df), rel=1e-6)


def test_paired_is_the_t_test_for_each_of_many():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, (3, 6)), rng.normal(0, 1, (3, 6))
    found = intervals.paired(a, b)
    for i in range(3):
        low, high = stats.ttest_rel(a[i], b[i]).confidence_interval(0.9)
        assert [x[i] for x in found.interval(0.9)] == pytest.approx([low, high])
        above = stats.ttest_rel(a[i] - 0.3, b[i], alternative="greater").pvalue
        assert found.above(0.3)[i] == pytest.approx(above)
        assert found.below(0.3)[i] == pytest.approx(1 - above)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1.0, 2.0], [0.0, 0.5]),  # too few
        ([1.0, 2.0, math.nan], [0.0, 0.0, 0.0]),
        ([1.0, 2.0, math.inf], [0.0, 0.0, 0.0]),
        ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0]),  # nothing varies
        ([0.5, 0.6, 0.7], [0.3, 0.4, 0.5]),  # identical differences, but for rounding
        ([2.0, 2.0, 2.0], [2.0, 2.0, 2.0]),
    ],
)
def test_an_unknown_error_finds_nothing(a, b):
    found = intervals.paired(a, b)
    assert (found.above(0), found.below(0), found.above(-99)) == (1, 1, 1)
    assert np.isinf(found.se)
    assert intervals.power(found, 1.0, 0.05) == 0
    assert intervals.pairs_needed(found, 1.0, 0.05) is None


def test_sides_that_compute_the_same_are_the_same():
    found = intervals.paired([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert (found.value, found.se, found.interval()) == (0, 0, (0, 0))
    assert (found.above(-0.1), found.below(0.1), found.above(0), found.below(0)) == (0, 0, 1, 1)


def test_ranks_give_wilcoxons_p_value_and_its_interval():
    rng = np.random.default_rng(1)
    d = rng.standard_cauchy(12) + 1
    found = intervals.ranks(d, np.zeros(12))
    assert found.above(0) == pytest.approx(stats.wilcoxon(d, alternative="greater").pvalue)
    assert found.below(0) == pytest.approx(stats.wilcoxon(d, alternative="less").pvalue)
    low, high = found.interval(0.95)  # the values that the two-sided test does not reject
    for bound, rejected in ((low - 1e-9, True), (low + 1e-9, False), (high - 1e-9, False), (high + 1e-9, True)):  # fmt: skip
        p = 2 * min(found.above(bound), found.below(bound))
        assert (p <= 0.05) == rejected
    assert found.value == pytest.approx(np.median([(x + y) / 2 for i, x in enumerate(d) for y in d[i:]]))  # fmt: skip


def test_ranks_of_many_differences_are_nearly_exact_and_of_few_never_significant():
    exact, normal = intervals._rank_chances(50), intervals._rank_chances(51)
    assert exact.sum() == pytest.approx(1)
    assert normal.sum() == pytest.approx(1)
    d = np.random.default_rng(2).normal(0.3, 1, 51)
    slow = stats.wilcoxon(d, alternative="greater", method="exact").pvalue
    assert intervals.ranks(d, np.zeros(51)).above(0) == pytest.approx(slow, rel=0.1)
    few = intervals.ranks([1.0, 2.0, 3.0, 4.0, 5.0], np.zeros(5))
    assert 2 * few.above(0) == pytest.approx(2 / 2**5)
    assert few.interval() == (-np.inf, np.inf)
    with pytest.raises(ValueError, match="at most 2000 pairs, got 2,001"):
        intervals.ranks(np.ones(2001), np.zeros(2001))


@seed(0)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=9), NUMBERS)
def test_swapping_the_sides_mirrors_every_answer(pairs, bound):
    a, b = np.array(pairs).T
    for make in (intervals.paired, intervals.ranks):
        one, two, turned = make(a, b), make(b, a), make(a, b).reverse()
        for other in (two, turned):
            assert other.above(-bound) == pytest.approx(one.below(bound), abs=1e-12)
            assert other.interval(0.9)[0] == pytest.approx(-one.interval(0.9)[1])


def test_holm_worked():
    # sorted: .01 <= .05/4, .012 <= .05/3, .03 > .05/2: stops; the last stays at that level
    levels = intervals.holm([0.03, 0.01, 0.04, 0.012])
    assert levels == pytest.approx([0.025, 0.0125, 0.025, 0.05 / 3])
    assert intervals.holm([0.2]) == pytest.approx([0.05])


@seed(0)
@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=8))
def test_holm_rejects_as_the_adjusted_p_values_do(p):
    order, running, rejected = np.argsort(p, kind="stable"), 0.0, np.zeros(len(p), bool)
    for rank, i in enumerate(order):
        running = max(running, (len(p) - rank) * p[i])
        rejected[i] = running <= 0.05 * (1 + 1e-12)
    found = np.array(p) <= intervals.holm(p) * (1 + 1e-12)
    assert (found == rejected).all()
    batch = intervals.holm(np.array([p, p[::-1]]))
    assert batch[0] == pytest.approx(intervals.holm(p))


def test_power_is_the_share_of_simulated_tests_that_find_the_effect():
    rng = np.random.default_rng(0)
    draws = rng.normal(1.5, 1, (20_000, 5))
    found = intervals.paired(draws, 0.0)
    share = (2 * found.above(0) <= 0.05).mean()
    seen = intervals.Student(0.0, 5**-0.5, 4.0, 5)
    assert intervals.power(seen, 1.5, 0.05) == pytest.approx(share, abs=0.01)
    n = intervals.pairs_needed(seen, 1.5, 0.05)
    assert intervals.power(seen, 1.5, 0.05, n) >= 0.8 > intervals.power(seen, 1.5, 0.05, n - 1)


def test_more_seeds_do_not_help_where_the_test_sample_is_the_noise():
    fixed = intervals.Student(0.0, 1.0, 99.0, 5, seed_share=0.0)
    assert intervals.pairs_needed(fixed, 1.0, 0.05) is None
    assert intervals.pairs_needed(intervals.Student(0.0, 1.0, 99.0, 5), 1.0, 0.05) < 60


def test_two_level_adds_the_variances_of_seeds_and_units():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (4, 30)), rng.normal(0, 1, (4, 30))
    found, d = intervals.two_level(a, b), a - b
    expected = d.mean(1).var(ddof=1) / 4 + d.mean(0).var(ddof=1) / 30
    assert (found.value, found.se**2) == pytest.approx((d.mean(), expected))
    assert 3 <= found.df <= 29
    one = intervals.two_level(a[:1], b[:1])  # the test sample alone: the ordinary t interval
    assert one.interval() == pytest.approx(stats.ttest_rel(a[0], b[0]).confidence_interval())


def test_two_level_agrees_with_a_bootstrap_of_clusters():
    rng = np.random.default_rng(0)
    weights, clusters = rng.integers(1, 9, 300), rng.integers(0, 60, 300)
    shared = rng.normal(0, 1, 60)[clusters]
    a = (shared + rng.normal(0, 1, (3, 300))) * weights
    b = rng.normal(0, 0.3, (3, 300)) * weights
    member = np.eye(60)[clusters].T  # clusters x rows

    def gap(drawn):
        sums = drawn @ member
        return np.stack([sums @ (x - y) / (sums @ weights) for x, y in zip(a, b, strict=True)], 1)

    exact = intervals.two_level(a, b, weights, clusters)
    drawn = intervals.resampled(gap, 60, draws=4000)
    assert drawn.value == pytest.approx(exact.value)
    assert drawn.se == pytest.approx(exact.se, rel=0.05)
    assert intervals.two_level(a, b, weights).se < exact.se  # rows of a user are not independent


def delong(labels, a, b):
    """DeLong's variance by its definition: kernels of all pairs."""
    v10, v01 = [], []
    for s in (a, b):
        kernel = (s[labels][:, None] > s[~labels]) + 0.5 * (s[labels][:, None] == s[~labels])
        v10.append(kernel.mean(1))
        v01.append(kernel.mean(0))
    (x, y), (u, v) = v10, v01
    return (x - y).mean(), (x - y).var(ddof=1) / len(x) + (u - v).var(ddof=1) / len(u)


def test_auc_is_delongs_for_one_seed_and_adds_seeds():
    rng = np.random.default_rng(0)
    labels = rng.random(80) < 0.3
    a = np.round(labels + rng.normal(0, 1, (3, 80)), 1)  # with ties
    b = np.round(rng.normal(0, 1, (3, 80)), 1)
    value, variance = delong(labels, a[0], b[0])
    one = intervals.auc(labels, a[:1], b[:1])
    assert (one.value, one.se**2) == pytest.approx((value, variance))
    alone = intervals.auc(labels, a[:1], b[:1], clusters=np.arange(80))
    assert alone.se == pytest.approx(one.se, rel=0.02)
    pairs = np.arange(80) // 2
    v = [intervals._placements(labels, s) for s in (a[0], b[0])]
    pos, neg = labels.sum(), (~labels).sum()
    rows = (v[0] - v[1] - value) / np.where(
        labels, (pos * (pos - 1)) ** 0.5, (neg * (neg - 1)) ** 0.5
    )
    slow = 40 / 39 * sum(rows[pairs == c].sum() ** 2 for c in range(40))
    assert intervals.auc(labels, a[:1], b[:1], pairs).se ** 2 == pytest.approx(slow)
    twice = (np.tile(labels, 2), np.tile(a[:1], 2), np.tile(b[:1], 2))
    doubled = intervals.auc(*twice, np.tile(np.arange(80), 2))
    assert doubled.se == pytest.approx(alone.se, rel=0.02)  # rows seen twice are no new evidence
    assert intervals.auc(*twice).se < 0.8 * alone.se
    values = [delong(labels, x, y)[0] for x, y in zip(a, b, strict=True)]
    whole = intervals.auc(labels, a, b)
    assert whole.value == pytest.approx(np.mean(values))
    assert whole.se**2 > np.var(values, ddof=1) / 3
    assert (whole.n, intervals.auc(labels, b, a).value) == (3, pytest.approx(-whole.value))
    with pytest.raises(ValueError, match="AUC needs two rows a class, got 0 and 5"):
        intervals.auc(np.zeros(5, bool), np.zeros((1, 5)), np.zeros((1, 5)))


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_one_cluster_leaves_the_error_unknown(seeds):
    rng = np.random.default_rng(0)
    labels, scores = np.arange(20) % 2, rng.normal(size=(2, seeds, 20))
    for found in (
        intervals.auc(labels, *scores, np.zeros(20, int)),
        intervals.two_level(*scores, clusters=np.zeros(20, int)),
    ):
        assert np.isinf(found.se) and (found.above(-9), found.below(9)) == (1, 1)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_missing_leaves_the_error_unknown(wrong):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4, 20))
    a[1, 3] = wrong
    made = [intervals.two_level(a, b), intervals.paired(a[1], b[1]), intervals.ranks(a[1], b[1])]
    made.append(survival.log_rank(a[1], b[1], np.ones(20, bool), np.ones(20, bool)))
    made += [intervals.auc(np.arange(20) % 2, a, b)] * bool(np.isnan(wrong))
    for found in made:
        assert np.isinf(found.se) and (found.above(-9), found.below(9)) == (1, 1)


@pytest.mark.parametrize("weights", [[0, 0, 0], [1, -1, 1], [1, np.nan, 1], [1e308, 1e308, 1e308]])
def test_weights_without_a_finite_sum_are_refused(weights):
    with pytest.raises(ValueError, match="weights must be at least 0, with a finite sum above 0"):
        intervals.two_level(np.ones((2, 3)), np.zeros((2, 3)), weights)


def test_labels_are_0_or_1_and_flags_as_many_as_times():
    with pytest.raises(ValueError, match="labels must be 0 or 1"):
        intervals.auc(np.array([1, 2, 1, 2]), np.ones((1, 4)), np.zeros((1, 4)))
    with pytest.raises(ValueError, match="True or False for every time"):
        survival.log_rank(np.ones(3), np.ones(5), np.ones(5, bool), np.ones(3, bool))


def test_log_rank_worked_and_against_scipy():
    a, b = np.array([1, 2, 3, 4, 5.0]), np.array([3, 6, 7, 8, 9.0])
    reached_a, reached_b = np.ones(5, bool), np.array([1, 1, 0, 0, 0], bool)
    found = survival.log_rank(a, b, reached_a, reached_b)
    data = [stats.CensoredData.right_censored(t, ~r) for t, r in ((a, reached_a), (b, reached_b))]
    assert abs(found.value / found.se) == pytest.approx(abs(stats.logrank(*data).statistic))
    assert found.value > 0  # a's runs arrive sooner
    assert found.df == 5
    turned = survival.log_rank(b, a, reached_b, reached_a)
    assert (turned.value, turned.se) == pytest.approx((-found.value, found.se))


def test_runs_that_never_arrive_are_censored():
    never, times = np.zeros(4, bool), np.array([10.0, 10, 10, 10])
    assert np.isinf(survival.log_rank(times, times, never, never).se)


def test_log_rank_holds_its_level_with_five_runs():
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(1500):
        times = rng.exponential(1, (2, 5))
        cut = np.minimum(times, 1.5)
        found = survival.log_rank(*cut, *(times < 1.5))
        wrong += 2 * min(found.above(0), found.below(0)) <= 0.05
    assert wrong / 1500 < 0.05 + 3 * (0.05 * 0.95 / 1500) ** 0.5


def test_all_signs_are_counted():
    sums = [sum(r for r, up in zip((1, 2, 3, 4), s, strict=True) if up) for s in product((0, 1), repeat=4)]  # fmt: skip
    assert intervals._rank_chances(4) == pytest.approx(np.bincount(sums) / 16)


@pytest.mark.parametrize(
    "d",
    [
        np.random.default_rng(0).normal(size=(2, 30)),  # two seeds
        np.random.default_rng(0).normal(size=(5, 2)),  # two units
        np.full((5, 30), 0.1) + 0.7 - 0.7,  # nothing varies, but for rounding
        np.full((1, 30), 0.1),
        np.where(np.eye(5, 30), np.nan, 1.0),
    ],
)
def test_two_levels_with_an_unknown_error_find_nothing(d):
    found = intervals.two_level(d, np.zeros(1))
    assert np.isinf(found.se)
    apart = np.arange(12) < 6  # both sides rank perfectly
    assert np.isinf(intervals.auc(apart, [apart * 2.0], [apart * 1.0]).se)
    assert (found.above(-9), found.below(9)) == (1, 1)
