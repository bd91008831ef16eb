"""Watch-time world: exact distribution against draws, medians and errors against sums, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.feedback.worlds import watch_time as world


def known(seed, n=5):
    rng = np.random.default_rng(seed)
    return world.WatchTimes(
        rng.dirichlet(np.ones(3), n), rng.integers(60, 300, n), np.log(rng.uniform(15, 200, n))
    )


def test_distribution_is_that_of_the_draws():
    one = known(0, 3)
    many = world.WatchTimes(
        *(np.repeat(c, 60_000, 0) for c in (one.modes, one.duration, one.location))
    )
    y = world._draw(many, np.random.default_rng(1)).reshape(3, -1)
    for ticks in (0, 7, 15, 40, int(one.duration[0]), 700):
        found = (y <= ticks).mean(1)
        assert one.at_most(np.full(3, ticks)) == pytest.approx(found, abs=0.008)
    assert one.mean() == pytest.approx(0.1 * y.mean(1), rel=0.01)
    assert y.max(1).tolist() <= (2 * one.duration).tolist()


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.integers(0, 999))
def test_median_mean_and_error_are_what_sums_over_all_values_give(seed):
    one = known(seed)
    ticks = np.arange(2 * one.duration.max() + 1)
    mass = np.diff(one.at_most(np.tile(ticks, (5, 1))), axis=1, prepend=0)
    assert mass.min() > -1e-12 and mass.sum(1) == pytest.approx(1)
    assert one.mean() == pytest.approx(0.1 * mass @ ticks)
    guess = np.random.default_rng(seed).uniform(0, 80, 5)
    for predicted in (guess, one.median(), np.zeros(5), np.full(5, 1e4)):
        errors = (mass * np.abs(0.1 * ticks - predicted[:, None])).sum(1)
        assert one.error(predicted) == pytest.approx(errors.mean())
    assert one.error(one.median()) <= one.error(guess) + 1e-12
    for k, median in enumerate(np.rint(10 * one.median()).astype(int)):
        assert mass[k, : median + 1].sum() >= 0.5 - 1e-12 and mass[k, :median].sum() < 0.5


def test_log_holds_whole_tenths_and_is_drawn_by_its_seed():
    log = world.watch_time(400, test=200, seed=3)
    again, other = world.watch_time(400, test=200, seed=3), world.watch_time(400, test=200, seed=4)
    y = log.train.labels.double() * 10
    assert (y - y.round()).abs().max() < 1e-4 and y.min() >= 0
    assert (log.train.values == again.train.values).all()
    assert (log.truth.test.modes == again.truth.test.modes).all()
    assert log.truth.test.modes[0, 0] != other.truth.test.modes[0, 0]
    assert [len(p) for p in (log.train, log.valid, log.test)] == [400, 1000, 200]
    assert sorted({*log.truth.test.duration}) == [round(60 * 15 ** (k / 9)) for k in range(10)]


@pytest.mark.parametrize("wrong", [{"rows": 99}, {"test": 10}, {"values": 1}, {"seed": -1}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        world.watch_time(**{"rows": 200, **wrong})
