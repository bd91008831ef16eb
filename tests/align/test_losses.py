"""Losses on pairs: worked numbers, identities, golden cases, invariances."""

import json
import math
from collections import defaultdict

import mpmath
import pytest
import torch
from helpers.pairs import padded, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.align import golden
from paperlab.align.formulas import LOSSES, RANKED, REFERENCE_FREE, kto_baseline, kto_unpaired
from paperlab.align.losses import (
    check_options,
    ld_weights,
    preference_loss,
    preference_metrics,
    sampo_weights,
    sequence_logratio,
    token_metrics,
    wpo_weight,
)
from paperlab.data.catalogue import data_root
from paperlab.intervals import t_quantile
from paperlab.lm.logprobs import token_logps

F64 = torch.float64


def f64(*values):
    return torch.tensor(values, dtype=F64)


def seeded(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def extras(kind, size, seed=3):
    """The tensors that a loss needs beside its two sums."""
    draw = torch.Generator().manual_seed(seed)
    every = {
        "n_chosen": torch.randint(1, 30, (size,), generator=draw).to(F64),
        "n_rejected": torch.randint(1, 30, (size,), generator=draw).to(F64),
        "n_gold": torch.randint(1, 30, (size,), generator=draw).to(F64),
        "logp_chosen": -20 * torch.rand(size, generator=draw, dtype=F64),
        "logp_rejected": -20 * torch.rand(size, generator=draw, dtype=F64),
        "logp_gold": -20 * torch.rand(size, generator=draw, dtype=F64),
    }
    return {k: v for k, v in every.items() if k in LOSSES[kind].__code__.co_varnames}


# Worked numbers ------------------------------------------------------------------------------------

WORKED = {
    "sigmoid": 0.620957,
    "cdpo": 0.635957,
    "robust": 0.602207,
    "hinge": 0.85,
    "ipo_sum": 12.25,
    "ipo": 21.855625,
    "sigmoid_norm": 0.677029,
    "exo_pair": 2.505517,  # .537430 (log .537430 + .0010005) + .462570 (log .462570 + 6.907755)
    "discopop": 0.849338,  # sigma(3) e^-.15 + sigma(-3) .620957
    "apo_down": 0.987549,  # sigma(.1) + sigma(-.15)
    "sppo_hard": 36.25,  # 4^2 + 4.5^2
}
LENGTHS = {"n_chosen": f64(5), "n_rejected": f64(4)}


@pytest.mark.parametrize(("kind", "value"), WORKED.items())
def test_worked_pair(kind, value):
    options = LENGTHS if kind in ("ipo", "sigmoid_norm") else {}
    chosen, rejected = f64(-10 + 11), f64(-12 + 11.5)  # policy minus reference
    loss = preference_loss(kind, chosen, rejected, beta=0.1, **options)
    assert loss.item() == pytest.approx(value, abs=6e-7)


def test_worked_losses_without_a_reference():
    """Mean log-probabilities log .5 and log .25: odds 1 and 1/3."""
    chosen, rejected = f64(5 * math.log(0.5)), f64(4 * math.log(0.25))
    half, third = math.log(2), math.log(4 / 3)  # -log sigma(log 3) = log(4/3)
    n = {"n_chosen": LENGTHS["n_chosen"]}
    assert preference_loss("orpo", chosen, rejected, lam=0.1, **LENGTHS).item() == pytest.approx(
        half + 0.1 * third
    )
    # alpha 1: rewards 1 - 1/p = -1 and -3; alpha 0: SimPO
    shaped = preference_loss("alphapo", chosen, rejected, beta=1.0, gamma=1.0, alpha=1.0, **LENGTHS)
    assert shaped.item() == pytest.approx(math.log(1 + math.exp(-1)))
    plain = preference_loss("alphapo", chosen, rejected, alpha=0.0, **LENGTHS)
    assert plain.item() == preference_loss("simpo", chosen, rejected, **LENGTHS).item()
    margin = math.log(1 + math.exp(-0.1 * 3 * math.log(2)))  # -log sigma(.1 (8 - 5) log 2)
    found = preference_loss("cpo", chosen, rejected, beta=0.1, lam=2.0, **n)
    assert found.item() == pytest.approx(margin + 2 * half)
    gold = {"logp_gold": f64(-6), "n_gold": f64(4)}
    found = preference_loss("tpo", chosen, rejected, beta=0.1, lam=2.0, **gold)
    assert found.item() == pytest.approx(margin + 2 * 1.5)
    # means log .5 and log .25, beta 1: the margin is log 2, less gamma
    found = preference_loss(
        "tpo_l", chosen, rejected, beta=1.0, gamma=math.log(2), lam=2.0, **LENGTHS, **gold
    )
    assert found.item() == pytest.approx(math.log(2) + 2 * 1.5)
    found = preference_loss("sft", f64(1), f64(0), logp_chosen=chosen, **n)
    assert found.item() == pytest.approx(half)


def test_ranked_losses_compare_sorted_batches():
    """Policy margins (4, 0) against reference margins (1, 3); chosen (2, -1) against (1, 3)."""
    chosen, rejected = f64(2, -1), f64(-1, 2)  # log-ratios: margins 3, -3
    logps = {"logp_chosen": f64(-2, -9), "logp_rejected": f64(-6, -9)}
    found = preference_loss("aot", chosen, rejected, beta=1.0, reduction="none", **logps)
    want = [math.log(1 + math.exp(-x)) for x in (0 - 1, 4 - 3)]  # sorted: 0, 4 and 1, 3
    assert found.tolist() == pytest.approx(want)
    found = preference_loss("aot_unpaired", chosen, f64(1, 3), beta=1.0, reduction="none")
    want = [math.log(1 + math.exp(-x)) for x in (-1 - 1, 2 - 3)]
    assert found.tolist() == pytest.approx(want)


@pytest.mark.parametrize("kind", LOSSES)
def test_an_empty_response_is_refused_or_gives_a_finite_loss(kind):
    """Its mean over tokens would be 0 / 0; losses on sums take it as it is."""
    zero = f64(0, 0)
    more = {k: torch.zeros_like(v) for k, v in extras(kind, 2).items()}
    if any(name.startswith("n_") for name in more):
        with pytest.raises(ValueError, match="without tokens"):
            preference_loss(kind, f64(0, -3), zero, **more)
        return
    chosen, rejected = f64(0, -3).requires_grad_(), zero.clone().requires_grad_()
    loss = preference_loss(kind, chosen, rejected, **more)
    assert loss.isfinite()
    for slope in torch.autograd.grad(loss, (chosen, rejected)):
        assert slope.isfinite().all()


def test_worked_simpo_kto_gradient_and_rewards():
    loss = preference_loss("simpo", f64(-10), f64(-12), beta=2.0, gamma=1.0, **LENGTHS)
    assert loss.item() == pytest.approx(0.313262, abs=6e-7)
    each = kto_unpaired(f64(1, -0.5), torch.tensor([True, False]), z=0.2, beta=0.1)
    assert each.tolist() == pytest.approx([0.480011, 0.482507], abs=6e-7)
    both = preference_loss("kto", f64(1), f64(-0.5), z=0.2, beta=0.1)
    assert both.item() == pytest.approx((0.480011 + 0.482507) / 2, abs=1e-6)
    chosen, rejected = f64(1).requires_grad_(), f64(-0.5).requires_grad_()
    preference_loss("sigmoid", chosen, rejected, beta=0.1).backward()
    assert chosen.grad.item() == pytest.approx(-0.046257, abs=6e-7)
    assert rejected.grad.item() == pytest.approx(0.046257, abs=6e-7)
    found = preference_metrics(f64(1), f64(-0.5), 0.1, f64(-10, -12))
    want = {"chosen": 0.1, "rejected": -0.05, "margins": 0.15, "accuracies": 1.0}
    want = {f"rewards/{k}": v for k, v in want.items()}
    want |= {"logps/chosen": -10, "logps/rejected": -12}
    assert {k: v.item() for k, v in found.items()} == pytest.approx(want, abs=1e-12)


Q = f64([0.5, -0.1, 0.2, 0.3, 0.2], [-0.2, 0.1, -0.4, 9, 9])  # 9: padding
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()


@pytest.mark.parametrize(
    ("options", "delta", "loss"),
    [
        ({}, 1.6, 0.616344),
        ({"ld_alpha": 0.5}, 1.35, 0.627924),
        ({"ld_alpha": 0.0}, 1.1, 0.639659),
        ({"average": True}, 0.386667, None),
        ({"weights": f64([0.6] * 5, [1] * 5)}, 1.16, None),  # the uniform budget
    ],
)
def test_worked_tokens(options, delta, loss):
    for policy, reference in ((Q, None), (Q - 2, torch.full_like(Q, -2))):
        chosen, rejected = sequence_logratio(policy, reference, MASK, **options).chunk(2)
        assert (chosen - rejected).item() == pytest.approx(delta, abs=6e-7)
        if loss is not None:
            found = preference_loss("sigmoid", chosen, rejected, beta=0.1)
            assert found.item() == pytest.approx(loss, abs=6e-7)


# Identities ----------------------------------------------------------------------------------------

margins = st.floats(-60, 60, allow_nan=False, width=32)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(margins, margins), min_size=1, max_size=6), st.floats(0.01, 5))
def test_members_that_are_one_another(pairs, beta):
    chosen, rejected = f64(*pairs).unbind(1)

    def loss(kind, **options):
        return preference_loss(kind, chosen, rejected, beta=beta, reduction="none", **options)

    same = {
        "cDPO without noise": loss("cdpo", epsilon=0.0),
        "robust without noise": loss("robust", epsilon=0.0),
        "alpha 0": loss("fdpo", divergence="alpha", alpha=0.0),
        "soft labels that are hard": loss("cdpo", epsilon=torch.zeros_like(chosen)),
        "no likelihood term": loss("rpo", lam=0.0, **extras("rpo", len(chosen))),
    }
    for name, value in same.items():
        torch.testing.assert_close(value, loss("sigmoid"), rtol=1e-12, atol=1e-12, msg=name)
    near = loss("fdpo", divergence="alpha", alpha=1e-9)
    torch.testing.assert_close(near, loss("sigmoid"), rtol=1e-5, atol=1e-5)
    # the rate of flips epsilon: what robust DPO's flipped and kept labels average to is DPO
    for epsilon in (0.1, 0.3, 0.49):
        kept = loss("robust", epsilon=epsilon)
        turned = preference_loss(
            "robust", rejected, chosen, beta=beta, epsilon=epsilon, reduction="none"
        )
        mean = (1 - epsilon) * kept + epsilon * turned
        torch.testing.assert_close(mean, loss("sigmoid"), rtol=1e-10, atol=1e-10)
    # alpha-divergence at 1 is forward KL
    inside = (chosen.abs() < 50) & (rejected.abs() < 50)
    torch.testing.assert_close(
        loss("fdpo", divergence="alpha", alpha=1.0)[inside],
        loss("fdpo", divergence="forward_kl")[inside],
        rtol=1e-9,
        atol=1e-9,
    )


