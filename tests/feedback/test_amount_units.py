"""XAUC row by row, its spread, and sums by user."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import intervals, metrics
from paperlab.feedback import amount_units as units


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(3, 700), st.integers(0, 99))
def test_rows_average_to_xauc(n, seed):
    draw = torch.Generator().manual_seed(seed)
    predicted = torch.randint(9, (n,), generator=draw).float()
    actual = torch.randint(5, (n,), generator=draw).float()
    actual[0], actual[1] = 0, 1
    rows = units.xauc_by_row(predicted, actual)
    assert rows.mean().item() == pytest.approx(metrics.xauc(predicted, actual))


def test_spread_of_rows_is_that_of_xauc_over_samples():
    draw = torch.Generator().manual_seed(0)
    found, said = [], []
    for _ in range(300):
        actual = torch.rand(120, generator=draw)
        predicted = actual + torch.rand(120, generator=draw)
        rows = units.xauc_by_row(predicted, actual)
        found.append(rows.mean().item())
        said.append((rows.std() / 120**0.5).item())
    assert np.std(found) == pytest.approx(np.mean(said), rel=0.15)


def test_sums_by_user_keep_the_mean():
    values, users = torch.tensor([1.0, 2.0, 4.0, 9.0]), torch.tensor([7, 3, 7, 3])
    sums, rows = units.by_user(values, users)
    assert sums.tolist() == [11, 5] and rows.tolist() == [2, 2]
    zero = np.zeros((1, 2))
    assert intervals.two_level(sums[None], zero, rows).value == pytest.approx(4)
