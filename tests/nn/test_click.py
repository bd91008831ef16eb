"""Clipping of gradients: sparse and dense ones together, as torch clips dense ones."""

import pytest
import torch
from paperlab import loop
from paperlab.ctr.baselines.dnn import DNN
from paperlab.ctr.worlds.planted_orders import planted_orders


@pytest.fixture(scope="module")
def log():
    return planted_orders(3000, {1: 1.0}, fields=4, vocabulary=20)


def read_twice(log, penalty: float) -> DNN:
    """A model with the gradients of two reads of its table; a penalty makes that one dense."""
    torch.manual_seed(0)
    model = DNN(log.schema, 4, widths=(8,), embedding_l2=penalty)
    for rows in (slice(0, 64), slice(32, 160)):
        model.loss(log.train.take(rows)).backward()
    assert model.embed.table.weight.grad.is_sparse == (not penalty)
    return model


@pytest.mark.parametrize("limit", [1e-3, 1e-2, 1e3])
@pytest.mark.parametrize("how", ["norm", "value"])
def test_sparse_gradients_are_clipped_as_torch_clips_dense_ones(log, limit, how):
    sparse, dense = read_twice(log, 0.0), read_twice(log, 1e-30)
    sparse.configure_gradient_clipping(torch.optim.SGD(sparse.parameters()), limit, how)
    clip = {"norm": torch.nn.utils.clip_grad_norm_, "value": torch.nn.utils.clip_grad_value_}
    clip[how](dense.parameters(), limit)
    for mine, plain in zip(sparse.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(mine.grad.to_dense(), plain.grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("how", ["norm", "value"])
def test_a_training_with_a_limit_clips_a_sparse_table(log, how):
    torch.manual_seed(0)
    model = DNN(log.schema, 4, widths=(8,), lr=0.01)
    clip, limit, seen = model.configure_gradient_clipping, 1e-3, []

    def watched(*args, **options):
        clip(*args, **options)
        grads = [p.grad.to_dense().flatten() for p in model.parameters()]
        seen.append((torch.cat(grads).norm(), torch.cat(grads).abs().max()))

    model.configure_gradient_clipping = watched
    options = {"gradient_clip_val": limit, "gradient_clip_algorithm": how}
    loop.fit(model, log, epochs=1, batch_size=128, **options)
    norm, largest = torch.tensor(seen).max(0).values
    assert len(seen) > 10
    assert (norm if how == "norm" else largest).item() == pytest.approx(limit, rel=1e-3)
    assert how == "norm" or norm > 2 * limit
