"""ResFlow: the sheet's worked numbers, identities of the towers, progressive regression, refusals."""

import pytest
import torch
from helpers.tensors import close
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import loop
from paperlab.data.schema import Field, Schema
from paperlab.data.store import from_arrays
from paperlab.feedback.resflow import (
    THRESHOLDS,
    ProgressiveResFlow,
    ResFlow,
    exceeds,
    progressive_value,
    tower_features,
)
from paperlab.feedback.worlds.funnel import funnel

LOG = funnel(1_000, b=-1.0, held=300, seed=0)
BATCH = LOG.train.take(slice(64))
TIMES = torch.tensor(THRESHOLDS)


def model(seed=0, **options):
    torch.manual_seed(seed)
    return ResFlow(LOG.schema, 4, **{"widths": (6, 5), "std": 0.5, **options})


def test_towers_without_residuals_are_independent_networks():
    net = model(fr=False, combine="separate")
    x = net.embed(BATCH).flatten(1)
    alone = [out(layers[1](layers[0](x))) for layers, out in zip(net.towers, net.out, strict=True)]
    close(net.logits(BATCH), torch.cat(alone, 1))
    net.logits(BATCH)[:, 1].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in net.towers[0].parameters())


def test_features_are_the_recursion_written_out():
    """Three labels, o_k^l = o_(k-1)^l + f_k^l(o_k^(l-1))."""
    torch.manual_seed(1)
    f = [[torch.nn.Linear(4, 6), torch.nn.Linear(6, 5)] for _ in range(3)]
    x = torch.randn(7, 4)
    one, two = f[0][0](x), f[0][1](f[0][0](x))
    for k in (1, 2):
        one = one + f[k][0](x)
        two = two + f[k][1](one)
    close(tower_features(x, f)[2], two)
    close(tower_features(x, f, fr=False)[2], f[2][1](f[2][0](x)))


def test_a_tower_of_zeros_hands_on_the_logit_before_it():
    net = model(norm="batch").eval()
    with torch.no_grad():
        for p in [*net.towers[1].parameters(), *net.out[1].parameters()]:
            p.zero_()
    s = net.logits(BATCH)
    assert torch.equal(s[:, 0], s[:, 1])


@pytest.mark.parametrize("switches", [{"fr": False}, {"combine": "separate"}])
def test_each_residual_alone_lets_the_sparse_label_train_the_dense_tower(switches):
    net = model(**switches)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        net.logits(BATCH)[:, 1], BATCH.labels[:, 1]
    )
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in net.towers[0][0].parameters())


def test_residuals_add_no_weights():
    sizes = {
        tuple(model(fr=fr, combine=c).count_parameters().values())
        for fr in (True, False)
        for c in ("separate", "sum", "product")
    }
    assert len(sizes) == 1


def test_a_clamped_chain_falls():
    net = model(clamp=True, std=3.0)
    s = net.logits(BATCH)
    assert (s[:, 1] <= s[:, 0]).all() and not (s[:, 1] == s[:, 0]).all()
    assert (model(std=3.0).logits(BATCH).diff(dim=1) > 0).any()  # the clamp does something


def test_a_reversed_chain_starts_from_the_order():
    net = model(chain=("order", "click"))
    heads = net.heads(net.embed(BATCH).flatten(1))
    close(net.logits(BATCH)[:, 1], heads[:, 0])
    close(net.logits(BATCH)[:, 0], heads.sum(1))


def test_progressive_labels_and_value_by_hand():
    assert exceeds(torch.tensor([5.0, 35.0]), TIMES)[0].sum() == 0  # strictly above
    assert exceeds(torch.tensor([5.0, 35.0]), TIMES)[1].tolist() == [1] * 4 + [0] * 5

    def value(chances):
        return progressive_value(chances, TIMES, 5.0, 93.0).tolist()

    assert value(torch.zeros(1, 9)) == [5.0]
    assert value(torch.ones(1, 9)) == pytest.approx([93.0])
    steps = torch.ones(8, 9).tril()  # row i: exceeds t_0 .. t_i and no more
    middles = ((TIMES[:-1] + TIMES[1:]) / 2).tolist()
    assert value(steps) == pytest.approx(middles, rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=9, max_size=9))
def test_value_of_falling_chances_is_an_expectation(chances):
    p = torch.tensor(sorted(chances, reverse=True), dtype=torch.float64)
    t = TIMES.double()
    share = torch.cat([1 - p[:1], p[:-1] - p[1:], p[-1:]])
    points = torch.cat([t.new_tensor([5.0]), (t[:-1] + t[1:]) / 2, t.new_tensor([93.0])])
    close(progressive_value(p[None], t, 5.0, 93.0), (share @ points)[None])


def amounts(rows=600):
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 9, (rows, 2), generator=g)
    seconds = 12.0 * ids[:, 0] * torch.rand(rows, generator=g) * 2
    part = torch.arange(rows) % 3
    schema = Schema((Field("a", size=9), Field("b", size=9)), labels=("seconds",))
    return from_arrays("amounts", schema, ids, seconds[:, None], part)


@pytest.mark.parametrize("combine", ["sum", "separate", None])
def test_an_amount_starts_near_its_mean_and_is_learned(combine):
    log = amounts()
    torch.manual_seed(0)
    net = ProgressiveResFlow(log.schema, 4, combine=combine, widths=(8,), lr=0.01, std=0.1)
    net.start_at(log.train)
    mean = log.train.labels.mean()
    assert net.predict(log.test).mean().item() == pytest.approx(mean.item(), rel=0.1)
    constant = (log.test.labels - mean).square().mean().item()
    run = loop.fit(net, log, epochs=15, batch_size=64, precision="32-true", accelerator="cpu")
    assert run.test["mse"] < 0.9 * constant


def test_the_end_points_are_means_of_training_amounts():
    log = amounts()
    net = ProgressiveResFlow(log.schema, 4, widths=(8,)).start_at(log.train)
    y = log.train.labels[:, 0]
    assert net.ends.tolist() == pytest.approx([y[y <= 5].mean().item(), y[y > 80].mean().item()])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: model(widths=()), "widths"),
        (lambda: model(norm="layer"), "norm must be one of none, batch"),
        (lambda: model(combine="add"), "combine must be one of"),
        (lambda: ProgressiveResFlow(LOG.schema, combine="product"), "combine must be one of"),
        (lambda: ProgressiveResFlow(LOG.schema, thresholds=(5.0, 5.0)), "increasing"),
        (lambda: ProgressiveResFlow(LOG.schema, widths=(4,)).check(LOG), "must have one label"),
    ],
)
def test_refusals(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()