def test_start_is_log_two_with_half_a_beta_of_slope():
    zero = f64(0, 0).requires_grad_()
    loss = preference_loss("sigmoid", zero, zero.detach(), beta=0.3)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-15)
    loss.backward()
    assert zero.grad.tolist() == pytest.approx([-0.15 / 2] * 2)
    found = preference_metrics(zero.detach(), zero.detach(), 0.3)
    assert [v.item() for v in found.values()] == [0, 0, 0, 0]  # a tie is not a success


@pytest.mark.parametrize(
    ("kind", "options", "stationary"),
    [
        ("cdpo", {"beta": 0.5, "epsilon": 0.1}, math.log(9) / 0.5),
        ("cdpo", {"beta": 0.1, "epsilon": 0.4}, math.log(1.5) / 0.1),
        ("ipo_sum", {"beta": 0.1}, 5.0),
        ("ipo_sum", {"beta": 0.5}, 1.0),
    ],
)
def test_where_a_margin_settles(kind, options, stationary):
    margin = f64(stationary).requires_grad_()
    preference_loss(kind, margin, f64(0), **options).backward()
    assert margin.grad.item() == pytest.approx(0, abs=1e-12)
    for away in (-0.5, 0.5):  # and it is a minimum
        moved = preference_loss(kind, margin.detach() + away, f64(0), **options)
        assert moved > preference_loss(kind, margin.detach(), f64(0), **options)


