"""Known truth: the enumerable optimum, key tokens with a length cue, shared and decisive tokens."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.align.worlds.toys import (
    Enumerable,
    KeyTokens,
    decisive_pairs,
    enumerable,
    shared_pairs,
)

TOY = enumerable(prompts=3, symbols=3, length=4, strength=1.5, seed=2)


# The enumerable problem ----------------------------------------------------------------------------


def test_two_responses_by_hand():
    """Reference (1/2, 1/2), rewards (0, log 3), beta 1: pi* = (1/4, 3/4)."""
    toy = Enumerable(
        torch.tensor([[0], [1]]),
        torch.tensor([[0.0, math.log(3)]]),
        torch.full((1, 2), math.log(0.5)),
        symbols=2,
    )
    best = toy.optimum(1.0)
    torch.testing.assert_close(best.exp(), torch.tensor([[0.25, 0.75]]))
    reward, kl = toy.value(best)
    assert reward.item() == pytest.approx(0.75 * math.log(3))
    assert kl.item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    torch.testing.assert_close(toy.preference()[0], torch.tensor([[0.5, 0.25], [0.75, 0.5]]))


def test_every_response_once_and_a_reference_that_is_a_chain_of_conditionals():
    assert len(TOY.responses) == 81 and len({tuple(r) for r in TOY.responses.tolist()}) == 81
    assert TOY.reference.exp().sum(1).tolist() == pytest.approx([1] * 3)
    assert TOY.reward.mean(1).tolist() == pytest.approx([0] * 3, abs=1e-12)
    assert TOY.reward.std(1, correction=0).tolist() == pytest.approx([1.5] * 3)
    # p(y) / p(prefix) does not depend on the reward's tables: conditionals sum to 1 after each prefix
    tree = TOY.reference.exp().view(3, 3, 3, 3, 3)
    for depth in range(1, 4):
        prefix = tree.sum(dim=tuple(range(depth + 1, 5)))
        shorter = tree.sum(dim=tuple(range(depth, 5)))
        torch.testing.assert_close(prefix.sum(-1), shorter)
    assert (enumerable(prompts=2, spread=0.0).reference - math.log(1 / 256)).abs().max() < 1e-12


@settings(deadline=None, max_examples=20)
@given(st.floats(0.05, 20), st.integers(0, 100))
def test_no_policy_beats_the_optimum(beta, seed):
    best = TOY.optimum(beta)

    def objective(logp):
        reward, kl = TOY.value(logp)
        return reward - beta * kl

    top = objective(best)
    # its value is beta log Z, and a policy falls short by beta KL(policy || pi*)
    assert top.item() == pytest.approx(
        beta * (TOY.reference + TOY.reward / beta).logsumexp(1).mean().item(), rel=1e-9
    )
    other = torch.randn(
        best.shape, generator=torch.Generator().manual_seed(seed), dtype=best.dtype
    ).log_softmax(1)
    short = top - objective(other)
    torch.testing.assert_close(short, beta * TOY.kl(other, best), rtol=1e-9, atol=1e-9)
    assert short > 0


def test_beta_runs_from_greedy_to_the_reference():
    values = [TOY.value(TOY.optimum(b)) for b in (1e-3, 0.1, 0.5, 2.0, 1e6)]
    rewards, kls = zip(*[(r.item(), k.item()) for r, k in values], strict=True)
    assert rewards == tuple(sorted(rewards, reverse=True)) and kls == tuple(
        sorted(kls, reverse=True)
    )
    assert rewards[0] == pytest.approx(TOY.reward.amax(1).mean().item(), rel=1e-6)
    assert kls[-1] == pytest.approx(0, abs=1e-9)


def test_the_optimum_has_the_rewards_as_its_log_ratios():
    """What DPO rests on: beta (log pi* - log pi_ref) differs from r* by a constant of the prompt."""
    implied = 0.3 * (TOY.optimum(0.3) - TOY.reference)
    apart = implied - TOY.reward
    assert (apart - apart.mean(1, keepdim=True)).abs().max() < 1e-12


def test_samples_follow_the_reference_and_bradley_terry():
    index = TOY.sample(60_000, seed=1)
    assert (index[:, 1] != index[:, 2]).all()
    gap = TOY.reward[index[:, 0], index[:, 1]] - TOY.reward[index[:, 0], index[:, 2]]
    size, won = gap.abs(), gap > 0
    for low, high in ((0, 0.5), (0.5, 1), (1, 2), (2, 3)):
        inside = (size >= low) & (size < high)
        want = torch.sigmoid(size[inside]).mean().item()
        error = 4 * math.sqrt(want * (1 - want) / inside.sum().item())
        assert won[inside].float().mean().item() == pytest.approx(want, abs=error)
    sharp = TOY.sample(2000, seed=1, sharpness=1e6)
    assert (TOY.reward[sharp[:, 0], sharp[:, 1]] >= TOY.reward[sharp[:, 0], sharp[:, 2]]).all()
    # the likeliest response appears in the share that two draws without replacement give it
    first = index[index[:, 0] == 0][:, 1:]
    p = TOY.reference[0].exp()
    k = int(p.argmax())
    want = (p[k] + sum(p[j] * p[k] / (1 - p[j]) for j in range(81) if j != k)).item()
    found = (first == k).any(1).float().mean().item()
    assert found == pytest.approx(want, abs=4 * math.sqrt(want * (1 - want) / len(first)))
    assert torch.equal(TOY.sample(50, seed=1), TOY.sample(50, seed=1))
    assert not torch.equal(TOY.sample(50, seed=1), TOY.sample(50, seed=2))


def test_samples_as_tokens():
    index = TOY.sample(20, seed=3)
    data = TOY.tokens(index)
    assert data.symbols == 6 and data.vocabulary == 8
    for (x, won, lost), pair in zip(index.tolist(), data.pairs, strict=True):
        assert pair.prompt == (3 + x,)
        assert pair.chosen == (*TOY.responses[won].tolist(), data.eos)
        assert pair.rejected == (*TOY.responses[lost].tolist(), data.eos)
        assert pair.truth.margin == pytest.approx((TOY.reward[x, won] - TOY.reward[x, lost]).item())
    assert data.strings(data.pairs[0].prompt)[0].startswith("x")


# Pairs of tokens -----------------------------------------------------------------------------------


def kinds(task, response):
    """Good and bad key tokens of a response."""
    good = sum(task.fillers <= t < task.fillers + task.kinds for t in response)
    bad = sum(task.fillers + task.kinds <= t < task.fillers + 2 * task.kinds for t in response)
    return good, bad


@pytest.mark.parametrize("cue", [-1.0, 0.0, 0.6])
def test_length_is_a_cue_of_that_correlation_and_says_nothing_of_content(cue):
    task = KeyTokens(keys=2, lowest=4, highest=10, cue=cue, strength=1.2)
    data = task.pairs(4000, seed=1)
    longer, margin, agree = [], [], 0
    for pair in data.pairs:
        (good, bad), (good_, bad_) = (kinds(task, r) for r in (pair.chosen, pair.rejected))
        assert good + bad == good_ + bad_ == 2
        assert pair.truth.margin == pytest.approx(0.6 * ((good - bad) - (good_ - bad_)))
        for response, marks in zip((pair.chosen, pair.rejected), pair.truth.marks, strict=True):
            assert response[-1] == data.eos and 4 <= len(response) - 1 <= 10
            assert [task.fillers <= t < data.eos for t in response] == list(marks)
        difference = len(pair.chosen) - len(pair.rejected)
        if difference:
            longer.append(1 if difference > 0 else -1)
            margin.append(pair.truth.margin)
        agree += pair.truth.margin > 0
    longer, margin = torch.tensor(longer, dtype=torch.float64), torch.tensor(margin)
    assert longer.mean().item() == pytest.approx(cue, abs=0.06)
    if abs(cue) < 1:
        corr = torch.corrcoef(torch.stack([longer, margin.double()]))[0, 1]
        assert abs(corr.item()) < 0.07  # given the label, length knows nothing of the content
    # Bradley-Terry: among pairs that differ, sigma of the gap's size is the share of good labels
    sizes = torch.tensor([p.truth.margin for p in data.pairs])
    for size in (1.2, 2.4):
        inside = (sizes.abs() - size).abs() < 1e-4
        share = (sizes[inside] > 0).float().mean().item()
        assert share == pytest.approx(1 / (1 + math.exp(-size)), abs=0.05)
    assert agree / len(sizes) > 0.4


def test_without_strength_the_label_ignores_content():
    task = KeyTokens(strength=0.0, cue=0.8)
    pairs = task.pairs(3000).pairs
    better = [kinds(task, p.chosen)[0] - kinds(task, p.rejected)[0] for p in pairs]
    decided = [b > 0 for b in better if b]
    assert sum(decided) / len(decided) == pytest.approx(0.5, abs=0.05)


def test_the_probe_changes_length_alone():
    task = KeyTokens(keys=3, lowest=5, highest=12)
    probe = task.probe(50, seed=4)
    for pair in probe.pairs:
        assert (len(pair.chosen), len(pair.rejected)) == (13, 6)
        keys = [
            [t for t in r if task.fillers <= t < probe.eos] for r in (pair.chosen, pair.rejected)
        ]
        assert keys[0] == keys[1] and len(keys[0]) == 3 and pair.truth.margin == 0
    assert probe.names == task.pairs(1).names
    assert task.probe(50, seed=4).pairs == probe.pairs


def test_shared_tokens_are_the_same_in_the_same_order():
    data = shared_pairs(60, shared=6, chosen_only=5, rejected_only=3, words=9, seed=1)
    for pair in data.pairs:
        common = []
        for response, marks, own, sign in zip(
            (pair.chosen, pair.rejected), pair.truth.marks, (5, 3), "+-", strict=True
        ):
            words = data.strings(response)
            assert len(response) == len(marks) == 6 + own + 1 and words[-1] == "<eos>"
            assert [w[0] == "w" for w in words] == list(marks)
            assert sum(w[0] == sign for w in words) == own
            common.append([w for w, m in zip(words, marks, strict=True) if m])
        assert common[0] == common[1]
    assert len({p.truth.marks for p in data.pairs}) > 10  # at random places
    assert len(shared_pairs(1, shared=0).pairs[0].chosen) == 9


def test_a_decisive_token_stands_in_the_chosen_response_alone():
    data = decisive_pairs(60, length=7, words=5, seed=1)
    for pair in data.pairs:
        apart = [k for k in range(8) if pair.chosen[k] != pair.rejected[k]]
        assert len(apart) == 1
        assert data.strings(pair.chosen)[apart[0]] == "!"
        assert "!" not in data.strings(pair.rejected)
        assert pair.truth.marks == (tuple(k == apart[0] for k in range(8)), (False,) * 8)
    assert len({p.truth.marks for p in data.pairs}) == 7


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: enumerable(symbols=8, length=5), r"symbols \*\* length must be at most 4096"),
        (lambda: enumerable(prompts=0), "prompts at least 1"),
        (lambda: enumerable(strength=-1.0), "strength and spread must be at least 0"),
        (lambda: TOY.optimum(0.0), "beta must be above 0, got 0.0"),
        (lambda: TOY.sample(0), "pairs must be >= 1 and sharpness above 0, got 0, 1.0"),
        (lambda: KeyTokens(keys=9, lowest=6), "1 <= keys <= lowest <= highest must hold"),
        (lambda: KeyTokens(cue=1.5), r"cue must be in -1..1 and strength at least 0, got 1.5"),
        (lambda: KeyTokens(kinds=0), "fillers and kinds must be at least 1, got 16, 0"),
        (lambda: KeyTokens().pairs(0), "count and words must be at least 1, got 0, 1"),
        (lambda: shared_pairs(5, chosen_only=0, rejected_only=0), "the last two not both 0"),
        (lambda: shared_pairs(5, words=0), "count and words must be at least 1, got 5, 0"),
        (lambda: decisive_pairs(5, length=0), "length must be at least 1, got 0"),
    ],
)
def test_bad_values_say_what_is_right(call, says):
    with pytest.raises(ValueError, match=says) as error:
        call()
    assert "\n" not in str(error.value)
