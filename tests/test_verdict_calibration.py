"""Thousands of simulated notebooks: how often a verdict is wrong, and how often it is found.

A notebook has five claims of one comparison each; the unit is the standard deviation of one pair's
difference where it has one. Run with -s to see the outcomes by true effect.
"""

import numpy as np
import pytest
from paperlab import intervals, verdict

BOOKS, CLAIMS = 2000, 5
LIMIT = 0.05 + 3 * (0.05 * 0.95 / BOOKS) ** 0.5  # 5 % and three standard errors of the simulation
DELTA = 1.0
EFFECTS = {"none": 0.0, "delta / 2": 0.5, "delta": 1.0, "2 delta": 2.0}


def normal(rng, size):
    return rng.normal(0, 1, size)


def heavy_tails(rng, size):
    """Student's t with 2 degrees of freedom: its variance is infinite."""
    return rng.standard_t(2, size)


def unequal_variances(rng, size):
    """The method's noise is four times the rival's, and differs between claims a hundredfold."""
    scale = 10 ** rng.uniform(-1, 1, (*size[:-1], 1))
    return scale * (rng.normal(0, 0.97, size) - rng.normal(0, 0.24, size))


def unequal_seeds(rng, size):
    """Some seeds are twenty times as noisy as others."""
    return rng.normal(0, 1, size) * 20 ** rng.uniform(-0.5, 0.5, size)


def skewed_sides(rng, size):
    """Both sides are log-normal, as step counts and losses often are."""
    return np.exp(rng.normal(0, 1, size)) - np.exp(rng.normal(0, 1, size))


NOISES = [normal, heavy_tails, unequal_variances, unequal_seeds, skewed_sides]


def any_claim(found, outcome):
    """Share of notebooks with at least one claim of that outcome."""
    return (found == verdict.OUTCOMES.index(outcome)).any(-1).mean()


@pytest.mark.parametrize("delta", [0.02, DELTA])  # a tiny delta leaves all to the correction
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("noise", NOISES)
def test_without_an_effect_at_most_one_notebook_in_twenty_is_wrong(noise, seeds, delta):
    d = noise(np.random.default_rng(seeds), (BOOKS, CLAIMS, 1, seeds))
    found = verdict.judge_many(intervals.paired(d, 0.0), delta)
    assert any_claim(found, "supported") <= LIMIT
    assert any_claim(found, "contradicted") <= LIMIT


def rows_of_one_test_set(rng, size, spread, units=40):
    """Differences (..., seeds, units): units shared by all seeds, seeds of a given spread."""
    d = rng.normal(0, 1, (*size[:-1], 1, units)) + rng.normal(0, 1, (*size, units))
    return d + spread * rng.normal(0, 1, (*size, 1))


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_test_sample_is_noise_too(seeds, spread):
    rng, found, naive = np.random.default_rng(seeds), [], []
    for _ in range(4):
        d = rows_of_one_test_set(rng, (BOOKS // 4, CLAIMS, 1, seeds), spread)
        found.append(verdict.judge_many(intervals.two_level(d, np.zeros(1)), 0.02))
        naive.append(verdict.judge_many(intervals.paired(d.mean(-1), 0.0), 0.02))
    assert any_claim(np.concatenate(found), "supported") <= LIMIT
    assert any_claim(np.concatenate(found), "contradicted") <= LIMIT
    if seeds == 10 and spread < 1:  # seeds alone mistake the luck of the sample for an effect
        assert any_claim(np.concatenate(naive), "supported") > LIMIT


def table(noise, seeds):
    """Share of claims by outcome (columns), for every true effect (rows)."""
    d = noise(np.random.default_rng(seeds), (BOOKS, CLAIMS, 1, seeds))
    found = [verdict.judge_many(intervals.paired(d + e, 0.0), DELTA) for e in EFFECTS.values()]
    return np.array([[(f == k).mean() for k in range(len(verdict.OUTCOMES))] for f in found])


@pytest.mark.parametrize("noise", NOISES)
def test_outcomes_by_true_effect(noise):
    tables = {seeds: table(noise, seeds) for seeds in (3, 5, 10)}
    for seeds, shares in tables.items():
        print(f"\n{noise.__name__}, {seeds} seeds: share of claims")
        print(f"{'true effect':12s}" + "".join(f"{o:>15s}" for o in verdict.OUTCOMES))
        for name, line in zip(EFFECTS, shares, strict=True):
            print(f"{name:12s}" + "".join(f"{x:15.3f}" for x in line))
        for_, same, against = shares[:, 0], shares[:, 2], shares[:, 4]
        assert (np.diff(for_) >= 0).all()  # a larger effect is found more often
        assert (against[1:] <= 0.01).all()
        assert same[2] <= 0.05 + 0.01  # at delta "no difference" is wrong in 5 %
    if noise is normal:
        assert tables[10][3, 0] > 0.8  # 2 delta = two standard deviations
        assert tables[10][0, 2] > tables[5][0, 2] > tables[3][0, 2]


def test_arrays_and_objects_give_the_same_outcomes():
    rng = np.random.default_rng(0)
    for quantifier, comparisons in (("all", 1), ("all", 3), ("some", 3)):
        d = rng.normal(rng.choice([-2, 0, 0.5, 2], (40, CLAIMS, comparisons, 1)), 0.7, (40, CLAIMS, comparisons, 4))  # fmt: skip
        fast = verdict.judge_many(intervals.paired(d, 0.0), DELTA, quantifier)
        for book, outcomes in zip(d, fast, strict=True):
            claims = [
                verdict.Claim("t", [verdict.Comparison("a - b", intervals.paired(x, 0.0), {}) for x in claim], "m", DELTA, quantifier)
                for claim in book
            ]  # fmt: skip
            slow = [j.outcome for j in verdict.judge(claims)]
            assert slow == [verdict.OUTCOMES[o] for o in outcomes]
        assert len(np.unique(fast)) >= 4


def test_one_sided_tails_need_logs():
    """A limit: where the method's noise alone is skewed, no test of a mean holds its level."""
    rng = np.random.default_rng(0)
    skewed = np.exp(rng.normal(0, 1, (BOOKS, CLAIMS, 1, 5)))
    wrong = verdict.judge_many(intervals.paired(skewed, np.exp(0.5)), 0.02)
    assert any_claim(wrong, "contradicted") > 2 * LIMIT
    right = verdict.judge_many(intervals.paired(np.log(skewed), 0.0), 0.02)
    assert any_claim(right, "contradicted") <= LIMIT
