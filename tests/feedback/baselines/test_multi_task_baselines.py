"""Multi-task baselines against slow versions written row by row, with numpy."""

import numpy as np
import pytest
import torch
from paperlab import loop
from paperlab.feedback.baselines.aitm import AITM
from paperlab.feedback.baselines.linear import LogisticRegression
from paperlab.feedback.baselines.mmoe import MMoE
from paperlab.feedback.baselines.ple import PLE
from paperlab.feedback.baselines.shared_bottom import SharedBottom
from paperlab.feedback.worlds.funnel import funnel

LOG = funnel(2_000, b=-1.0, held=500, seed=0)
SMALL = {
    "SharedBottom": lambda **o: SharedBottom(LOG.schema, 4, bottom=(6,), widths=(5,), **o),
    "MMoE": lambda **o: MMoE(LOG.schema, 4, experts=3, expert=(6,), widths=(5,), **o),
    "PLE": lambda **o: PLE(LOG.schema, 4, levels=3, own=2, shared=1, expert=(6,), widths=(5,), **o),
    "AITM": lambda **o: AITM(LOG.schema, 4, widths=(6, 5), **o),
    "LogisticRegression": lambda **o: LogisticRegression(LOG.schema, 4, **o),
}


def built(name):
    torch.manual_seed(3)
    return SMALL[name]().double()


def features(model):
    torch.manual_seed(5)
    return torch.randn(4, model.d_in, dtype=torch.float64)


def through(mlp, x):
    """A row through Linear and ReLU layers."""
    for layer in mlp:
        x = np.maximum(x, 0) if isinstance(layer, torch.nn.ReLU) else affine(layer, x)
    return x


def affine(layer, x):
    y = layer.weight.detach().numpy() @ x
    return y if layer.bias is None else y + layer.bias.detach().numpy()


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def slow_shared_bottom(m, x):
    h = through(m.bottom, x)
    return [affine(out, through(t, h))[0] for t, out in zip(m.towers, m.out, strict=True)]


def slow_mmoe(m, x):
    experts = [through(f, x) for f in m.experts]
    found = []
    for gate, tower, out in zip(m.gates, m.towers, m.out, strict=True):
        g = softmax(affine(gate, x))
        mixed = sum(weight * expert for weight, expert in zip(g, experts, strict=True))
        found.append(affine(out, through(tower, mixed))[0])
    return found


def slow_ple(m, x):
    states = [x, x, x]  # click, order, shared
    for depth, level in enumerate(m.levels):
        own = [[through(f, states[k]) for f in level.own[k]] for k in range(2)]
        shared = [through(f, states[2]) for f in level.shared]
        new = []
        for k in range(2):
            g = softmax(affine(level.gates[k], states[k]))
            new.append(sum(a * b for a, b in zip(g, own[k] + shared, strict=True)))
        if depth < len(m.levels) - 1:
            g = softmax(affine(level.gates[2], states[2]))
            new.append(sum(a * b for a, b in zip(g, own[0] + own[1] + shared, strict=True)))
        states = new
    return [affine(m.out[k], through(m.towers[k], states[k]))[0] for k in range(2)]


def slow_aitm(m, x):
    z = through(m.towers[0], x)
    p, q = through(m.passes[0], z), through(m.towers[1], x)
    value, key, query = m.attention[0]
    score = [affine(key, u) @ affine(query, u) / np.sqrt(len(u)) for u in (p, q)]
    weight = softmax(np.array(score))
    joined = weight[0] * affine(value, p) + weight[1] * affine(value, q)
    return [affine(m.out[0], z)[0], affine(m.out[1], joined)[0]]


def slow_logistic_regression(m, x):
    return [affine(out, x)[0] for out in m.out]


SLOW = {
    "SharedBottom": slow_shared_bottom,
    "MMoE": slow_mmoe,
    "PLE": slow_ple,
    "AITM": slow_aitm,
    "LogisticRegression": slow_logistic_regression,
}


@pytest.mark.parametrize("name", SLOW)
def test_heads_are_those_of_the_slow_version(name):
    model = built(name)
    x = features(model)
    slow = [SLOW[name](model, row.numpy()) for row in x]
    np.testing.assert_allclose(model.heads(x).detach(), slow, atol=1e-10)


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_is_trained_by_the_labels(name):
    torch.manual_seed(0)
    model = SMALL[name](std=0.3)
    model.loss(LOG.train.take(slice(None))).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None]
    assert not idle


@pytest.mark.parametrize("name", SMALL)
def test_a_baseline_learns_both_labels(name):
    torch.manual_seed(0)
    model = SMALL[name](lr=0.01, std=0.1).start_at(LOG.train)
    found = loop.fit(model, LOG, epochs=6, batch_size=128, precision="32-true", accelerator="cpu")
    assert found.test["auc_click"] > 0.6 and found.test["auc_order"] > 0.6


def test_published_sizes():
    dense = {c.__name__: c(LOG.schema).count_parameters()["dense"] for c in (MMoE, AITM)}
    # 8 experts 64 -> 16, 2 gates 64 -> 8, 2 towers 16 -> 8 -> 1
    assert dense["MMoE"] == 8 * (64 * 16 + 16) + 2 * 64 * 8 + 2 * (16 * 8 + 8 + 8 + 1)
    towers = 64 * 128 + 128 + 128 * 64 + 64 + 64 * 32 + 32
    assert dense["AITM"] == 2 * towers + 4 * (32 * 32 + 32) + 2 * 33


def test_the_calibrator_counts_rises_only():
    model = SMALL["AITM"]()
    batch = LOG.train.take(slice(100))
    with torch.no_grad():
        for layer, bias in zip(model.out, (-1.0, 2.0), strict=True):
            layer.weight.zero_()
            layer.bias.fill_(bias)
        model.constraint = 0.0
        plain = model.loss(batch)
        model.constraint = 0.6
        rise = torch.sigmoid(torch.tensor(2.0)) - torch.sigmoid(torch.tensor(-1.0))
        assert model.loss(batch).item() == pytest.approx((plain + 0.6 * rise).item(), rel=1e-5)
        model.out[1].bias.fill_(-3.0)
        falls = model.loss(batch)
        model.constraint = 0.0
        assert falls.item() == model.loss(batch).item()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: MMoE(LOG.schema, experts=0), "experts must be at least 1"),
        (lambda: PLE(LOG.schema, levels=0), "levels must be at least 1"),
        (lambda: SharedBottom(LOG.schema, bottom=()), "bottom"),
        (lambda: AITM(LOG.schema, constraint=-1.0), "constraint must be at least 0"),
    ],
)
def test_refusals(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()


def test_fields_add_up_in_logistic_regression():
    """The effect of one field's value is the same whatever the other fields' values."""
    torch.manual_seed(0)
    model = SMALL["LogisticRegression"](std=0.5)
    batch = LOG.train.take(slice(2))
    one, two = batch.ids.clone(), batch.ids.clone()
    one[:, 0], two[:, 0] = 1, 3
    change = model.logits(batch._replace(ids=two)) - model.logits(batch._replace(ids=one))
    assert torch.allclose(change[0], change[1], atol=1e-6) and change.abs().max() > 1e-3
