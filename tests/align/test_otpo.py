"""OTPO: the sheet's worked numbers, closed forms and limits, POT as an independent solver, faults."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.align.otpo import (
    rescale,
    token_states,
    token_weights,
    transport_cost,
    unbalanced_sinkhorn,
    uniform_weights,
)

F64 = torch.float64
H_C = torch.tensor([[0, 0], [3, 0], [0, 4], [1, 1], [2, 2]], dtype=F64)[None]
H_R = torch.tensor([[0, 0], [3, 1], [5, 5]], dtype=F64)[None]
Q_C = torch.tensor([[0.5, -0.1, 0.2, 0.3, 0.2]], dtype=F64)
Q_R = torch.tensor([[-0.2, 0.1, -0.4]], dtype=F64)


def full(h):
    return torch.ones(h.shape[:2], dtype=torch.bool)


def seeded(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plan_of(cost, reg, reg_m, **options):
    """The plan of one problem with masses 1, solved tightly."""
    cost = torch.as_tensor(cost, dtype=F64)[None]
    ones = torch.ones(1, cost.shape[1], dtype=F64), torch.ones(1, cost.shape[2], dtype=F64)
    return unbalanced_sinkhorn(cost, *ones, reg, reg_m, tolerance=1e-13, **options)[0]


# worked numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reg", "mass", "chosen"),
    [
        (1.0, 3.444545, [0.688527, 0.688527, 0.622946]),
        (0.1, 2.139577, [0.893669, 0.893669, 0.212662]),
        (0.01, None, [0.954396, 0.954396, 0.091207]),
    ],
)
@pytest.mark.parametrize("domain", ["scaling", "log"])
def test_worked_plans(reg, mass, chosen, domain):
    plan = plan_of([[0, 1], [1, 0], [0.5, 0.5]], reg, 0.2, domain=domain)
    if mass is not None:
        assert plan.sum().item() == pytest.approx(mass, abs=1e-6)
    w_c, w_r = rescale(
        plan.sum(1)[None], plan.sum(0)[None], full(plan[None]), full(plan.T[None]), "min"
    )
    assert w_c[0].tolist() == pytest.approx(chosen, abs=1e-6)
    assert w_r[0].tolist() == pytest.approx([1, 1], abs=1e-9)


@pytest.mark.parametrize(
    ("m", "n", "c", "reg", "entry"),
    [(3, 2, 0.7, 1.0, 0.46955697), (4, 4, 0.3, 0.1, 0.18104032)],
)
def test_a_constant_cost_has_a_closed_form(m, n, c, reg, entry):
    f, k = 0.2 / (0.2 + reg), -c / reg
    log_u = (-f * (math.log(n) + k) + f**2 * (math.log(m) + k)) / (1 - f**2)
    log_v = -f * (math.log(m) + k + log_u)
    assert math.exp(log_u + log_v + k) == pytest.approx(entry, abs=1e-8)
    plan = plan_of(torch.full((m, n), c), reg, 0.2)
    assert plan.flatten().tolist() == pytest.approx([entry] * (m * n), abs=1e-8)


@pytest.mark.parametrize(
    ("reg", "chosen", "rejected", "delta", "loss"),
    [
        (
            1.0,
            [0.617340, 0.615050, 0.515956, 0.622747, 0.628907],
            [1.128580, 1.107469, 0.763951],
            1.083511,
            0.640438,
        ),
        (
            0.1,
            [0.948280, 0.648728, 0.257677, 0.565169, 0.580146],
            [1.408818, 1.265297, 0.325885],
            1.031971,
            0.642879,
        ),
    ],
)
def test_worked_weights_and_loss(reg, chosen, rejected, delta, loss):
    cost = transport_cost(H_C, H_R, full(H_C), full(H_R))
    assert cost.amax().item() == 1 and cost[0, 0, 2].item() == pytest.approx(1)  # (0,0) to (5,5)
    got = token_weights(H_C, H_R, full(H_C), full(H_R), reg=reg)
    assert got.chosen[0].tolist() == pytest.approx(chosen, abs=2e-6)
    assert got.rejected[0].tolist() == pytest.approx(rejected, abs=2e-6)
    found = (got.chosen * Q_C).sum() - (got.rejected * Q_R).sum()
    assert found.item() == pytest.approx(delta, abs=2e-6)
    assert -torch.nn.functional.logsigmoid(0.1 * found).item() == pytest.approx(loss, abs=1e-6)
    w_c, w_r = uniform_weights(full(H_C), full(H_R))
    assert ((w_c * Q_C).sum() - (w_r * Q_R).sum()).item() == pytest.approx(1.16, abs=1e-6)
    w_c, w_r = uniform_weights(full(H_C), full(H_R), budget="own")
    assert ((w_c * Q_C).sum() - (w_r * Q_R).sum()).item() == pytest.approx(1.6, abs=1e-6)


# identities and limits ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 7), st.integers(1, 7), st.sampled_from([1.0, 0.1, 0.03]), st.integers(0, 99))
def test_equal_budgets_the_pair_view_and_the_swap(m, n, reg, seed):
    h_c, h_r = seeded(1, m, 4, seed=seed), seeded(1, n, 4, seed=seed + 100)
    q_c, q_r = seeded(1, m, seed=seed + 200), seeded(1, n, seed=seed + 300)
    got = token_weights(h_c, h_r, full(h_c), full(h_r), reg=reg)
    assert got.chosen.sum().item() == pytest.approx(min(m, n), abs=1e-9)
    assert got.rejected.sum().item() == pytest.approx(min(m, n), abs=1e-9)
    by_pair = (min(m, n) * got.plan / got.mass * (q_c[:, :, None] - q_r[:, None])).sum()
    by_token = (got.chosen * q_c).sum() - (got.rejected * q_r).sum()
    assert by_pair.item() == pytest.approx(by_token.item(), abs=1e-10)
    # The rounds start from one side: the swapped plan is the transpose to the tolerance only.
    swapped = token_weights(h_r, h_c, full(h_r), full(h_c), reg=reg)
    torch.testing.assert_close(swapped.plan.mT, got.plan, rtol=3e-6, atol=0)


def test_a_constant_cost_leaves_the_uniform_budget_and_with_equal_lengths_dpo():
    h_c, h_r = torch.zeros(1, 5, 3, dtype=F64), torch.ones(1, 3, 3, dtype=F64)
    got, uniform = (
        token_weights(h_c, h_r, full(h_c), full(h_r)),
        uniform_weights(full(h_c), full(h_r)),
    )
    torch.testing.assert_close(got.chosen, uniform[0].double(), rtol=0, atol=1e-7)
    assert got.chosen[0].tolist() == pytest.approx([3 / 5] * 5, abs=1e-12)
    assert got.rejected[0].tolist() == pytest.approx([1] * 3, abs=1e-12)
    same = token_weights(h_c[:, :3], h_r, full(h_r), full(h_r))
    assert same.chosen[0].tolist() == pytest.approx([1] * 3, abs=1e-12)
    # Distance zero everywhere, too: nothing is divided by zero.
    assert token_weights(h_r, h_r, full(h_r), full(h_r)).chosen.tolist() == [[1, 1, 1]]


def test_limits_of_both_regularisers():
    cost = seeded(6, 4).abs()
    no_marginals = plan_of(cost, 0.3, 1e-10)
    torch.testing.assert_close(no_marginals, torch.exp(-cost / 0.3), rtol=1e-8, atol=0)
    for reg, reg_m in ((1e5, 0.2), (0.3, 300.0)):
        plan = plan_of(cost, reg, reg_m)
        rows = plan.sum(1) * 6 / plan.sum()
        assert rows.tolist() == pytest.approx([1] * 6, rel=1e-3)
    torch.testing.assert_close(plan_of(7 * cost, 0.7, 1.4), plan_of(cost, 0.1, 0.2))


def test_the_plan_satisfies_the_optimality_conditions():
    """d/dGamma: C + reg log G + reg_m log(row / a) + reg_m log(col / b) = 0 in every entry."""
    cost, a, b = seeded(1, 5, 7).abs(), seeded(1, 5, seed=1).exp(), seeded(1, 7, seed=2).exp()
    plan = unbalanced_sinkhorn(cost, a, b, 0.2, 0.4, tolerance=1e-13)
    rows, columns = plan.sum(2, keepdim=True), plan.sum(1, keepdim=True)
    slope = cost + 0.2 * plan.log() + 0.4 * (rows / a[:, :, None]).log()
    slope = slope + 0.4 * (columns / b[:, None]).log()
    assert slope.abs().max() < 1e-11


@pytest.mark.parametrize("reg", [1.0, 0.1, 0.02, 0.002])
def test_both_domains_and_both_precisions_agree(reg):
    cost = seeded(3, 20, 30).abs()
    cost = cost / cost.amax((1, 2), keepdim=True)
    a, b = torch.ones(3, 20, dtype=F64), torch.ones(3, 30, dtype=F64)
    auto = unbalanced_sinkhorn(cost.float(), a.float(), b.float(), reg, 0.2, tolerance=1e-7)
    logs = unbalanced_sinkhorn(cost, a, b, reg, 0.2, tolerance=1e-11, domain="log")
    # Rounding of C / reg in float32 is what is left.
    torch.testing.assert_close(auto.double(), logs, rtol=2e-6 / reg + 1e-5, atol=1e-7)
    assert auto.isfinite().all()


@pytest.mark.parametrize("reg", [1.0, 0.1, 0.03])
def test_python_optimal_transport_finds_the_same_plans(reg):
    ot = pytest.importorskip("ot", reason="POT is not installed: pip install pot")
    h_c, h_r = seeded(4, 30, 16), seeded(4, 24, 16, seed=1)
    cost = transport_cost(h_c, h_r, full(h_c), full(h_r))
    mine = unbalanced_sinkhorn(
        cost, torch.ones(4, 30, dtype=F64), torch.ones(4, 24, dtype=F64), reg, 0.2, tolerance=1e-13
    )
    for c, plan in zip(cost, mine, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that its entropy ignores a reference plan
            theirs = ot.unbalanced.sinkhorn_unbalanced(
                torch.ones(30, dtype=F64).numpy(),
                torch.ones(24, dtype=F64).numpy(),
                c.numpy(),
                reg,
                0.2,
                method="sinkhorn_stabilized",
                reg_type="entropy",
                stopThr=1e-13,
            )
        torch.testing.assert_close(torch.as_tensor(theirs), plan, rtol=1e-8, atol=1e-12)


# masks, options, gradients -----------------------------------------------------------------------


@pytest.mark.parametrize("cost_norm", ["valid_max", "median"])
@pytest.mark.parametrize("place", ["right", "left", "both"])
def test_padding_changes_nothing(cost_norm, place):
    h_c, h_r = seeded(2, 6, 4), seeded(2, 4, 4, seed=1)
    plain = token_weights(h_c, h_r, full(h_c), full(h_r), cost_norm=cost_norm)
    left, right = {"right": (0, 5), "left": (5, 0), "both": (2, 3)}[place]
    pad = torch.nn.functional.pad
    wide = [pad(h, (0, 0, left, right), value=99.0) for h in (h_c, h_r)]
    masks = [pad(full(h), (left, right)) for h in (h_c, h_r)]
    got = token_weights(*wide, *masks, cost_norm=cost_norm)
    torch.testing.assert_close(got.chosen[:, left : left + 6], plain.chosen, rtol=1e-9, atol=0)
    torch.testing.assert_close(got.rejected[:, left : left + 4], plain.rejected, rtol=1e-9, atol=0)
    assert not got.chosen[~masks[0]].any() and not got.rejected[~masks[1]].any()
    assert got.plan.shape == (2, 11, 9)


def test_a_batch_of_different_lengths_is_its_pairs_one_by_one():
    h_c, h_r = seeded(3, 8, 4), seeded(3, 7, 4, seed=1)
    m_c = torch.arange(8) < torch.tensor([[8], [3], [5]])
    m_r = torch.arange(7) < torch.tensor([[2], [7], [6]])
    got = token_weights(h_c, h_r, m_c, m_r)
    for k, (m, n) in enumerate(((8, 2), (3, 7), (5, 6))):
        one = [h_c[k : k + 1, :m], h_r[k : k + 1, :n]]
        alone = token_weights(*one, full(one[0]), full(one[1]))
        torch.testing.assert_close(got.plan[k, :m, :n], alone.plan[0], rtol=2e-6, atol=0)


def test_the_released_normalisation_counts_masked_rows_as_zero_vectors():
    """Far from the origin, and close together: padding alone flattens the weights."""
    near = seeded(1, 5, 4) + 100
    far_c, far_r = near, near[:, :4] + seeded(1, 4, 4, seed=1)
    pad = torch.nn.functional.pad
    masks = pad(full(far_c), (0, 1)), pad(full(far_r), (0, 1))
    wide = pad(far_c, (0, 0, 0, 1)), pad(far_r, (0, 0, 0, 1))
    # The slow version: the whole matrix with zero vectors, as the trainer builds it.
    rows = [(h * m[..., None]).squeeze(0) for h, m in zip(wide, masks, strict=True)]
    slow = torch.cdist(*rows, compute_mode="donot_use_mm_for_euclid_dist") + 1e-6
    slow = slow / slow.max().clamp_min(1)
    a, b = masks[0].double(), masks[1].double()
    expected = unbalanced_sinkhorn(slow[None], a, b, 0.1, 0.2)
    got = token_weights(*wide, *masks, cost_norm="released")
    torch.testing.assert_close(got.plan, expected, rtol=1e-5, atol=0)
    spread = {
        norm: token_weights(*wide, *masks, cost_norm=norm).chosen[0, :5].std().item()
        for norm in ("released", "valid_max")
    }
    assert spread["released"] < spread["valid_max"] / 5


def test_budgets():
    h_c, h_r = seeded(1, 6, 4), seeded(1, 4, 4, seed=1)
    totals = {"min": (4, 4), "mean": (5, 5), "max": (6, 6), "own": (6, 4)}
    for budget, (of_c, of_r) in totals.items():
        got = token_weights(h_c, h_r, full(h_c), full(h_r), budget=budget)
        assert (got.chosen.sum().item(), got.rejected.sum().item()) == pytest.approx((of_c, of_r))
        uniform = uniform_weights(full(h_c), full(h_r), budget)
        assert (uniform[0].sum().item(), uniform[1].sum().item()) == pytest.approx((of_c, of_r))
    raw = token_weights(h_c, h_r, full(h_c), full(h_r), budget="none")
    torch.testing.assert_close(raw.chosen, raw.plan.sum(2))


def test_weights_are_constants_to_the_gradient():
    """d loss / d log-prob_t = -beta sigma(-beta Delta) w_t; the states get none through w."""
    states = H_C.clone().requires_grad_()
    got = token_weights(states, H_R, full(H_C), full(H_R))
    q_c, q_r = Q_C.clone().requires_grad_(), Q_R.clone().requires_grad_()
    delta = (got.chosen * q_c).sum() - (got.rejected * q_r).sum()
    (-torch.nn.functional.logsigmoid(0.1 * delta)).backward()
    slope = 0.1 * torch.sigmoid(-0.1 * delta.detach())
    torch.testing.assert_close(q_c.grad, -slope * got.chosen)
    torch.testing.assert_close(q_r.grad, slope * got.rejected)
    assert states.grad is None and not got.chosen.requires_grad


def test_autocast_does_not_touch_the_weights():
    """In bfloat16 the products of the fixed point would move them by a quarter of a percent."""
    h_c, h_r = seeded(3, 12, 8, dtype=torch.float32), seeded(3, 7, 8, seed=1, dtype=torch.float32)
    masks = full(h_c), full(h_r)
    plain = token_weights(h_c, h_r, *masks)
    with torch.autocast("cpu", torch.bfloat16):
        half = token_weights(h_c, h_r, *masks)
    for name, a, b in zip(plain._fields, half, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=0, msg=name)


def test_small_regularisation_finds_shared_tokens():
    """The sheet's measurement: 40 of m = 120 and n = 80 tokens share their states."""
    h_c, h_r = seeded(1, 120, 64), seeded(1, 80, 64, seed=1)
    h_r[:, :40] = h_c[:, :40]
    ratio = {}
    for reg in (1.0, 0.1, 0.01):
        w = token_weights(h_c, h_r, full(h_c), full(h_r), reg=reg).chosen[0]
        ratio[reg] = (w[:40].mean() / w[40:].mean()).item()
    assert 1.0 < ratio[1.0] < 1.05 < 1.5 < ratio[0.1] < 3 < ratio[0.01]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize(
    ("reg", "reg_m"), [(1e-6, 1e-6), (1e-3, 5e-4), (0.003, 0.003), (1e-4, 0.1)]
)
@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 5), (3, 4)])
def test_weights_are_right_where_the_mass_underflows(m, n, reg, reg_m, dtype):
    """Against the plan's logarithm, iterated one row at a time in float64."""
    h_c, h_r = seeded(1, m, 8, dtype=dtype), seeded(1, n, 8, seed=1, dtype=dtype)
    got = token_weights(h_c, h_r, full(h_c), full(h_r), reg, reg_m)
    cost = transport_cost(h_c, h_r, full(h_c), full(h_r))[0].double()
    f, u, v = reg_m / (reg_m + reg), torch.zeros(m, dtype=F64), torch.zeros(n, dtype=F64)
    for _ in range(2 + math.ceil(-20 / math.log(f))):
        u = torch.stack([-f * (v - row / reg).logsumexp(0) for row in cost])
        v = torch.stack([-f * (u - row / reg).logsumexp(0) for row in cost.T])
    plan = u[:, None] - cost / reg + v
    for weights, axis in ((got.chosen, 1), (got.rejected, 0)):
        want = min(m, n) * plan.logsumexp(axis).softmax(0)
        assert weights[0].tolist() == pytest.approx(want.tolist(), abs=1e-4)


