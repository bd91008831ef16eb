"""SSR: the sheet's worked numbers, the facts derived there, and slow versions of every layer."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.ctr.ics import ICS, TopK, alpha_for, ics
from paperlab.ctr.ssr import SSR, SSRLayer, StaticRandomFilter, meeting_chance
from paperlab.data import Batch, Field, Schema
from torch.nn import functional as F

Z = torch.tensor([4.0, 2.0, 1.0, -1.0])


def seeded(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ICS ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("z", "alpha", "left", "threshold"),
    [
        (Z, [0.5], [3.125, 1.125, 0.125, 0], 0.875),
        (Z, [0.5, 0.5], [2.578125, 0.578125, 0, 0], 1.421875),
        (Z, [1.0, 1.0], [1.625, 0, 0, 0], 2.375),
        (torch.ones(4), [0.5, 0.5], [0.25] * 4, 0.75),
        (torch.ones(4), [1.0], [0] * 4, 1.0),
        (Z, [0.0], [4, 2, 1, 0], 0.0),
    ],
)
def test_worked_numbers(z, alpha, left, threshold):
    x, theta = ics(z, torch.tensor(alpha))
    assert x.tolist() == left and theta.item() == threshold


values = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=12)
rates = st.lists(st.floats(0, 1.5, width=32), min_size=1, max_size=5)


@settings(deadline=None, max_examples=30)
@given(values, rates)
def test_it_is_a_soft_threshold(z, alpha):
    z, alpha = torch.tensor(z, dtype=torch.float64), torch.tensor(alpha, dtype=torch.float64)
    x, theta = ics(z, alpha)
    torch.testing.assert_close(x, (z.relu() - theta).relu(), rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(values, rates, st.randoms(use_true_random=False))
def test_scale_order_and_support(z, alpha, random):
    z, alpha = torch.tensor(z, dtype=torch.float64), torch.tensor(alpha, dtype=torch.float64)
    x, _ = ics(z, alpha)
    tripled, _ = ics(3 * z, alpha)
    torch.testing.assert_close(tripled, 3 * x, rtol=1e-12, atol=1e-12)
    order = torch.tensor(random.sample(range(len(z)), len(z)))
    torch.testing.assert_close(ics(z[order], alpha)[0], x[order], rtol=1e-12, atol=1e-12)
    steps = [ics(z, alpha[:t])[0] for t in range(len(alpha) + 1)]
    for before, after in pairwise(steps):
        assert after.sum() <= before.sum()
        assert not ((after > 0) & (before == 0)).any()
    survivors, others = z[x > 0], z[x == 0]
    if len(survivors) and len(others):
        assert survivors.min() >= others.max()


def test_leading_dimensions_are_separate_samples_and_views():
    z, alpha = seeded(5, 3, 8), seeded(3, 4, seed=1).abs()
    x, theta = ics(z, alpha)
    for b in range(5):
        for v in range(3):
            one, threshold = ics(z[b, v], alpha[v])
            torch.testing.assert_close(x[b, v], one)
            torch.testing.assert_close(theta[b, v], threshold)


def test_the_largest_survives_any_rate_below_one():
    z = seeded(500, 16)
    z[:, 0] = z[:, 0].abs() + 1e-3  # at least one positive coordinate
    assert (ics(z, torch.full((5,), 0.999))[0].amax(1) > 0).all()


@pytest.mark.parametrize(
    ("steps", "alpha", "zeros"),
    [
        (5, 0.0, 0.50),
        (5, 0.1, 0.57),
        (5, 0.3, 0.68),
        (5, 0.5, 0.75),
        (5, 1.0, 0.84),
        (1, 1.0, 0.65),
    ],
)
def test_sparsity_on_gaussian_input(steps, alpha, zeros):
    x, _ = ics(seeded(4000, 128), torch.full((steps,), alpha))
    assert (x == 0).float().mean().item() == pytest.approx(zeros, abs=0.0055)


@pytest.mark.parametrize(("alpha", "ratio", "spread"), [(0.1, 0.454, 0.004), (0.5, 1.67, 0.05)])
def test_five_steps_are_almost_one_step_at_a_bigger_rate(alpha, ratio, spread):
    z = seeded(4000, 128)
    found = ics(z, torch.full((5,), alpha))[1] / z.relu().mean(1)
    assert found.mean().item() == pytest.approx(ratio, rel=0.01)
    assert found.std().item() == pytest.approx(spread, rel=0.2)


def test_alpha_for_reaches_the_same_inhibition_with_any_number_of_steps():
    assert alpha_for(0.7, 1) == pytest.approx(0.7, abs=1e-5)  # theta = alpha mu(0)
    z = seeded(4000, 128, seed=5, dtype=torch.float64)
    for total in (0.3, 1.5):
        for steps in (2, 5):
            theta = ics(z, torch.full((steps,), alpha_for(total, steps)).double())[1]
            assert (theta / z.relu().mean(1)).mean().item() == pytest.approx(total, rel=0.01)
    with pytest.raises(ValueError, match="total must be above 0"):
        alpha_for(0.0, 5)


def test_gradients_flow_through_the_mean():
    z, alpha = seeded(4, 2, 6, dtype=torch.float64), torch.full((2, 3), 0.3, dtype=torch.float64)
    _, theta = ics(z, alpha)
    assert (z.relu() - theta[..., None]).abs().min() > 1e-3  # away from the kinks
    assert torch.autograd.gradcheck(ics, (z.requires_grad_(), alpha.requires_grad_()))
    # d theta / d z_j of the first step is alpha / N for a live coordinate: no stop-gradient
    z = Z.clone().requires_grad_()
    ics(z, torch.tensor([0.5]))[1].backward()
    assert z.grad.tolist() == [0.125, 0.125, 0.125, 0]


def test_ics_module_scales_by_gamma_and_keeps_alpha_positive():
    layer = ICS(4, views=2, steps=3, alpha0=0.2)
    torch.testing.assert_close(layer.alpha, torch.full((2, 3), 0.2))
    with torch.no_grad():
        layer.gamma[1] = 2
        assert torch.equal(layer(Z.expand(1, 2, 4))[0, 1], 2 * layer(Z.expand(1, 2, 4))[0, 0])
        layer.rho -= 50
    assert (layer.alpha >= 0).all()
    layer(seeded(8, 2, 4)).sum().backward()
    assert layer.rho.grad is not None and layer.gamma.grad.abs().sum() > 0


def test_alpha_can_be_free_fixed_or_absent():
    free = ICS(4, alpha0=-0.1, constrain=False)
    assert torch.equal(free.alpha, torch.full((1, 5), -0.1)) and free.rho.requires_grad
    assert not ICS(4, learn_alpha=False).rho.requires_grad
    relu = ICS(4, views=2, alpha0=0.0)
    assert not relu.rho.requires_grad and not relu.alpha.any()
    assert torch.equal(relu(Z.expand(3, 2, 4)), Z.relu().expand(3, 2, 4))


def test_inspect_counts_zeros_thresholds_and_the_dead():
    layer = ICS(4, views=2, steps=1, alpha0=0.5)
    found = layer.inspect(torch.stack([Z, -Z.abs()])[None])
    assert found.sparsity.tolist() == [[0.25, 1.0]]
    torch.testing.assert_close(found.threshold, torch.tensor([[0.875, 0.0]]))
    assert found.dead == 0.5


# Filters -----------------------------------------------------------------------------------------


def test_static_filter_reads_what_it_drew_and_nothing_else():
    picks = StaticRandomFilter(20, 3, 6, seed=7)
    assert not list(picks.parameters())
    assert all(len(set(row)) == 6 for row in picks.index.tolist())
    assert len({tuple(row) for row in picks.index.tolist()}) == 3
    assert torch.equal(picks.index, StaticRandomFilter(20, 3, 6, seed=7).index)
    assert torch.equal(picks.index[1:], StaticRandomFilter(20, 2, 6, seed=8).index)  # seed + view
    x = seeded(5, 20)
    assert torch.equal(picks(x), x[:, picks.index])
    for j in set(range(20)) - set(picks.index.flatten().tolist()):
        changed = x.clone()
        changed[:, j] += 1
        assert torch.equal(picks(changed), picks(x))


def test_static_filter_gradient_counts_the_views_that_saw_a_coordinate():
    picks, x = StaticRandomFilter(10, 4, 6), seeded(3, 10).requires_grad_()
    picks(x).sum().backward()
    assert torch.equal(x.grad, picks.index.flatten().bincount(minlength=10).float().expand(3, -1))


def test_a_view_wider_than_the_input_takes_whole_permutations():
    index = StaticRandomFilter(4, 2, 10).index
    assert index.shape == (2, 10)
    for row in index.tolist():
        assert sorted(row[:4]) == sorted(row[4:8]) == [0, 1, 2, 3] and len(set(row[8:])) == 2


def test_meeting_chance_worked_and_counted():
    # 2 fields of 1 coordinate among 3, views of 2: of 3 equally likely views 1 holds both
    assert meeting_chance(3, 1, views=1, width=2) == pytest.approx(1 / 3)
    assert meeting_chance(3, 1, views=2, width=2) == pytest.approx(1 - (2 / 3) ** 2)
    assert meeting_chance(4, 2, views=1, width=1) == 0 and meeting_chance(4, 2, 1, 8) == 1
    draws = [StaticRandomFilter(20, 3, 6, seed=10 * k).index // 4 for k in range(2000)]
    counted = [((i == 0).any(1) & (i == 1).any(1)).any().item() for i in draws]
    assert sum(counted) / 2000 == pytest.approx(meeting_chance(5, 4, 3, 6), abs=0.04)


def test_static_indices_are_saved_with_the_model():
    model, other = (SSR(SCHEMA, "static", dim=4, views=2, width=5, seed=s) for s in (0, 1))
    batch = BATCH
    assert not torch.equal(model.layers[0].filter.index, other.layers[0].filter.index)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(batch), other(batch))


def test_layers_and_views_are_seeded_as_in_the_released_code():
    model = SSR(SCHEMA, "static", dim=4, views=3, width=5, layers=2, seed=2)
    for layer, d_in in enumerate((model.d_in, 15)):
        for view in range(3):
            draw = torch.Generator().manual_seed(2_000_000 + 1000 * layer + view)
            want = torch.randperm(d_in, generator=draw)[:5]
            assert torch.equal(model.layers[layer].filter.index[view], want)


def test_top_k_masks_in_place_and_passes_the_gradient():
    z = torch.tensor([[[0.5, 3.0, -9.0, 2.0]]], requires_grad=True)
    out = TopK(4, keep=0.5)(z)
    assert out.tolist() == [[[0, 3, 0, 2]]]
    (out * torch.tensor([1.0, 2, 3, 4])).sum().backward()
    assert z.grad.tolist() == [[[1, 2, 0, 4]]]  # past the mask, not past the ReLU


def test_controls_are_what_they_say():
    x = seeded(6, 10)

    def layer(kind, **options):
        return SSRLayer(kind, 10, 3, 4, **options)

    none = layer("none", star=5).filter
    W = none.project.weight.view(3, 5, 10)
    torch.testing.assert_close(none(x), torch.stack([x @ w.T for w in W], 1))
    soft = layer("soft", star=5).filter
    gates, inputs = (p.weight.view(3, 5, 10) for p in (soft.project, soft.value))
    want = [torch.sigmoid(x @ g.T) * (x @ w.T) for g, w in zip(gates, inputs, strict=True)]
    torch.testing.assert_close(soft(x), torch.stack(want, 1))
    dense = layer("dense")
    assert torch.equal(dense.filter(x), x[:, None].expand(-1, 3, -1)) and dense.training
    assert dense.fusion[0].weight.shape == (3, 10, 4)
    dropout = layer("dropout", keep=0.25)
    assert dropout.fusion[0].weight.shape == (3, 10, 4)
    seen = dropout.filter(torch.ones(4000, 10))
    assert seen.unique().tolist() == [0, 4] and seen.mean().item() == pytest.approx(1, abs=0.03)
    assert not torch.equal(seen[:, 0], seen[:, 1])  # each view drops its own
    dropout.eval()
    assert torch.equal(dropout.filter(x), x[:, None].expand(-1, 3, -1))


# Layers ------------------------------------------------------------------------------------------


def slow(layer, x):
    """The paper's equations, one view after the other."""
    h = layer.filter(x)
    views = []
    for i in range(h.shape[1]):
        z = h[:, i]
        for dense in layer.fusion:
            z = F.gelu(z @ dense.weight[i] + dense.bias[i])
        z = h[:, i] + z if layer.residual else z
        views.append(F.layer_norm(z, z.shape[1:], layer.norm.weight[i], layer.norm.bias[i]))
    return torch.stack(views).mean(0) if layer.last else torch.cat(views, 1)


