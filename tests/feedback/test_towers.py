"""The base of multi-task models: joint logits, start, loss, calibrated scores, refusals."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import loop, metrics
from paperlab.feedback.resflow import ResFlow
from paperlab.feedback.towers import COMBINE, funnel_loss, heads_at, joint_logits
from paperlab.feedback.worlds.funnel import funnel
from torch.nn import functional as F

LOG = funnel(3_000, b=-1.0, held=1_000, seed=0)
KINDS = st.sampled_from(COMBINE)


def test_the_sheets_worked_numbers():
    s = joint_logits(torch.tensor([[-3.0, -1.5]]), "sum")
    p = s.sigmoid()[0]
    assert p.tolist() == pytest.approx([0.04743, 0.01099], abs=5e-6)
    odds = p / (1 - p)
    assert (odds[1] / odds[0]).item() == pytest.approx(math.exp(-1.5), rel=1e-5)
    product = joint_logits(torch.tensor([[-3.0, -1.5]]), "product").sigmoid()[0, 1]
    assert product.item() == pytest.approx(0.04743 * 0.182426, rel=1e-4)


def test_loss_by_hand():
    zero, yes, no = torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 1)
    q = torch.tensor([100.0])
    assert funnel_loss(zero, yes, q).item() == pytest.approx(69.3147, abs=1e-4)
    assert funnel_loss(zero, no, q).item() == pytest.approx(0.6931, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 4))
def test_loss_is_its_formula(seed, rows, tasks):
    g = torch.Generator().manual_seed(seed)
    s = 3 * torch.randn(rows, tasks, generator=g)
    y = (torch.rand(rows, tasks, generator=g) < 0.5).float()
    q, w = torch.rand(2, tasks, generator=g) + 0.1
    slow = 0.0
    for k in range(tasks):
        for i in range(rows):
            p = 1 / (1 + math.exp(-s[i, k].item()))
            term = -math.log(p) * q[k] if y[i, k] else -math.log(1 - p)
            slow += w[k] * term / rows
    assert funnel_loss(s, y, q, w).item() == pytest.approx(float(slow), rel=1e-4)
    assert torch.allclose(
        funnel_loss(s, y, q, w, reduction="none").mean(0).sum(), funnel_loss(s, y, q, w)
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.001, 0.9), min_size=1, max_size=5), KINDS)
def test_heads_at_inverts_joint_logits(rates, combine):
    rates = torch.tensor(sorted(rates, reverse=True), dtype=torch.float64)
    rates = rates * torch.logspace(0, -0.3, len(rates), dtype=torch.float64)  # strictly falling
    logits = torch.logit(rates)
    again = joint_logits(heads_at(logits, combine)[None], combine)[0]
    assert torch.allclose(again, logits, atol=2e-3 if combine == "product" else 1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_products_and_clamped_sums_fall_along_the_chain(seed):
    heads = 5 * torch.randn(20, 4, generator=torch.Generator().manual_seed(seed))
    for s in (joint_logits(heads, "product"), joint_logits(heads, "sum", clamp=True)):
        assert (s[:, 1:] <= s[:, :-1] + 1e-5).all() and s.isfinite().all()
    assert torch.equal(joint_logits(heads, "separate"), heads)
    assert torch.allclose(joint_logits(heads, "sum")[:, 3], heads.sum(1), atol=1e-5)


def test_an_almost_sure_product_is_finite_and_has_gradients():
    heads = torch.tensor([[200.0, 150.0]], requires_grad=True)
    joint_logits(heads, "product").sum().backward()
    assert heads.grad.isfinite().all()


@pytest.mark.parametrize("combine", COMBINE)
@pytest.mark.parametrize("q", [None, (3.0, 5.0)])
def test_a_start_has_the_base_rates(combine, q):
    torch.manual_seed(0)
    model = ResFlow(LOG.schema, 4, widths=(8,), combine=combine, q=q, std=0.0).start_at(LOG.train)
    rates = model.predict_all(LOG.test).sigmoid().mean(0)
    assert torch.allclose(rates, LOG.train.labels.mean(0), rtol=0.02)


def test_a_reversed_chain_starts_at_the_base_rates_and_gives_labels_in_the_schemas_order():
    model = ResFlow(LOG.schema, 4, widths=(8,), chain=("order", "click"), std=0.0)
    rates = model.start_at(LOG.train).predict_all(LOG.test).sigmoid().mean(0)
    assert torch.allclose(rates, LOG.train.labels.mean(0), rtol=0.02)


def test_scores_are_those_of_each_label_and_the_chosen_one_is_the_models_own():
    torch.manual_seed(1)
    model = ResFlow(LOG.schema, 4, widths=(8,), q=(2.0, 9.0), std=0.3, chosen_by="click")
    logits, labels, scores = model.predict_all(LOG.test), LOG.test.labels, model.evaluate(LOG)
    names = {f"{what}_{label}" for what in ("auc", "logloss") for label in ("click", "order")}
    assert set(scores) == names | {"logloss_all"}
    assert scores["auc_order"] == metrics.auc(logits[:, 1], labels[:, 1])
    loss = F.binary_cross_entropy_with_logits(logits[:, 0], labels[:, 0])
    assert scores["logloss_click"] == pytest.approx(loss.item(), rel=1e-5)
    assert torch.allclose(model.predict(LOG.test) - math.log(2), logits[:, 0], atol=1e-5)
    assert model.select == ("logloss_click", "lower")
    both = ResFlow(LOG.schema, 4, widths=(8,), chosen_by="all")
    assert both.select == ("logloss_all", "lower") and both.judged == 1
    total = scores["logloss_click"] + scores["logloss_order"]
    assert scores["logloss_all"] == pytest.approx(total)


def test_weights_on_positives_are_corrected():
    """Trained with q = 20 on positives, predicted rates still fit."""
    torch.manual_seed(0)
    model = ResFlow(LOG.schema, 4, widths=(8,), q=(5.0, 20.0), lr=0.01).start_at(LOG.train)
    loop.fit(model, LOG, epochs=3, batch_size=256, precision="32-true", accelerator="cpu")
    ratio = model.predict_all(LOG.test).sigmoid().mean(0) / LOG.test.labels.mean(0)
    assert ((ratio > 0.7) & (ratio < 1.4)).all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"combine": "mean"}, "combine must be one of"),
        ({"chain": ("click",)}, "chain must hold each of click, order once"),
        ({"q": (1.0,)}, "q must have 2 values, got 1"),
        ({"q": (1.0, 0.0)}, "q must be above 0"),
        ({"w": (1.0, -1.0)}, "w must be at least 0"),
        ({"chosen_by": "like"}, "chosen_by must be one of"),
        ({"clamp": True, "combine": "product"}, "clamp needs combine 'sum'"),
    ],
)
def test_refusals(wrong, said):
    with pytest.raises(ValueError, match=said):
        ResFlow(LOG.schema, 4, **wrong)


def test_labels_that_cannot_train_are_refused():
    model = ResFlow(LOG.schema, 4, widths=(8,))
    log = funnel(500, b=-60.0, held=500, seed=0)
    with pytest.raises(ValueError, match="order has 500 rows of one class"):
        model.check(log)
    log = funnel(500, b=-1.0, held=500, seed=0)
    log.train.values[3, 0] = 0.5
    with pytest.raises(ValueError, match="click must be 0 or 1"):
        model.check(log)
