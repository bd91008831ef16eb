import pytest
import torch
from paperlab.ctr.worlds.counts import Counts, counts, frequency_ceiling

WORLD = counts(400, held=2000, seed=3)


def test_labels_are_what_a_loop_counts():
    part = WORLD.train
    for tokens, target, count in zip(part.history, part.target, part.count, strict=True):
        assert 11 <= target.item() <= 20
        assert sum(t == target.item() - 10 for t in tokens.tolist()) == count.item()


def test_histories_are_padded_on_the_left():
    there = WORLD.test.history > 0
    assert (there[:, 1:] >= there[:, :-1]).all()
    lengths = there.sum(1)
    assert lengths.min() == 5 and lengths.max() == 40
    assert lengths.double().mean().item() == pytest.approx(22.5, abs=1)
    assert WORLD.test.history.max() == 10


def test_the_ceiling_of_frequencies():
    """.71 in the plan; 1 where all histories have one length, so that frequency is the count."""
    assert frequency_ceiling(WORLD.test) == pytest.approx(0.71, abs=0.05)
    whole = WORLD.test.history[:, -5:]
    same = Counts(whole, WORLD.test.target, (whole == WORLD.test.target - 10).sum(1, True).float())
    assert frequency_ceiling(same) == pytest.approx(1.0, abs=1e-6)


def test_seeds_and_parts_differ():
    again, other = counts(400, held=2000, seed=3), counts(400, held=2000, seed=4)
    assert torch.equal(again.test.history, WORLD.test.history)
    assert not torch.equal(other.test.history, WORLD.test.history)
    assert not torch.equal(WORLD.valid.history, WORLD.test.history)
    assert (WORLD.test.frequency <= 1).all()


def test_bad_sizes():
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        counts(0)