def stirred(layer, seed=3):
    """Parameters away from their initial zeros and ones, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator)
    return layer


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("static", {}),
        ("static", {"residual": True, "n_hidden": 2}),
        ("dynamic", {"star": 7}),
        ("dynamic", {"gate": True, "residual": True}),
        ("topk", {}),
        ("none", {}),
        ("dense", {}),
    ],
)
def test_layer_equals_a_loop_over_views(kind, options, last):
    layer = stirred(SSRLayer(kind, 12, 3, 5, last=last, **options))
    x = seeded(6, 12)
    assert layer(x).shape == (6, 5 if last else 15) and layer.d_out == layer(x).shape[1]
    torch.testing.assert_close(layer(x), slow(layer, x), rtol=1e-5, atol=1e-6)


def test_fusion_is_a_dense_layer_with_a_block_diagonal_weight():
    layer = stirred(SSRLayer("dynamic", 12, 3, 5, 7))
    x = seeded(6, 12)
    dense, norm = layer.fusion[0], layer.norm
    h = layer.filter(x).flatten(1)  # concatenated views
    z = F.gelu(h @ torch.block_diag(*dense.weight) + dense.bias.flatten()).view(6, 3, 5)
    want = F.layer_norm(z, (5,)) * norm.weight + norm.bias
    torch.testing.assert_close(layer(x), want.flatten(1), rtol=1e-5, atol=1e-6)


def test_dynamic_filter_is_projection_competition_and_the_released_gate():
    layer = stirred(SSRLayer("dynamic", 12, 3, 5, gate=True, alpha0=0.3, steps=2))
    f, x = layer.filter, seeded(6, 12)
    for i in range(3):
        rows = slice(5 * i, 5 * i + 5)
        y, _ = ics(x @ f.project.weight[rows].T, f.select.alpha[i])
        want = f.select.gamma[i] * y * (x @ f.value.weight[rows].T)
        torch.testing.assert_close(f(x)[:, i], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("b", "d", "star", "T", "d_in"), [(3, 5, 7, 4, 12), (8, 4, 4, 5, 20)])
def test_parameters_of_a_layer(b, d, star, T, d_in):
    def count(layer):
        return sum(p.numel() for p in layer.parameters())

    static = SSRLayer("static", d_in, b, d)
    assert count(static) == b * (d**2 + d) + 2 * b * d
    dynamic = SSRLayer("dynamic", d_in, b, d, star, steps=T)
    assert count(dynamic) == b * (d_in * star + star * d + d + T + star) + 2 * b * d


@pytest.mark.parametrize(("d_in", "millions"), [(368, 0.97), (624, 1.23), (288, 0.89)])
@pytest.mark.parametrize(
    "options",
    [{"views": 8, "width": 64, "gate": True}, {"views": 16, "width": 32, "star": 64}],
    ids=["gate", "plain"],
)
def test_both_readings_of_the_papers_sizes_give_its_parameter_counts(d_in, millions, options):
    schema = Schema(tuple(Field(f"f{k}", size=2) for k in range(d_in // 16)))
    with torch.device("meta"):
        dense = SSR(schema, "dynamic", **options).count_parameters()["dense"]
    assert dense / 1e6 == pytest.approx(millions, abs=0.006)


def test_one_view_of_everything_is_a_dense_layer():
    layer = stirred(SSRLayer("static", 8, 1, 8))
    x, dense, norm = seeded(5, 8), layer.fusion[0], layer.norm
    linear = F.linear(x[:, layer.filter.index[0]], dense.weight[0].T, dense.bias[0])
    want = F.layer_norm(F.gelu(linear), (8,), norm.weight[0], norm.bias[0])
    torch.testing.assert_close(layer(x), want, rtol=1e-5, atol=1e-6)


def test_without_inhibition_each_view_is_an_mlp():
    layer = SSRLayer("dynamic", 10, 3, 4, 6, alpha0=0.0).double()
    x = seeded(5, 10).double()
    views = []
    for i in range(3):
        mlp = torch.nn.Sequential(
            torch.nn.Linear(10, 6, bias=False),
            torch.nn.ReLU(),
            torch.nn.Linear(6, 4),
            torch.nn.GELU(),
            torch.nn.LayerNorm(4),
        ).double()  # LayerNorm over 4 units magnifies what float32 rounds
        with torch.no_grad():
            mlp[0].weight.copy_(layer.filter.project.weight[6 * i : 6 * i + 6])
            mlp[2].weight.copy_(layer.fusion[0].weight[i].T)
            mlp[2].bias.copy_(layer.fusion[0].bias[i])
        views.append(mlp(x))
    torch.testing.assert_close(layer(x), torch.cat(views, 1), rtol=1e-9, atol=1e-9)


def test_weights_start_glorot_normal_view_by_view():
    layer = SSRLayer("dynamic", 200, 4, 100, 150)
    for weight in layer.filter.project.weight.chunk(4):
        assert weight.std().item() == pytest.approx(math.sqrt(2 / 350), rel=0.03)
    for weight in layer.fusion[0].weight:
        assert weight.std().item() == pytest.approx(math.sqrt(2 / 250), rel=0.03)


# The model ---------------------------------------------------------------------------------------

SCHEMA = Schema(tuple(Field(f"f{k}", size=9) for k in range(6)))
BATCH = Batch(
    torch.arange(48, dtype=torch.int32).view(8, 6) % 9, torch.zeros(8, 0), torch.zeros(8, 1)
)


def test_the_model_stacks_layers_and_reads_the_mean_of_the_last_views():
    model = SSR(SCHEMA, "dynamic", dim=4, views=2, width=5, star=6, layers=3)
    x = model.embed(BATCH).flatten(1)
    for layer in model.layers[:2]:
        x = slow(layer, x)
        assert x.shape == (8, 10)
    x = slow(model.layers[2], x)
    assert x.shape == (8, 5)
    torch.testing.assert_close(model(BATCH), model.head(x).squeeze(1), rtol=1e-5, atol=1e-6)
    seen = model.filtered(BATCH)
    assert [h.shape for h in seen] == [(8, 2, 6)] * 3
    assert torch.equal(seen[0], model.layers[0].filter(model.embed(BATCH).flatten(1)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"kind": "sparse"},
            "kind must be one of static, dynamic, none, topk, soft, dense, dropout",
        ),
        ({"kind": "static", "star": 8}, "star is the width"),
        ({"kind": "static", "gate": True}, "gate multiplies ICS's survivors"),
        ({"star": 8, "residual": True}, "residual needs a filter as wide as a view: 8 is not 4"),
        ({"kind": "dense", "star": 8}, "star is the width"),
        ({"kind": "dropout", "residual": True}, "residual needs a filter as wide as a view"),
        ({"alpha0": -0.1}, "alpha0 must be 0 or more"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"views": 0}, "views must be at least 1"),
        ({"n_hidden": 0}, "n_hidden must be at least 1"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"kind": "topk", "keep": 0.0}, r"keep must be in \(0, 1\]"),
    ],
)
def test_bad_options_say_what_is_right(options, says):
    with pytest.raises(ValueError, match=says) as error:
        SSR(SCHEMA, **{"dim": 4, "views": 2, "width": 4, **options})
    assert "\n" not in str(error.value)


def test_an_unknown_option_is_an_error_for_every_kind():
    for kind in ("static", "dynamic"):
        with pytest.raises(TypeError, match="stepps"):
            SSRLayer(kind, 8, 2, 4, stepps=3)
