"""Clipping of gradients: sparse and dense ones together, as torch clips dense ones."""

import pytest
import torch
from paperlab import ctr, train
from paperlab.data.planted_orders import planted_orders


@pytest.fixture(scope="module")
def log():
    return planted_orders(3000, {1: 1.0}, fields=4, vocabulary=20)


def clipped(log, limit: float, how: str, penalty: float) -> dict[str, torch.Tensor]:
    """The clipped gradients of a model that reads its table twice; a penalty makes that dense."""
    torch.manual_seed(0)
    model = ctr.DNN(log.schema, 4, widths=(8,), embedding_l2=penalty)
    few, more = log.train.take(slice(0, 64)), log.train.take(slice(32, 160))
    (model.loss(few) + model.loss(more)).backward()
    model.configure_gradient_clipping(torch.optim.SGD(model.parameters()), limit, how)
    assert model.embed.table.weight.grad.is_sparse == (not penalty)
    return {name: p.grad.to_dense() for name, p in model.named_parameters()}


@pytest.mark.parametrize("limit", [1e-3, 1e-2, 1e3])
@pytest.mark.parametrize("how", ["norm", "value"])
def test_sparse_gradients_are_clipped_as_dense_ones(log, limit, how):
    sparse, whole = (clipped(log, limit, how, penalty) for penalty in (0.0, 1e-30))
    torch.manual_seed(0)
    plain = ctr.DNN(log.schema, 4, widths=(8,), embedding_l2=1e-30)
    few, more = log.train.take(slice(0, 64)), log.train.take(slice(32, 160))
    (plain.loss(few) + plain.loss(more)).backward()
    if how == "norm":
        torch.nn.utils.clip_grad_norm_(plain.parameters(), limit)
    else:
        torch.nn.utils.clip_grad_value_(plain.parameters(), limit)
    for name, p in plain.named_parameters():
        torch.testing.assert_close(whole[name], p.grad, rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(sparse[name], p.grad, rtol=1e-4, atol=1e-8)
    if limit < 1:
        assert max(g.abs().max() for g in sparse.values()) <= limit * 1.0001


@pytest.mark.parametrize("how", ["norm", "value"])
def test_a_training_with_a_limit_runs_on_a_sparse_table(log, how):
    torch.manual_seed(0)
    model = ctr.DNN(log.schema, 4, widths=(8,), lr=0.01)
    limit = {"gradient_clip_val": 0.1, "gradient_clip_algorithm": how}
    assert train.fit(model, log, epochs=3, batch_size=128, **limit).test["auc"] > 0.6
