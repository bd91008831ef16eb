"""The model: numbers by hand, identities, a slow second version, faults."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import data
from paperlab.templates.newcomer_click import (
    Newcomer,
    contenders,
    logit,
)

SCHEMA = data.Schema((data.Field("user", size=7), data.Field("item", size=5)))


def batch(rows: int, seed: int = 0) -> data.Batch:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randint(n, (rows,), generator=draw) for n in (7, 5)], 1).int()
    return data.Batch(ids, torch.zeros(rows, 0), torch.ones(rows, 1))


def test_worked_numbers():
    x, weight = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    out = torch.tensor([1.0, 2.0])
    assert logit(x, weight, torch.zeros(2), out).item() == 6.0
    assert logit(x, weight, torch.zeros(2), out, nonlinear=False).item() == 5.0


def drawn(width: int, d_in: int, seed: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((d_in,), (width, d_in), (width,), (width,))
    return [torch.randn(s, generator=draw, dtype=torch.float64) for s in shapes]


sizes = st.integers(1, 8)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(sizes, sizes, st.integers(0, 99), st.booleans())
def test_it_is_what_a_loop_computes(width, d_in, seed, nonlinear):
    x, weight, bias, out = drawn(width, d_in, seed)
    total = 0.0
    for j in range(width):
        seen = bias[j].item()
        for k in range(d_in):
            seen += weight[j, k].item() * x[k].item()
        total += out[j].item() * (max(seen, 0.0) if nonlinear else seen)
    assert logit(x, weight, bias, out, nonlinear).item() == pytest.approx(total, abs=1e-12)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(sizes, sizes, st.integers(0, 99), st.floats(0, 10))
def test_it_grows_as_its_input_and_bias_do(width, d_in, seed, scale):
    x, weight, bias, out = drawn(width, d_in, seed)
    grown = logit(scale * x, weight, scale * bias, out)
    torch.testing.assert_close(grown, scale * logit(x, weight, bias, out), rtol=1e-9, atol=1e-9)


def test_the_model_is_the_function_on_its_embeddings():
    model, rows = Newcomer(SCHEMA, dim=3, width=4), batch(6)
    x = model.embed(rows).flatten(1)
    found = logit(x, model.hidden.weight, model.hidden.bias, model.out.weight[0])
    torch.testing.assert_close(model(rows), found + model.out.bias)
    assert model(rows).shape == (6,)
    assert model.count_parameters()["dense"] == 6 * 4 + 4 + 4 + 1


def test_without_the_nonlinearity_fields_only_add():
    """f(a, b) - f(a, b') does not depend on a; with it, it does."""
    corners = torch.tensor([[1, 1], [1, 2], [2, 1], [2, 2]]).int()
    rows = data.Batch(corners, torch.zeros(4, 0), torch.ones(4, 1))
    for nonlinear in (False, True):
        torch.manual_seed(0)
        model = Newcomer(SCHEMA, dim=4, width=64, nonlinear=nonlinear).double()
        torch.nn.init.normal_(model.embed.table.weight)
        f = model(rows)
        assert (abs(f[0] - f[1] - f[2] + f[3]).item() > 1e-3) == nonlinear


def test_every_weight_gets_a_gradient():
    model = Newcomer(SCHEMA, dim=3, width=8)
    model.loss(batch(64)).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]


@pytest.mark.parametrize("sizes", [{"dim": 0}, {"width": 0}])
def test_sizes_out_of_range_are_refused(sizes):
    with pytest.raises(ValueError, match="must be at least 1"):
        Newcomer(SCHEMA, **sizes)


def test_contenders_have_one_size():
    built = [build(SCHEMA, 9).count_parameters() for build in contenders().values()]
    assert built[0] == built[1]
