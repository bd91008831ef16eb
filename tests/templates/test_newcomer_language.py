"""The loss by hand, identities, a slow second version, padding and accumulation, known truth, faults."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import loop
from paperlab.templates.newcomer_language import (
    GOOD,
    Newcomer,
    accuracy,
    good_words,
    preference_loss,
    score,
    scores_of,
)


def policy(seed: int = 0) -> torch.nn.Module:
    from paperlab.lm.tiny_lm import TinyLM

    torch.manual_seed(seed)
    return TinyLM(vocabulary=8, dim=16, layers=1, heads=2)


def test_worked_numbers():
    logps = torch.tensor([[-1.0, -1.0, 0.0], [-2.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert score(logps, mask).tolist() == [-1.0, -2.0]
    assert score(logps, mask, per_token=False).tolist() == [-2.0, -2.0]
    (loss,) = preference_loss(*score(logps, mask).chunk(2), beta=2.0)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2)))


numbers = st.floats(-20, 20)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(numbers, numbers, st.floats(0.01, 5))
def test_swapping_a_pair_costs_its_margin(chosen, rejected, beta):
    """loss(a, b) - loss(b, a) = -beta (a - b), and equal scores cost log 2."""
    a, b = (torch.tensor([v], dtype=torch.float64) for v in (chosen, rejected))
    gap = preference_loss(a, b, beta) - preference_loss(b, a, beta)
    assert gap.item() == pytest.approx(-beta * (chosen - rejected), abs=1e-9)
    assert preference_loss(a, a, beta).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("per_token", [True, False])
def test_scores_are_what_a_loop_computes(per_token):
    pairs, model = good_words(6, 0.3, seed=1), policy()
    with torch.no_grad():
        found = scores_of(model, pairs.take(range(6)), per_token)
        responses = [p.chosen for p in pairs.pairs] + [p.rejected for p in pairs.pairs]
        for k, response in enumerate(responses):
            ids = (pairs.eos, *response)  # an empty prompt is end-of-text
            logps = model(torch.tensor([ids])).logits[0].log_softmax(1)
            terms = [logps[t - 1, ids[t]].item() for t in range(1, len(ids))]
            slow = sum(terms) / len(terms) if per_token else sum(terms)
            assert found[k].item() == pytest.approx(slow, abs=1e-5)


def test_padding_and_parts_of_a_batch_change_nothing():
    pairs = good_words(8, 0.0, seed=2)
    model = Newcomer(policy())
    whole, _ = model.measure(pairs.take(range(8)))
    for side in ("left", "right"):
        wide = pairs.take(range(8), side, length=20)
        torch.testing.assert_close(model.measure(wide)[0], whole, rtol=1e-5, atol=1e-6)
    parts = [model.measure(pairs.take(range(k, k + 2)))[0] for k in (0, 2, 4, 6)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole, rtol=1e-5, atol=1e-6)


def test_every_weight_gets_a_gradient():
    model = Newcomer(policy())
    model.measure(good_words(8, 0.0, seed=3).take(range(8)))[0].backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]


def test_training_orders_pairs_that_it_has_not_seen():
    train, test = good_words(300, 0.0, seed=0), good_words(200, 0.0, seed=1)
    model = Newcomer(policy(), lr=0.01)
    loop.fit(model, loop.Parts(train), epochs=3, batch_size=32, accelerator="cpu")
    assert accuracy(model.policy, test) > 0.8


@settings(deadline=None, max_examples=10, derandomize=True)
@given(st.integers(0, 99))
def test_truth_is_what_the_responses_say(seed):
    for pair in good_words(20, 0.5, seed).pairs:
        share = [sum(s == GOOD for s in y) / (len(y) - 1) for y in (pair.chosen, pair.rejected)]
        assert pair.truth.margin == pytest.approx(10 * (share[0] - share[1]))
        assert [sum(m) for m in pair.truth.marks] == [
            y.count(GOOD) for y in (pair.chosen, pair.rejected)
        ]


def test_a_full_habit_follows_length_alone():
    assert all(len(p.chosen) >= len(p.rejected) for p in good_words(100, 1.0, seed=0).pairs)


def test_swapped_labels_turn_accuracy_round():
    pairs, model = good_words(50, 0.0, seed=4), policy()
    turned = replace(pairs, pairs=tuple(p.swapped() for p in pairs.pairs))
    assert accuracy(model, turned) == pytest.approx(accuracy(model, pairs))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Newcomer(policy(), beta=0.0), "beta must be above 0"),
        (lambda: Newcomer(policy(), lr=-1.0), "lr must be above 0"),
        (lambda: good_words(0, 0.0, 0), "pairs must be at least 1"),
        (lambda: good_words(1, 1.5, 0), "habit must be in"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
