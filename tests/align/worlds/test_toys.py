"""Known truth: key tokens with a length cue, shared and decisive tokens."""

import math

import pytest
import torch
from paperlab.align.worlds.toys import (
    KeyTokens,
    decisive_pairs,
    shared_pairs,
)


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
