"""The width of a given budget: found by bisection, without memory or random numbers."""

import numpy as np
import pytest
import torch
from paperlab.ctr.baselines.dnn import DNN
from paperlab.data import Field, Schema, from_arrays
from paperlab.nn.budget import flops, width_for
from paperlab.nn.click import ClickModel
from paperlab.nn.grouped import GroupedLayerNorm, GroupedLinear
from paperlab.nn.mlp import MLP

SCHEMA = Schema((Field("a", size=10**9), Field("b", size=10), Field("n", kind="numeric")))


class Net(ClickModel):
    def __init__(self, width: int):
        super().__init__(SCHEMA, 4)
        self.mlp = MLP(self.d_in, (width, width), out=1)


def dense(width: int) -> int:
    return 12 * width + width + width * width + width + width + 1


@pytest.mark.parametrize("width", [1, 2, 57, 300, 4096])
def test_a_count_that_a_width_gives_is_found(width):
    assert width_for(Net, dense(width)) == width


def test_the_nearer_neighbour_wins():
    assert width_for(Net, dense(100) + 50) == 100
    assert width_for(Net, dense(101) - 50) == 101
    best = min(range(1, 200), key=lambda w: abs(dense(w) - 7_777))
    assert width_for(Net, 7_777) == best


def test_a_budget_out_of_reach_is_an_error_in_one_line():
    message = (
        r"no width in \[8, 16\] gives 10,000 dense weights within 5 %: the nearest, 16, gives 497"
    )
    with pytest.raises(ValueError, match=message) as error:
        width_for(Net, 10_000, low=8, high=16)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="the nearest, 8, gives"):
        width_for(Net, 10, low=8, high=16)
    with pytest.raises(ValueError, match="within 5 %"):  # widths 2 and 3 are too far apart
        width_for(Net, (dense(2) + dense(3)) // 2)


def test_multiples_are_the_builders_business():
    def build(k: int) -> Net:
        return Net(16 * k)

    assert width_for(build, dense(64)) == 4


def test_random_numbers_stay_where_they_were():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    width_for(Net, 5_000)
    assert torch.equal(torch.get_rng_state(), before)


def test_grouped_layers_equal_a_loop_over_groups():
    torch.manual_seed(0)
    x, linear, norm = torch.randn(3, 5, 4), GroupedLinear(3, 4, 6), GroupedLayerNorm(3, 4)
    for p in (*linear.parameters(), *norm.parameters()):
        torch.nn.init.normal_(p)
    for g in range(3):
        want = x[g] @ linear.weight[g] + linear.bias[g]
        torch.testing.assert_close(linear(x)[g], want)
        want = torch.nn.functional.layer_norm(x[g], (4,), norm.weight[g], norm.bias[g])
        torch.testing.assert_close(norm(x)[g], want)


def test_flops_are_two_a_multiply_add_of_a_sample():
    schema = Schema((Field("a", size=9), Field("b", size=9)))
    model = DNN(schema, 4, widths=(6,), dropout=0.5).train()
    log = from_arrays(
        "x", schema, np.ones((30, 2), np.int32), np.ones((30, 1)), np.arange(30) // 10
    )
    assert flops(model, log.train.take(slice(0, 7))) == 2 * (8 * 6 + 6)
    assert model.training