@pytest.mark.parametrize("cost_norm", ["valid_max", "median", "released"])
@pytest.mark.parametrize("size", [1e-10, 1.0, 1e18, 1e30, 3e37])
def test_states_of_any_finite_size_have_weights(cost_norm, size):
    h_c, h_r = seeded(1, 3, 8).float(), seeded(1, 4, 8, seed=1).float()
    got = token_weights(size * h_c, size * h_r, full(h_c), full(h_r), cost_norm=cost_norm)
    assert got.chosen.isfinite().all() and got.chosen.sum().item() == pytest.approx(3, abs=1e-5)
    if cost_norm != "released":  # it divides by 1 at least
        want = token_weights(h_c, h_r, full(h_c), full(h_r), cost_norm=cost_norm)
        assert got.chosen[0].tolist() == pytest.approx(want.chosen[0].tolist(), abs=1e-4)


@pytest.mark.parametrize("cost_norm", ["valid_max", "median", "released"])
def test_a_pair_of_equal_tokens_does_not_spoil_its_batch(cost_norm):
    h_c, h_r = seeded(3, 4, 8).float(), seeded(3, 4, 8, seed=1).float()
    h_c[1], h_r[1] = 0.5, 0.5  # every distance is 0
    h_c[2], h_r[2] = 0.5, 0.5  # their median is
    h_c[2, 0] = 2.0
    got = token_weights(h_c, h_r, full(h_c), full(h_r), cost_norm=cost_norm)
    alone = token_weights(h_c[:1], h_r[:1], full(h_c[:1]), full(h_r[:1]), cost_norm=cost_norm)
    assert got.chosen.isfinite().all() and got.rejected.isfinite().all()
    assert got.chosen[0].tolist() == pytest.approx(alone.chosen[0].tolist(), abs=1e-4)
    assert got.chosen[1].tolist() == pytest.approx([1.0] * 4, abs=1e-5)


