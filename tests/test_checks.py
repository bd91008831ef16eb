"""Each check lets through what is right, and names it in one line where it is not."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paperlab import checks

WRONG = [
    (lambda: checks.whole(epochs=0), "epochs must be at least 1, got 0"),
    (lambda: checks.whole(0, heads=-1), "heads must be at least 0, got -1"),
    (lambda: checks.whole(epochs=1.5), "epochs must be a whole number, got 1.5"),
    (lambda: checks.whole(epochs=True), "epochs must be a whole number, got True"),
    (lambda: checks.whole(a=1, b=0), "b must be at least 1, got 0"),
    (lambda: checks.positive(lr=0), "lr must be above 0 and finite, got 0"),
    (lambda: checks.positive(lr=math.inf), "lr must be above 0 and finite, got inf"),
    (lambda: checks.positive(lr=math.nan), "lr must be above 0 and finite, got nan"),
    (lambda: checks.positive(lr="1e-3"), "lr must be above 0 and finite, got '1e-3'"),
    (lambda: checks.at_least(0, std=-0.1), "std must be at least 0 and finite, got -0.1"),
    (lambda: checks.inside("[0, 1)", dropout=1), "dropout must be in [0, 1), got 1"),
    (lambda: checks.inside("(0, 1]", keep=0.0), "keep must be in (0, 1], got 0.0"),
    (lambda: checks.inside("[0, 1]", rate=math.nan), "rate must be in [0, 1], got nan"),
    (lambda: checks.multiple(4, width=6), "width must be a multiple of 4, got 6"),
    (lambda: checks.multiple(4, width=0), "width must be at least 1, got 0"),
    (lambda: checks.one_of("ab", kind="x"), "kind must be one of a, b, not 'x'"),
    (lambda: checks.one_of((1, 2), merge=7), "merge must be one of 1, 2, not 7"),
    (
        lambda: checks.widths(dims=()),
        "dims must be one or more whole numbers of at least 1, got ()",
    ),
    (lambda: checks.widths(True, w=[4, 0]), "w must be whole numbers of at least 1, got [4, 0]"),
    (
        lambda: checks.finite(cost=torch.tensor([1.0, math.nan, -math.inf])),
        "cost must be finite, 2 of 3 are not",
    ),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[m for _, m in WRONG])
def test_wrong_values_are_refused_with_what_is_right(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert str(raised.value) == message


def test_right_values_pass():
    checks.whole(a=1, b=np.int64(3))
    checks.whole(0, a=0)
    checks.positive(a=1e-300, b=np.float32(2), c=3)
    checks.at_least(0, a=0, b=0.0)
    checks.inside("[0, 1)", a=0, b=0.999)
    checks.inside("(0, inf)", a=1e300)
    checks.multiple(4, a=8)
    checks.one_of((None, "a"), a=None)
    checks.widths(a=(1,), b=[2, 3])
    checks.widths(True, a=())
    checks.finite(a=torch.zeros(0), b=torch.ones(3).int())


BOUND = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0])


@given(low=BOUND, high=BOUND, value=BOUND, ends=st.sampled_from(["[]", "[)", "(]", "()"]))
def test_an_interval_is_read_as_in_mathematics(low, high, value, ends):
    within = low < value < high
    within |= ends[0] == "[" and value == low and value <= high and (ends[1] == "]" or value < high)
    within |= ends[1] == "]" and value == high and value >= low and (ends[0] == "[" or value > low)
    try:
        checks.inside(f"{ends[0]}{low}, {high}{ends[1]}", x=value)
        passed = True
    except ValueError:
        passed = False
    assert passed == within
