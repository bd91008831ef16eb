"""Linear CKA against its definition, and what it must not see."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.nn.cka import linear_cka


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_worked_number():
    x = torch.tensor([[1.0], [-1], [1], [-1]])
    y = torch.tensor([[1.0, 1], [-1, 1], [1, -1], [-1, -1]])
    # X^T Y = (4, 0), |X^T X| = 4, |Y^T Y| = 4 sqrt 2
    assert linear_cka(x, y) == pytest.approx(16 / (4 * 4 * 2**0.5))


@settings(deadline=None, max_examples=20)
@given(st.integers(3, 20), st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6))
def test_it_is_the_correlation_of_centred_gram_matrices(n, p, q, seed):
    x, y = normal(n, p, seed=seed), normal(n, q, seed=seed + 1)
    centre = torch.eye(n, dtype=torch.float64) - 1 / n
    K, L = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    want = (K * L).sum() / (K.norm() * L.norm())
    assert linear_cka(x, y) == pytest.approx(want.item(), abs=1e-10)
    assert 0 <= linear_cka(x, y) <= 1 + 1e-12


def test_rotation_scale_and_shift_do_not_matter_but_other_maps_do():
    x, y = normal(50, 4), normal(50, 4, seed=1)
    turn = torch.linalg.qr(normal(4, 4, seed=2))[0]
    assert linear_cka(x, 3 * x @ turn + 7) == pytest.approx(1)
    assert linear_cka(x, y @ turn) == pytest.approx(linear_cka(x, y))
    assert linear_cka(x, x * torch.tensor([10, 1, 1, 1])) < 0.9
    assert linear_cka(normal(20_000, 4), normal(20_000, 4, seed=1)) < 0.01


def test_faults():
    with pytest.raises(ValueError, match="equally many rows"):
        linear_cka(normal(5, 2), normal(4, 2))
    with pytest.raises(ValueError, match="equally many rows"):
        linear_cka(normal(5), normal(5))
    assert torch.tensor(linear_cka(torch.ones(5, 2), normal(5, 2))).isnan()