@pytest.mark.parametrize("domain", ["scaling", "log", "auto"])
@pytest.mark.parametrize("empty", ["a", "b", "both"])
def test_a_side_without_mass_has_no_plan(domain, empty):
    a = torch.zeros(1, 2) if empty != "b" else torch.ones(1, 2)
    b = torch.zeros(1, 3) if empty != "a" else torch.ones(1, 3)
    plan = unbalanced_sinkhorn(seeded(1, 2, 3).abs().float(), a, b, 0.1, 0.2, domain=domain)
    assert plan.tolist() == torch.zeros(1, 2, 3).tolist()


def test_states_are_those_before_or_at_the_token():
    h = seeded(1, 4, 2)
    assert torch.equal(token_states(h), h[:, :3])
    assert torch.equal(token_states(h, "token"), h[:, 1:])


# faults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reg": 0.0}, "reg must be above 0"),
        ({"reg_m": math.inf}, "reg_m must be above 0 and finite"),
        ({"reg": 1e-7, "reg_m": 1e-7}, "reg must be at least 1e-06"),
        ({"reg_m": 101.0}, "reg_m must be at most 1000 times reg"),
        ({"cost_norm": "max"}, "cost_norm must be one of"),
        ({"budget": "mid"}, "budget must be one of"),
    ],
)
def test_options_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        token_weights(H_C, H_R, full(H_C), full(H_R), **change)


def test_other_faults():
    with pytest.raises(ValueError, match="a token in every response"):
        token_weights(H_C, H_R, full(H_C), ~full(H_R))
    with pytest.raises(ValueError, match="representation must be"):
        token_states(H_C, "state")
    cost = torch.zeros(1, 2, 3)
    with pytest.raises(ValueError, match="cost must be"):
        unbalanced_sinkhorn(cost, torch.ones(1, 3), torch.ones(1, 3), 0.1, 0.2)
    with pytest.raises(ValueError, match="domain must be"):
        unbalanced_sinkhorn(cost, torch.ones(1, 2), torch.ones(1, 3), 0.1, 0.2, domain="exp")
