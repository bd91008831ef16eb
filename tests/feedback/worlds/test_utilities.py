"""Utilities of categorical fields: exact moments, the double loop over pairs, refusals."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.feedback.worlds.utilities import CategoricalFields


def everything(fields):
    """All rows with their probabilities."""
    rows = np.array([*itertools.product(range(1, fields.values + 1), repeat=fields.count)])
    return rows, fields.shares[rows - 1].prod(1)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 4), st.integers(2, 5), st.floats(0, 2), st.floats(0, 1), st.integers(0, 99))
def test_mean_is_zero_and_variance_one_over_all_rows(count, values, zipf, pairs, seed):
    fields = CategoricalFields(count, values, zipf)
    u = fields.utility(np.random.default_rng(seed), pairs=pairs, rank=2)
    rows, p = everything(fields)
    assert p.sum() == pytest.approx(1)
    assert p @ u(rows) == pytest.approx(0, abs=1e-9)
    assert p @ u(rows) ** 2 == pytest.approx(1, abs=1e-9)


def test_pairs_explain_their_share_and_equal_the_double_loop():
    fields = CategoricalFields(4, 3, 0.7)
    u = fields.utility(np.random.default_rng(0), pairs=0.25, rank=4)
    rows, p = everything(fields)
    field = np.arange(4)
    alone = u.single[field, rows - 1].sum(1)
    assert p @ alone**2 == pytest.approx(0.75)
    crossed = sum(
        (u.vectors[f, rows[:, f] - 1] * u.vectors[g, rows[:, g] - 1]).sum(1)
        for f, g in itertools.combinations(range(4), 2)
    )
    assert u(rows) == pytest.approx(alone + crossed)
    assert p @ (alone * crossed) == pytest.approx(0, abs=1e-9)


def test_ids_follow_zipf_and_the_generator():
    fields = CategoricalFields(3, 5, 1.0)
    ids = fields.draw(60_000, np.random.default_rng(1))
    assert ids.min() == 1 and ids.max() == 5
    shares = np.stack([np.bincount(c, minlength=6)[1:] / 60_000 for c in ids.T])
    assert np.abs(shares - fields.shares).max() < 0.01
    assert fields.shares[0] / fields.shares[4] == pytest.approx(5)
    assert (ids == fields.draw(60_000, np.random.default_rng(1))).all()
    assert [f.size for f in fields.schema_fields()] == [6, 6, 6]


@pytest.mark.parametrize("wrong", [(1, 5, 1.0), (3, 1, 1.0), (3, 5, -0.1), (3, 5, float("nan"))])
def test_wrong_fields_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        CategoricalFields(*wrong)


@pytest.mark.parametrize("wrong", [{"pairs": 1.5}, {"rank": 0}])
def test_wrong_utilities_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        CategoricalFields(3, 5, 1.0).utility(np.random.default_rng(0), **wrong)
