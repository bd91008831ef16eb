"""Regressors: medians by hand and by a slow version, losses by a loop, refusals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import data, loop, metrics
from paperlab.feedback import regressors as rg
from paperlab.feedback.worlds.watch_time import watch_time
from torch.nn import functional as F

SCHEMA = data.Schema((data.Field("user", size=7),), labels=("seconds",))
EDGES = torch.tensor([0.0, 2.0, 4.0, 10.0])


def batch(amounts=(0.0, 2.0, 2.1, 10.0, 50.0)):
    ids = torch.arange(len(amounts))[:, None].int()
    return data.Batch(ids, torch.zeros(len(amounts), 0), torch.tensor(amounts)[:, None])


def test_worked_medians():
    at_most = torch.tensor([[0.5, 0.8, 1.0], [0.2, 0.4, 1.0], [0.0, 0.75, 1.0], [0.6, 0.6, 1.0]])
    found = rg.median_of_bins(at_most, EDGES).tolist()
    assert found == pytest.approx([2.0, 4 + 6 * 0.1 / 0.6, 2 + 2 * 0.5 / 0.75, 2 * 0.5 / 0.6])


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(2, 9), st.integers(0, 99))
def test_median_halves_the_piecewise_linear_distribution(bins, seed):
    draw = torch.Generator().manual_seed(seed)
    p = torch.rand(3, bins, generator=draw, dtype=torch.float64) + 0.01
    at_most = (p / p.sum(1, keepdim=True)).cumsum(1)
    edges = torch.cat([torch.zeros(1), torch.rand(bins, generator=draw).cumsum(0)]).double()
    for row, median in zip(at_most, rg.median_of_bins(at_most, edges), strict=True):
        below = 0.0
        for k in range(bins):
            mass = row[k].item() - (row[k - 1].item() if k else 0.0)
            share = (median - edges[k]) / (edges[k + 1] - edges[k])
            below += mass * min(1.0, max(0.0, share.item()))
        assert below == pytest.approx(0.5, abs=1e-6)


def test_edges_hold_equal_shares_and_merge_where_amounts_repeat():
    y = torch.arange(1, 101).float()
    edges = rg.quantile_edges(y, 4)
    assert torch.histogram(y - 1e-3, edges).hist.tolist() == pytest.approx([25] * 4, abs=1)
    assert len(rg.quantile_edges(torch.tensor([0.0] * 8 + [1.0, 2.0]), 5)) == 3
    with pytest.raises(ValueError, match="two values"):
        rg.quantile_edges(torch.zeros(9), 5)
    with pytest.raises(ValueError, match="bins"):
        rg.quantile_edges(y, 1)


def test_losses_are_what_loops_compute():
    torch.manual_seed(0)
    rows, y = batch(), [0.0, 2.0, 2.1, 10.0, 50.0]
    bins = rg.QuantileBins(SCHEMA, EDGES, width=4, dropout=0.0)
    logits = bins.head(bins.encode(rows)).log_softmax(1)
    place = [0, 0, 1, 2, 2]  # (edge k, edge k + 1], the first with 0, the last without an end
    want = -sum(logits[i, k].item() for i, k in enumerate(place)) / 5
    assert bins.loss(rows).item() == pytest.approx(want, rel=1e-5)
    ordinal = rg.OrdinalBins(SCHEMA, EDGES, width=4, dropout=0.0)
    logits = ordinal.head(ordinal.encode(rows))
    want = sum(
        F.softplus(-z if v > t else z).item()
        for v, row in zip(y, logits, strict=True)
        for t, z in zip((2.0, 4.0), row, strict=True)
    )
    assert ordinal.loss(rows).item() == pytest.approx(want / 5, rel=1e-5)
    l1 = rg.L1Regressor(SCHEMA, rows.labels[:, 0], width=4, dropout=0.0)
    assert l1.loss(rows).item() == pytest.approx(
        sum(abs(a - b) for a, b in zip(l1._score(rows).tolist(), y, strict=True)) / 5 / l1.scale
    )


def test_ordinal_distributions_never_fall():
    torch.manual_seed(0)
    model = rg.OrdinalBins(SCHEMA, torch.arange(12).float(), width=4, std=3.0, dropout=0.0)
    at_most = model.at_most(batch())
    assert (at_most.diff(dim=1) >= 0).all() and (at_most[:, -1] == 1).all()


@pytest.mark.parametrize("name", ["l1", "bins", "ordinal"])
def test_each_learns_and_reports_mae_and_xauc(name):
    log = watch_time(1_500, test=500)
    y = log.train.labels[:, 0]
    edges = rg.quantile_edges(y, 20)
    torch.manual_seed(0)
    model = {
        "l1": lambda: rg.L1Regressor(log.schema, y, dropout=0.0),
        "bins": lambda: rg.QuantileBins(log.schema, edges, dropout=0.0),
        "ordinal": lambda: rg.OrdinalBins(log.schema, edges, dropout=0.0),
    }[name]()
    done = loop.fit(model, log, epochs=6, batch_size=128, precision="32-true", accelerator="cpu")
    truth, found = log.test.labels[:, 0], model.predict(log.test)
    assert done.test["mae"] == pytest.approx((found - truth).abs().mean().item())
    assert done.test["xauc"] == pytest.approx(metrics.xauc(found, truth))
    assert done.test["mae"] < 0.95 * (truth - y.median()).abs().mean().item()
    assert (found >= 0).all()


def test_faults():
    log = watch_time(200, test=100)
    log.train.values[0] = -1.0
    model = rg.L1Regressor(log.schema, torch.ones(3))
    with pytest.raises(ValueError, match="at least 0"):
        loop.fit(model, log)
    with pytest.raises(ValueError, match="memory"):
        rg.L1Regressor(log.schema, torch.ones(3), memory=0)
    torch.nn.init.constant_(model.head[-1].weight, float("nan"))
    with pytest.raises(FloatingPointError, match="NaN"):
        model.evaluate(log)
