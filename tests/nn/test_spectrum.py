"""Spectra of embedding tables: known ranks, limits, invariances."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.nn.spectrum import effective_rank


def test_known_spectra():
    assert effective_rank(torch.eye(5)) == pytest.approx(5)
    table = torch.diag(torch.tensor([3.0, 1.0]))
    p = (0.75, 0.25)
    assert effective_rank(table) == pytest.approx(math.exp(-sum(q * math.log(q) for q in p)))
    rank_one = torch.arange(1.0, 7)[:, None] * torch.tensor([1.0, -2, 3])
    assert effective_rank(rank_one) == pytest.approx(1, abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 8), st.integers(1, 6), st.floats(0.01, 100), st.integers(0, 1000))
def test_range_scale_and_rotation(n, d, scale, seed):
    draw = torch.Generator().manual_seed(seed)
    table = torch.randn(n, d, generator=draw, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(d, d, generator=draw, dtype=torch.float64))[0]
    value = effective_rank(table)
    assert 1 - 1e-9 <= value <= min(n, d) + 1e-9
    assert effective_rank(scale * table @ turn) == pytest.approx(value)


def test_zeros_and_faults():
    assert math.isnan(effective_rank(torch.zeros(3, 2)))
    for bad in (torch.zeros(3), torch.zeros(0, 2), torch.zeros(2, 0)):
        with pytest.raises(ValueError, match="table must be"):
            effective_rank(bad)