def test_swapping_and_constants():
    logps, reference, mask = seeded(4, 6), seeded(4, 6, seed=1), torch.ones(4, 6).bool()
    chosen, rejected = sequence_logratio(logps, reference, mask).chunk(2)
    swap = [2, 3, 0, 1]
    back, forth = sequence_logratio(logps[swap], reference[swap], mask).chunk(2)
    torch.testing.assert_close(back - forth, rejected - chosen)
    # the same constant on both references, or on policy and reference of one response
    moved = sequence_logratio(logps, reference + 0.7, mask).chunk(2)
    torch.testing.assert_close(moved[0] - moved[1], chosen - rejected)
    lift = torch.tensor([0.7, 0, 0, 0], dtype=F64)[:, None]
    torch.testing.assert_close(
        sequence_logratio(logps + lift, reference + lift, mask), torch.cat([chosen, rejected])
    )
    assert torch.equal(
        sequence_logratio(logps, reference, mask, weights=torch.ones(4, 6)),
        sequence_logratio(logps, reference, mask, ld_alpha=1.0),
    )


def test_simpo_without_margin_is_normalised_dpo_from_a_uniform_reference():
    mask = torch.arange(9) < torch.tensor([[4], [9], [7], [2]])
    logps = seeded(4, 9)
    alone = sequence_logratio(logps, None, mask).chunk(2)
    ratio = sequence_logratio(logps, torch.full_like(logps, -math.log(50)), mask).chunk(2)
    n = dict(zip(("n_chosen", "n_rejected"), mask.sum(1).chunk(2), strict=True))
    torch.testing.assert_close(
        preference_loss("simpo", *alone, beta=2.0, gamma=0.0, **n),
        preference_loss("sigmoid_norm", *ratio, beta=2.0, **n),
    )


