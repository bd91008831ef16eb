"""Averages of weights: by hand, against a slow loop, and what serving may read."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.feedback import snapshots
from paperlab.feedback.asmg import Base, freeze
from paperlab.feedback.prequential import Trained, test_then_train
from paperlab.feedback.worlds.factor_stream import factor_stream


def scalars(*values):
    return [{"w": torch.tensor([v])} for v in values]


def test_by_hand():
    seen = scalars(1.0, 2.0, 4.0)
    assert snapshots.exponential(seen, 0.5)["w"].item() == 2.75  # 1 -> 1.5 -> 2.75
    assert snapshots.exponential(seen, 0.0)["w"].item() == 4
    assert snapshots.window(seen, 2)["w"].item() == 3 and snapshots.window(seen, 9)[
        "w"
    ].item() == pytest.approx(7 / 3)
    assert snapshots.extrapolate(seen, 0.5)["w"].item() == 5
    assert snapshots.extrapolate(seen, -1)["w"].item() == 2
    assert snapshots.extrapolate(seen[:1], 0.5)["w"].item() == 1
    shares = {"w": torch.tensor([[0.0], [0.0], [0.0]])}
    assert snapshots.softmax_sum(seen, shares)["w"].item() == pytest.approx(7 / 3)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.floats(0, 0.99))
def test_the_exponential_average_is_its_recursion(values, decay):
    mean = values[0]
    for v in values[1:]:
        mean = decay * mean + (1 - decay) * v
    assert snapshots.exponential(scalars(*values), decay)["w"].item() == pytest.approx(
        mean, abs=1e-4
    )


def test_faults_are_refused():
    with pytest.raises(ValueError, match="decay"):
        snapshots.exponential(scalars(1.0), 1.0)
    with pytest.raises(ValueError, match="as many shares"):
        snapshots.combine(scalars(1.0), [0.5, 0.5])
    with pytest.raises(ValueError, match="size"):
        snapshots.window(scalars(1.0), 0)


def test_predict_uses_the_given_weights_and_gradients_reach_them_alone():
    stream = factor_stream(periods=1, rows=8)
    model, other = Base(stream.schema), Base(stream.schema)
    batch = stream.periods[0].take(slice(None))
    weights = {n: w.requires_grad_() for n, w in snapshots.take(other).items()}
    out = snapshots.predict(model, weights, batch)
    assert torch.equal(out, other(batch))
    out.sum().backward()
    assert weights["user.weight"].grad is not None
    assert all(p.grad is None for p in model.parameters())


def test_the_latest_snapshot_is_the_fine_tuned_model_itself():
    stream, found = factor_stream(periods=6, rows=60, seed=1), []
    options = {"epochs": 2, "batch_size": 20, "seed": 3}
    torch.manual_seed(0)
    found.append(
        [x for _, x in test_then_train(Trained(Base(stream.schema), **options), stream, 3)]
    )
    torch.manual_seed(0)
    frozen = freeze(model := Base(stream.schema), stream, 3, **options)
    assert frozen[:2] == [None, None] and len(frozen) == 5
    served = snapshots.Served(model, frozen, lambda seen: seen[-1])
    found.append([x for _, x in test_then_train(served, stream, 3)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_later_snapshots_cannot_be_read():
    stream = factor_stream(periods=5, rows=40)
    frozen = freeze(model := Base(stream.schema), stream, 2)
    served = snapshots.Served(model, frozen, partial(snapshots.window, size=9))
    served.update(stream.periods[:3])
    before = served.predict(stream.periods[3])
    frozen[3] = {n: w + 1 for n, w in frozen[3].items()}
    assert torch.equal(served.predict(stream.periods[3]), before)
    assert len(served.so_far()) == 2
