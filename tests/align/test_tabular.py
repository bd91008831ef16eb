"""A softmax with a known optimum: regret by hand, exact labels, what each loss must recover."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.align.tabular import KINDS, MARGIN, Choices, at_best_beta, choices, fit, settle

WORLD = choices(range(4))


def test_regret_by_hand():
    """Rewards 0 and log 3, equal references, beta 1: pi* = (1/4, 3/4)."""
    half = torch.full((1, 2), math.log(0.5), dtype=torch.float64)
    world = Choices(torch.tensor([[0, math.log(3)]], dtype=torch.float64), half, torch.ones(1, 2))
    torch.testing.assert_close(world.optimum(1.0).exp(), torch.tensor([[0.25, 0.75]]).double())
    kl = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert world.regret(half, 1.0).item() == pytest.approx(kl)
    assert world.labels(None).item() == pytest.approx(0.25)
    assert world.labels(None, flips=0.2).item() == pytest.approx(0.25 * 0.8 + 0.75 * 0.2)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.05, 5), st.integers(0, 10_000))
def test_regret_is_what_the_objective_loses_and_never_negative(beta, seed):
    draw = torch.Generator().manual_seed(seed)
    logp = torch.randn(4, 8, generator=draw, dtype=torch.float64).log_softmax(1)

    def objective(q):
        return (q.exp() * (WORLD.reward - beta * (q - WORLD.reference))).sum(1)

    lost = objective(WORLD.optimum(beta)) - objective(logp)
    torch.testing.assert_close(WORLD.regret(logp, beta), lost, rtol=1e-9, atol=1e-9)
    assert (lost > 0).all()


def test_labels_are_those_of_bradley_and_terry():
    shares, exact = WORLD.labels(20_000, 0.2, range(4)), WORLD.labels(None, 0.2)
    assert shares.shape == exact.shape == (4, 28)
    assert (shares - exact).abs().max() < 5 * 0.5 / 20_000**0.5
    assert torch.equal(shares, WORLD.labels(20_000, 0.2, range(4)))
    assert set(WORLD.labels(1, 0.0, range(4)).unique().tolist()) == {0.0, 1.0}


def test_labels_are_drawn_independently_of_the_rewards_of_the_same_seed():
    """One generator for both would tie a label's uniform number to the size of a reward."""
    world = choices(range(1500))
    error = world.labels(1, 0.0, range(1500)) - world.labels(None)
    size = (world.reward**2 + world.reference**2).sqrt()
    scores = torch.cat([error, (error[:, None] * (size - size.mean(0))[:, :, None]).flatten(1)], 1)
    assert (scores.mean(0).abs() < 5 * scores.std(0) / 1500**0.5).all()


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_dpo_recovers_the_optimal_policy_from_exact_labels(beta):
    """The paper's claim; robust DPO does so from flipped labels, and DPO then does not."""
    found = fit("sigmoid", WORLD, WORLD.labels(None), beta, steps=600)
    assert WORLD.regret(found, beta).max() < 1e-3
    flipped = WORLD.labels(None, 0.2)
    found = fit("robust", WORLD, flipped, beta, steps=600, epsilon=0.2)
    assert WORLD.regret(found, beta).max() < 1e-2
    assert WORLD.regret(fit("sigmoid", WORLD, flipped, beta), beta).mean() > 5e-3


@pytest.mark.parametrize("kind", MARGIN)
def test_a_loss_of_the_margin_at_another_beta_is_the_same_fit_rescaled(kind):
    labels = torch.stack([WORLD.labels(None), WORLD.labels(3, 0.2, range(4))])
    here, there = (fit(kind, WORLD, labels, beta, steps=60) for beta in (0.5, 1.5))
    regret, scale = at_best_beta(WORLD, here, 0.5, torch.tensor([3.0]).double())
    assert scale.tolist() == [3, 3]
    torch.testing.assert_close(regret, WORLD.regret(there, 0.5), rtol=1e-4, atol=1e-6)


def test_the_best_beta_by_a_loop():
    """Labels flipped at a known rate halve the margins, or more: DPO's own beta must be smaller."""
    labels = torch.stack([WORLD.labels(None), WORLD.labels(None, 0.2)])
    policy, scales = fit("sigmoid", WORLD, labels, 0.5), torch.tensor([0.25, 0.5, 1, 2]).double()
    regret, scale = at_best_beta(WORLD, policy, 0.5, scales)
    assert scale.tolist() == [1, 0.5]
    for k in range(2):
        means = []
        for c in scales:
            s = (policy[k] - WORLD.reference) / c
            means.append(WORLD.regret((WORLD.reference + s).log_softmax(1), 0.5))
        torch.testing.assert_close(regret[k], min(means, key=lambda r: r.mean()))


def test_conditions_and_problems_are_trained_apart():
    both = torch.stack([WORLD.labels(None), WORLD.labels(None, 0.3)])
    together = fit("hinge", WORLD, both, 0.5, steps=20)
    alone = fit("hinge", WORLD, both[1], 0.5, steps=20)
    torch.testing.assert_close(together[1], alone)
    one = fit("hinge", choices([2]), both[1, 2:3], 0.5, steps=20)
    torch.testing.assert_close(one[0], alone[2])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_moves_from_the_reference_and_stays_a_policy(kind):
    found = fit(kind, WORLD, WORLD.labels(3, 0.0, range(4)), 0.5, steps=5)
    assert found.exp().sum(1).tolist() == pytest.approx([1] * 4)
    assert (found - WORLD.reference).abs().max() > 1e-3


def test_a_margin_settles_where_its_formula_says():
    p = torch.tensor([0.3, 0.5, 0.6], dtype=torch.float64)
    torch.testing.assert_close(settle("sigmoid", p), p.logit())
    mixed = 0.8 * p + 0.2 * (1 - p)
    torch.testing.assert_close(settle("cdpo", p, epsilon=0.2), mixed.logit())
    torch.testing.assert_close(settle("robust", mixed, epsilon=0.2), p.logit())
    torch.testing.assert_close(settle("ipo_sum", p), p - 0.5)
    one = torch.ones(1, dtype=torch.float64)
    assert settle("sigmoid", one).item() == pytest.approx(12)  # never stops
    assert settle("exo_pair", one, epsilon=0.1).item() == pytest.approx(math.log(9))


def test_faults():
    with pytest.raises(ValueError, match="kind must be one of sigmoid"):
        fit("tpo", WORLD, WORLD.labels(None), 0.5)
    with pytest.raises(ValueError, match="beta must be above 0"):
        fit("sigmoid", WORLD, WORLD.labels(None), 0.0)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        fit("sigmoid", WORLD, WORLD.labels(None), 0.5, steps=0)
    with pytest.raises(ValueError, match=r"flips must be in \[0, 0.5\]"):
        WORLD.labels(1, 0.6, range(4))
    with pytest.raises(ValueError, match="responses must be at least 2"):
        choices([0], responses=1)
