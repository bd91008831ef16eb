"""The estimator by hand, its limits, a slow second version, and a sample whose mean is known."""

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.templates.newcomer_plain import median_of_means, sample


def test_worked_numbers():
    x = np.array([1.0, 3.0, 0.0, 2.0, 100.0, 2.0])  # blocks of two: 2, 1, 51
    assert median_of_means(x, 3) == 2.0
    assert median_of_means(x, 2) == pytest.approx((4 / 3 + 104 / 3) / 2)


values = st.lists(st.floats(-100, 100), min_size=1, max_size=30)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(values, st.data())
def test_it_is_what_a_loop_computes(x, data):
    blocks = data.draw(st.integers(1, len(x)))
    size = len(x) // blocks
    means = [sum(x[b * size : (b + 1) * size]) / size for b in range(blocks)]
    assert median_of_means(np.array(x), blocks) == pytest.approx(statistics.median(means), abs=1e-9)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(values, st.floats(-5, 5), st.floats(-10, 10), st.data())
def test_it_moves_and_scales_with_the_values(x, scale, shift, data):
    blocks, x = data.draw(st.integers(1, len(x))), np.array(x)
    moved = median_of_means(scale * x + shift, blocks)
    assert moved == pytest.approx(scale * median_of_means(x, blocks) + shift, abs=1e-8)


def test_one_block_is_the_mean_and_n_blocks_are_the_median():
    x = np.random.default_rng(0).normal(size=(4, 9))
    np.testing.assert_allclose(median_of_means(x, 1), x.mean(-1))
    np.testing.assert_allclose(median_of_means(x, 9), np.median(x, -1))


def test_one_outlier_moves_one_block_only():
    x = np.zeros(12)
    x[5] = 1e9
    assert median_of_means(x, 3) == 0.0
    assert median_of_means(x, 1) > 1e7


@pytest.mark.parametrize("tail", ["normal", "heavy"])
def test_the_mean_is_one_and_a_seed_gives_the_same_values(tail):
    x = sample(tail, 400, 1000, seed=3)
    assert x.mean() == pytest.approx(1, abs=0.03)
    np.testing.assert_array_equal(x, sample(tail, 400, 1000, seed=3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: median_of_means(np.zeros(3), 0), "blocks must be at least 1"),
        (lambda: median_of_means(np.zeros(3), 4), "n must be at least 4"),
        (lambda: sample("light", 1, 1, 0), "tail must be one of normal, heavy"),
        (lambda: sample("heavy", 0, 1, 0), "repeats must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