def test_sampo_keeps_the_shorter_and_draws_as_many_of_the_longer():
    mask = torch.arange(8) < torch.tensor([[8], [3], [5], [3]])
    mask[0, 2] = False  # a gap is no token
    draw, seen = torch.Generator().manual_seed(0), torch.zeros(4, 8)
    rounds = 4000
    for _ in range(rounds):
        weights = sampo_weights(mask, draw)
        assert not weights[~mask].any()
        assert weights.sum(1).tolist() == [5, 3, 5, 3]
        seen += weights
    share = seen / rounds
    assert share[0][mask[0]].tolist() == pytest.approx([5 / 7] * 7, abs=0.03)
    assert torch.equal(share[2:], mask[2:].float())
    # so its mean is the uniform budget's: the sheet's example
    total = torch.zeros(2, dtype=F64)
    for _ in range(20_000 // 4):
        total += sequence_logratio(Q, None, MASK, sampo_weights(MASK, draw))
    delta = (total[0] - total[1]) / (20_000 // 4)
    assert delta.item() == pytest.approx(1.16, abs=0.02)


# Golden cases --------------------------------------------------------------------------------------


def slow(kind, w, l, beta=None, **o):  # noqa: E741
    """The papers' formulas with 500 digits, one pair at a time."""
    mp = mpmath.mpf
    beta = mp(beta if beta is not None else 2 if kind in ("simpo", "alphapo", "tpo_l") else 0.1)
    w, l = mp(w), mp(l)  # noqa: E741
    nw, nl = mp(o.get("n_chosen", 1)), mp(o.get("n_rejected", 1))

    def sig(x):
        return 1 / (1 + mpmath.exp(-x))

    def nls(x):  # -log sigma(x)
        return mpmath.log(1 + mpmath.exp(-x))

    def score(s):
        name, alpha = o.get("divergence", "forward_kl"), o.get("alpha")
        if name == "forward_kl":
            return -mpmath.exp(min(-s, mp(80)))
        if name == "js":
            return -nls(s)
        return -mpmath.exp(min(-alpha * s, mp(80))) / alpha if alpha else s

    def shaped(m):
        a = mp(o.get("alpha", 0.25))
        return (1 - mpmath.exp(min(-a * m, mp(80)))) / a

    def odds(m):
        return m - mpmath.log(1 - mpmath.exp(m))

    e, z = mp(o.get("epsilon", 0.1)), mp(o.get("z", 0))
    lam, lam_d, lam_u = (mp(o.get(k, 1)) for k in ("lam", "lambda_d", "lambda_u"))
    delta, gamma, tau = mp(o.get("delta", 0)), mp(o.get("gamma", 1)), mp(o.get("tau", 0.05))
    smooth = mp(o.get("epsilon", 1e-3))
    nll = {k: -mp(o.get(f"logp_{k}", 0)) / mp(o.get(f"n_{k}", 1)) for k in ("chosen", "gold")}
    m = beta * (w - l)
    return {
        "sigmoid": lambda: nls(m),
        "cdpo": lambda: (1 - e) * nls(m) + e * nls(-m),
        "robust": lambda: ((1 - e) * nls(m) - e * nls(-m)) / (1 - 2 * e),
        "hinge": lambda: max(mp(0), 1 - m),
        "ipo": lambda: (w / nw - l / nl - 1 / (2 * beta)) ** 2,
        "ipo_sum": lambda: (w - l - 1 / (2 * beta)) ** 2,
        "sigmoid_norm": lambda: nls(beta * (w / nw - l / nl)),
        "simpo": lambda: nls(beta * (w / nw - l / nl) - gamma),
        "apo_zero": lambda: 1 - sig(beta * w) + sig(beta * l),
        "nca": lambda: nls(beta * w) + nls(-beta * w) / 2 + nls(-beta * l) / 2,
        "bco": lambda: nls(beta * w - delta) + nls(delta - beta * l),
        "rpo": lambda: nls(m) + lam * nll["chosen"],
        "sft": lambda: nll["chosen"],
        "cpo": lambda: nls(m) - lam * w / nw,
        "tpo": lambda: nls(m) + lam * nll["gold"],
        "tpo_l": lambda: nls(beta * (w / nw - l / nl) - gamma) + lam * nll["gold"],
        "orpo": lambda: -w / nw + mp(o.get("lam", 0.1)) * nls(odds(w / nw) - odds(l / nl)),
        "alphapo": lambda: nls(beta * (shaped(w / nw) - shaped(l / nl)) - gamma),
        "apo_down": lambda: sig(beta * w) + 1 - sig(m),
        "sppo_hard": lambda: (w - 1 / (2 * beta)) ** 2 + (l + 1 / (2 * beta)) ** 2,
        "discopop": lambda: (1 - sig(m / tau)) * nls(m) + sig(m / tau) * mpmath.exp(-m),
        "exo_pair": lambda: (
            -sig(m) * (nls(m) + mpmath.log(1 - smooth)) - sig(-m) * (nls(-m) + mpmath.log(smooth))
        ),
        "kto": lambda: (lam_d * (1 - sig(beta * (w - z))) + lam_u * (1 - sig(beta * (z - l)))) / 2,
        "fdpo": lambda: nls(beta * (score(w) - score(l))),
    }[kind]()


PAIRS = golden.pair_cases()


def test_the_committed_golden_cases_are_those_of_the_library():
    kept = json.loads(golden.path().read_text())
    fresh = json.loads(json.dumps(golden.cases()))
    assert kept["about"] == fresh["about"]
    for part in ("pairs", "tokens"):
        assert len(kept[part]) == len(fresh[part])
        for a, b in zip(kept[part], fresh[part], strict=True):
            assert a.keys() == b.keys()
            for key in a:
                if isinstance(a[key], list) and key != "sums":
                    torch.testing.assert_close(f64(*a[key]), f64(*b[key]), rtol=1e-12, atol=0)
                elif key != "sums":
                    assert a[key] == b[key]
    sums = zip(kept["tokens"][0]["sums"], fresh["tokens"][0]["sums"], strict=True)
    for a, b in sums:
        assert a["options"] == b["options"] and a["logratio"] == pytest.approx(b["logratio"])
    assert {c["kind"] for c in kept["pairs"]} == set(LOSSES)


def test_golden_inputs_are_possible():
    """A log-probability is at most 0: of the policy, and of the reference that a log-ratio implies."""
    for case in PAIRS:
        if case["kind"] in REFERENCE_FREE:
            assert max(case["chosen"] + case["rejected"]) < 0
        if "logp_chosen" in case:
            logp, ratio = f64(*case["logp_chosen"]), f64(*case["chosen"])
            assert (logp < 0).all() and (logp - ratio <= 0).all()
        if "logp_rejected" in case:
            logp, ratio = f64(*case["logp_rejected"]), f64(*case["rejected"])
            assert (logp < 0).all() and (logp - ratio <= 0).all()


@pytest.mark.parametrize(
    "case",
    [c for c in PAIRS if c["kind"] not in RANKED],
    ids=lambda c: f"{c['kind']}-{c['options']}",
)
def test_golden_values_and_gradients_by_five_hundred_digits(case):
    """Also the limits: the last two pairs stand at beta Delta = +-1e3 (and further, at beta .5)."""
    columns = [
        k for k in ("n_chosen", "n_rejected", "n_gold", "logp_chosen", "logp_gold") if k in case
    ]
    with mpmath.workdps(500):
        for i, (w, l) in enumerate(zip(case["chosen"], case["rejected"], strict=True)):  # noqa: E741
            given = case["options"] | {k: case[k][i] for k in columns}
            want = slow(case["kind"], w, l, **given)
            assert math.isfinite(case["loss"][i])
            assert case["loss"][i] == pytest.approx(float(want), rel=1e-12, abs=1e-300)
            if case["kind"] == "fdpo" and max(abs(w), abs(l)) > 1000:
                continue  # past the clamp, where the derivative is zero on purpose
            for side, name in ((0, "grad_chosen"), (1, "grad_rejected")):
                at = [lambda x: (x, l), lambda x: (w, x)][side]  # noqa: B023
                want = mpmath.diff(lambda x: slow(case["kind"], *at(x), **given), (w, l)[side])  # noqa: B023
                assert case[name][i] == pytest.approx(float(want), rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_no_loss_breaks_at_a_thousand(kind, dtype):
    """Both signs, each side alone, and in float32 too: finite values, finite gradients."""
    big = torch.tensor([1e4, -1e4, 0.0, 1e4, -1e4, 0.0], dtype=dtype)
    chosen = big.clone().requires_grad_()
    rejected = big.flip(0).roll(1).clone().requires_grad_()
    more = {k: v.to(dtype) for k, v in extras(kind, 6).items()}
    variants = (
        [{"divergence": "forward_kl"}, {"divergence": "js"}]
        + [{"divergence": "alpha", "alpha": a} for a in (0.0, 0.5, 2.0)]
        if kind == "fdpo"
        else [{}]
    )
    for options in variants:
        loss = preference_loss(kind, chosen, rejected, reduction="none", **more, **options)
        assert loss.dtype == dtype and loss.isfinite().all()
        for g in torch.autograd.grad(loss.sum(), (chosen, rejected)):
            assert g.isfinite().all()


@pytest.mark.parametrize("case", PAIRS, ids=lambda c: f"{c['kind']}-{c['options']}")
def test_gradcheck(case):
    chosen, rejected = (3 * seeded(5, seed=s) for s in (1, 2))
    more = extras(case["kind"], 5)
    margin = case["options"].get("beta", 0.1) * (chosen - rejected)
    assert case["kind"] != "hinge" or (1 - margin).abs().min() > 1e-3  # away from the kink

    def loss(w, l):  # noqa: E741
        return preference_loss(case["kind"], w, l, reduction="none", **more, **case["options"])

    assert torch.autograd.gradcheck(loss, (chosen.requires_grad_(), rejected.requires_grad_()))


# From logits ---------------------------------------------------------------------------------------


def bigram_loss(table, ids, mask, kind="sigmoid", reference=None, reduction="mean"):
    """A pair's loss under logits that depend on the last token alone; every position is alike."""
    logps = token_logps(table[ids], ids, mask)
    with torch.no_grad():
        fixed = token_logps(reference[ids], ids, mask)
    scored = mask[:, 1:]
    n = scored.sum(1).to(table.dtype)
    alone = sequence_logratio(logps, None, scored)
    s = alone if kind in REFERENCE_FREE else sequence_logratio(logps, fixed, scored)
    every = {
        "n_chosen": n.chunk(2)[0],
        "n_rejected": n.chunk(2)[1],
        "logp_chosen": alone.chunk(2)[0],
        "logp_rejected": alone.chunk(2)[1],
        "n_gold": n.chunk(2)[0],  # the gold response: here the chosen one
        "logp_gold": alone.chunk(2)[0],
    }
    names = LOSSES[kind].__code__.co_varnames
    more = {k: v for k, v in every.items() if k in names}
    return preference_loss(kind, *s.chunk(2), reduction=reduction, **more)


V = 11
TABLE, REFERENCE = seeded(V, V), seeded(V, V, seed=1)
DRAW = torch.Generator().manual_seed(5)
SIZES = [tuple(torch.randint(1, 9, (2,), generator=DRAW).tolist()) for _ in range(128)]
ROWS = rows(SIZES)


def gradient(*batches, table=TABLE, kind="sigmoid", scale=1.0):
    """Gradient of the mean over batches of their mean losses, with respect to the table."""
    table = table.clone().requires_grad_()
    for ids, mask in batches:
        loss = bigram_loss(table, ids, mask, kind, REFERENCE.to(table.dtype))
        (scale * loss / len(batches)).backward()
    return table.grad


def residuals(found, wanted):
    """Largest and mean absolute residual, in units of the largest wanted value."""
    error = (found.to(F64) - wanted.to(F64)).abs() / wanted.abs().max()
    return error.max().item(), error.mean().item()


@pytest.mark.parametrize("kind", LOSSES)
def test_equivalent_batches_give_the_same_loss_and_gradient(kind):
    """Largest and mean residual: padding to float64's rounding, float32 to its own."""
    whole = padded(ROWS)
    wanted, loss = gradient(whole, kind=kind), bigram_loss(TABLE, *whole, kind, REFERENCE)
    chunks = [
        padded(ROWS[k : k + 16] + ROWS[64 + k : 80 + k]) for k in range(0, 64, 16)
    ]  # 64 pairs = 4 x 16, each padded to its own longest row
    ways = {
        **({} if kind in RANKED else {"4 x 16 accumulated": gradient(*chunks, kind=kind)}),
        "left padding": gradient(padded(ROWS, side="left"), kind=kind),
        "longer padding": gradient(padded(ROWS, length=40), kind=kind),
        "another padding token": gradient(padded(ROWS, pad=7), kind=kind),
    }
    for name, found in ways.items():
        largest, mean = residuals(found, wanted)
        assert largest < 1e-12 and mean < 1e-13, f"{name}: {largest:.1e}, {mean:.1e}"
    largest, mean = residuals(gradient(whole, table=TABLE.float(), kind=kind), wanted)
    assert largest < 1e-5 and mean < 1e-6, f"float32: {largest:.1e}, {mean:.1e}"
    for other in (padded(ROWS, side="left"), padded(ROWS, length=40), padded(ROWS, pad=7)):
        assert bigram_loss(TABLE, *other, kind, REFERENCE).item() == pytest.approx(
            loss.item(), rel=1e-13
        )


def test_a_mean_over_all_tokens_does_not_accumulate_and_ours_does():
    """Why RPO's likelihood term is a mean in each response: the residual of the other is large."""

    def token_mean(batches):
        total = 0
        for ids, mask in batches:
            half = len(ids) // 2
            total += token_logps(TABLE[ids], ids, mask)[:half].sum() / mask[:half].sum()
        return total / len(batches)

    chunks = [padded(ROWS[k : k + 16] + ROWS[64 + k : 80 + k]) for k in range(0, 64, 16)]
    whole = [padded(ROWS)]
    assert abs(token_mean(chunks) / token_mean(whole) - 1) > 1e-4

    def ours(batches):
        return sum(bigram_loss(TABLE, *b, "rpo", REFERENCE) for b in batches) / len(batches)

    assert ours(chunks).item() == pytest.approx(ours(whole).item(), rel=1e-13)


def test_packed_rows_equal_padded_rows():
    """The sums alone: a bigram's logits see one token, so that attention across rows is not tested."""
    ids, mask = padded(ROWS)
    padded_sums = sequence_logratio(token_logps(TABLE[ids], ids, mask), None, mask[:, 1:])
    flat = torch.tensor([t for p, r in ROWS for t in p + r])[None]
    scored = torch.tensor([k >= len(p) for p, r in ROWS for k in range(len(p + r))])[None]
    row = torch.tensor([k for k, (p, r) in enumerate(ROWS) for _ in p + r])
    logps = token_logps(TABLE[flat], flat, scored)[0]
    packed = torch.zeros(len(ROWS), dtype=F64).index_add(0, row[1:], logps)
    torch.testing.assert_close(packed, padded_sums, rtol=1e-13, atol=1e-13)


def test_only_completion_tokens_count_and_eos_is_one():
    ids, mask = padded(rows([(3, 4), (3, 2)]))
    logits = seeded(2, 7, V)
    logps = token_logps(logits, ids, mask)
    assert logps.shape == (2, 6) and not logps[~mask[:, 1:]].any()
    for b in range(2):
        for t in range(1, 7):
            if mask[b, t]:
                want = logits[b, t - 1].log_softmax(-1)[ids[b, t]]
                torch.testing.assert_close(logps[b, t - 1], want)
    for b, t in ((0, 1), (1, 0), (1, 6)):  # prompts and padding
        assert not mask[b, t]
        changed = ids.clone()
        changed[b, t] = (ids[b, t] + 1) % V
        assert torch.equal(token_logps(logits, changed, mask), logps)
    changed = ids.clone()
    changed[0, 6] = (ids[0, 6] + 1) % V  # the last token of a response: its end-of-text
    assert not torch.equal(token_logps(logits, changed, mask), logps)
    free = logits.clone().requires_grad_()
    token_logps(free, ids, mask).sum().backward()
    assert not free.grad[:, :-1][~mask[:, 1:]].any() and not free.grad[:, -1].any()


def test_half_precision_is_raised_before_the_sum():
    ids = torch.randint(50, (2, 1500), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 1500).bool()
    logits = seeded(2, 1500, 50).bfloat16()
    logps = token_logps(logits, ids, mask)
    assert logps.dtype == torch.float32
    exact = token_logps(logits.double(), ids, mask).sum(1)
    ours = sequence_logratio(logps, None, mask[:, 1:])
    assert (ours - exact).abs().max() < 0.01
    low = logps.bfloat16()
    assert sequence_logratio(low, None, mask[:, 1:]).dtype == torch.float32
    # summed in bfloat16, 1499 tokens lose more than a nat
    naive = torch.zeros(2, dtype=torch.bfloat16)
    for t in range(1499):
        naive += low[:, t]
    assert (naive.double() - exact).abs().max() > 1


def test_ld_weights_and_average_by_a_loop():
    mask = torch.arange(9)[None] < torch.tensor([[4], [9], [7], [2]])
    mask = torch.cat([torch.zeros(4, 2).bool(), mask], 1)  # two prompt tokens
    q, alpha = seeded(4, 11), 0.3
    sums = sequence_logratio(q, None, mask, ld_alpha=alpha)
    means = sequence_logratio(q, None, mask, ld_alpha=alpha, average=True)
    for b in range(4):
        n, shared = int(mask[b].sum()), int(min(mask[b].sum(), mask[(b + 2) % 4].sum()))
        tokens = q[b, 2 : 2 + n]
        want = tokens[:shared].sum() + alpha * tokens[shared:].sum()
        torch.testing.assert_close(sums[b], want)
        torch.testing.assert_close(means[b], want / (shared + alpha * (n - shared)))
    assert ld_weights(mask, alpha, F64)[0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_a_mean_over_weighted_tokens_divides_by_the_weights(seed, scale):
    """Multiplying all weights by a constant changes no loss of means; equal weights change none."""
    mask = torch.arange(6) < torch.tensor([[4], [6], [1], [2]])
    logps, fixed = -seeded(4, 6, seed=seed).exp(), -seeded(4, 6, seed=seed + 1).exp()
    weights = seeded(4, 6, seed=seed + 2).exp()

    def losses(w):
        n = mask.sum(1).to(F64) if w is None else (w * mask).sum(1)
        n = dict(zip(("n_chosen", "n_rejected"), n.chunk(2), strict=True))
        found = {}
        for kind in ("ipo", "sigmoid_norm", "simpo", "alphapo", "orpo"):
            reference = None if kind in REFERENCE_FREE else fixed
            s = sequence_logratio(logps, reference, mask, w)
            found[kind] = preference_loss(kind, *s.chunk(2), **n)
            means = sequence_logratio(logps, reference, mask, w, average=True)
            one = dict.fromkeys(n, torch.ones(2, dtype=F64))
            torch.testing.assert_close(preference_loss(kind, *means.chunk(2), **one), found[kind])
        return found

    torch.testing.assert_close(losses(weights * scale), losses(weights), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(losses(torch.full_like(weights, scale)), losses(None))
    by_hand = (weights[0] * (logps - fixed)[0])[mask[0]].sum() / weights[0][mask[0]].sum()
    found = sequence_logratio(logps, fixed, mask, weights, average=True)[0]
    torch.testing.assert_close(found, by_hand)


def test_wpo_weight_by_a_loop_and_without_gradient():
    ids, mask = padded(rows([(2, 4), (3, 3), (2, 3), (3, 5)]))
    logits = seeded(*ids.shape, V).requires_grad_()
    logps = token_logps(logits, ids, mask)
    weight = wpo_weight(logits, logps, mask)
    assert weight.shape == (2,) and not weight.requires_grad
    mean = []
    for b in range(4):
        terms = []
        for t in range(1, ids.shape[1]):
            if mask[b, t]:
                p = logits[b, t - 1].softmax(-1)
                terms.append((p[ids[b, t]] / (p**2).sum()).log())
        mean.append(sum(terms) / len(terms))
    want = torch.stack([mean[0] + mean[2], mean[1] + mean[3]]).exp().detach()
    torch.testing.assert_close(weight, want)
    chosen, rejected = sequence_logratio(logps, None, mask[:, 1:]).chunk(2)
    each = preference_loss("sigmoid", chosen, rejected, reduction="none")
    found = preference_loss("sigmoid", chosen, rejected, weight=weight)
    torch.testing.assert_close(found, (each * weight).mean())


def test_reductions_and_kto_baseline():
    chosen, rejected = seeded(5), seeded(5, seed=1)
    each = preference_loss("hinge", chosen, rejected, reduction="none")
    assert each.shape == (5,)
    assert torch.equal(preference_loss("hinge", chosen, rejected), each.mean())
    assert torch.equal(preference_loss("hinge", chosen, rejected, reduction="sum"), each.sum())
    s = f64(1, -0.4, 0.3).requires_grad_()
    assert kto_baseline(s).item() == pytest.approx(0.3) and not kto_baseline(s).requires_grad
    assert kto_baseline(-s).item() == 0


def test_token_metrics_by_a_loop():
    ids, mask = padded(rows([(2, 4), (3, 3), (2, 3), (3, 5)]))
    logits = seeded(*ids.shape, V)
    sides, entropy, right = defaultdict(list), [], []
    for b in range(4):
        for t in range(1, ids.shape[1]):
            if mask[b, t]:
                z = logits[b, t - 1]
                p = z.softmax(-1)
                sides["chosen" if b < 2 else "rejected"].append(z.mean().item())
                entropy.append(-(p * p.log()).sum().item())
                if b < 2:
                    right.append(z.argmax().item() == ids[b, t].item())
    want = {f"logits/{k}": sum(v) / len(v) for k, v in sides.items()}
    want |= {"entropy": sum(entropy) / len(entropy)}
    want |= {"mean_token_accuracy": sum(right) / len(right)}
    found = {k: v.item() for k, v in token_metrics(logits, ids, mask).items()}
    assert found == pytest.approx(want, abs=1e-6)


# Faults --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("dpo", {}, "kind must be one of sigmoid, cdpo, robust"),
        ("sigmoid", {"beta": 0.0}, "beta must be above 0 and finite, got 0.0"),
        ("sigmoid", {"beta": float("nan")}, "beta must be above 0"),
        ("cdpo", {"epsilon": 0.5}, r"epsilon must be in \[0, 0.5\), got 0.5"),
        ("exo_pair", {"epsilon": 0.0}, r"epsilon must be in \(0, 0.5\), got 0.0"),
        ("discopop", {"tau": 0.0}, "tau must be above 0"),
        ("orpo", {"lam": -0.1}, "lam must be at least 0"),
        ("alphapo", {"alpha": float("nan")}, r"alpha must be in \(-inf, inf\), got nan"),
        ("sft", {"beta": 0.1}, "options of sft are logp_chosen, n_chosen: unknown beta"),
        ("sigmoid", {"epsilon": 0.1}, "options of sigmoid are beta: unknown epsilon"),
        ("ipo", {}, "options of ipo are n_chosen, n_rejected, beta: missing n_chosen, n_rejected"),
        ("simpo", {"gamma": -1.0, **LENGTHS}, "gamma must be at least 0"),
        ("sigmoid", {"reduction": "avg"}, "reduction must be one of none, mean, sum, not 'avg'"),
        ("fdpo", {"divergence": "kl"}, "divergence must be forward_kl, js, or alpha"),
        ("fdpo", {"divergence": "alpha"}, "alpha with a number alpha"),
        ("fdpo", {"divergence": "js", "alpha": 0.5}, "divergence must be"),
    ],
)
def test_bad_options_say_what_is_right(kind, options, says):
    with pytest.raises(ValueError, match=says) as error:
        preference_loss(kind, f64(1), f64(0), **options)
    if (
        "missing" not in says and "reduction" not in says
    ):  # what a constructor can know is refused there
        with pytest.raises(ValueError, match=says):
            check_options(kind, **options)
    assert "\n" not in str(error.value)


def test_bad_shapes_and_ranges():
    with pytest.raises(ValueError, match=r"chosen and rejected must be \(B,\), got \(2,\), \(1,\)"):
        preference_loss("sigmoid", f64(1, 2), f64(0))
    with pytest.raises(ValueError, match=r"ld_alpha must be in 0..1, got 1.5"):
        sequence_logratio(Q, None, MASK, ld_alpha=1.5)
    with pytest.raises(ValueError, match="weight must be None for aot_unpaired: its values belong"):
        preference_loss("aot_unpaired", f64(1), f64(0), weight=f64(1))
    with pytest.raises(ValueError, match="mask must have 2B rows"):
        sampo_weights(MASK[:1])
    with pytest.raises(ValueError, match="at least 2 log-ratios, got 1"):
        kto_baseline(f64(1))


# The committed record ------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "flipped"), [("sigmoid", False), ("robust", True)])
def test_doing_nothing_falls_outside_the_bands_of_the_full_record(kind, flipped):
    """602_loss_lab: the reference's regret is in no 95 % band of the loss that recovers the optimum."""
    rows = json.loads((data_root() / "reference/602_loss_lab_full.json").read_text())["metrics"][
        "regret"
    ]
    most = max(r["labels"] for r in rows)
    for beta in {r["beta"] for r in rows}:
        here = [
            r for r in rows if (r["beta"], r["labels"], r["flips"] > 0) == (beta, most, flipped)
        ]
        regret, nothing = (
            torch.tensor([r["regret"] for r in here if r["model"] == m])
            for m in (kind, "reference")
        )
        assert len(regret) == len(nothing) >= 5
        half = t_quantile(len(regret) - 1) * regret.std() * math.sqrt(1 + 1 / len(regret))
        assert (nothing > regret.mean() + half).all()
