"""The click-order funnel: probabilities against frequencies, the pieces of its formula, refusals."""

import numpy as np
import pytest
import torch
from paperlab import metrics
from paperlab.feedback.worlds import funnel as world
from paperlab.feedback.worlds.funnel import funnel


def test_labels_follow_the_known_probabilities():
    log = funnel(100, b=-2.0, held=60_000, seed=3)
    labels, truth = log.test.labels, log.truth
    for k, p in enumerate((truth.click, truth.order)):
        off = (labels[:, k].double() - p).sum() / (p * (1 - p)).sum().sqrt()
        assert abs(off.item()) < 4
    within = labels[labels[:, 0] == 1, 1].mean().item()
    assert within == pytest.approx((truth.order.sum() / truth.click.sum()).item(), abs=0.02)


def test_an_order_needs_a_click_and_is_rarer():
    log = funnel(5_000, b=-1.0, seed=1)
    for part in (log.train, log.valid, log.test):
        click, order = part.labels.T
        assert (order <= click).all()
    assert (log.truth.order < log.truth.click).all()
    assert log.truth.orders == log.train.labels[:, 1].sum()


def test_probabilities_are_the_formula():
    log = funnel(10, rho=0.6, b=-3.0, a=-1.0, held=500, seed=7)
    plant = np.random.default_rng([7, 1])
    u, v = (world.FIELDS.utility(plant) for _ in range(2))
    ids = log.test.ids.numpy()
    click = 1 / (1 + np.exp(1.0 - 1.2 * u(ids)))
    order = click / (1 + np.exp(3.0 - 1.2 * (0.6 * u(ids) + 0.8 * v(ids))))
    np.testing.assert_allclose(log.truth.click, click)
    np.testing.assert_allclose(log.truth.order, order)


def test_rho_decides_how_well_clicks_rank_orders():
    found = [
        metrics.exact_auc((truth := funnel(10, rho=rho, seed=0).truth).click, truth.order)
        / metrics.exact_auc(truth.order, truth.order)
        for rho in (1.0, 0.5, -0.5)
    ]
    assert found[0] == pytest.approx(1, abs=1e-6) and found[0] > found[1] > found[2]


def test_the_sheets_rates():
    orders = [
        np.mean([funnel(20_000, b=b, seed=s).truth.orders for s in range(6)]) for b in (-6, -5)
    ]
    assert 20 < orders[0] < 50 and 55 < orders[1] < 110


def test_equal_seeds_give_equal_logs():
    a, b, c = (funnel(50, held=20, seed=s) for s in (4, 4, 5))
    assert torch.equal(a.train.ids, b.train.ids) and torch.equal(a.test.labels, b.test.labels)
    assert not torch.equal(a.train.ids, c.train.ids)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rows": 0}, "rows must be at least 1"),
        ({"rho": 1.5}, "rho must be in"),
        ({"b": float("nan")}, "b must be"),
        ({"held": 0}, "held must be at least 1"),
    ],
)
def test_refusals(wrong, said):
    with pytest.raises(ValueError, match=said):
        funnel(**{"rows": 10, **wrong})
