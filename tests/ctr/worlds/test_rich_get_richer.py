import pytest
import torch
from paperlab.ctr.next_item import hit, ranks
from paperlab.ctr.worlds.rich_get_richer import EACH, count_scores, rich_get_richer

WORLD = rich_get_richer(2000, length=20, seed=1)


def whole(world):
    parts = (world.train, world.valid, world.test)
    return torch.cat([torch.cat([p.items, p.target[:, -1:]], 1) for p in parts])


def test_records():
    items = whole(WORLD)
    assert items.shape == (2000, 20) and items.min() == 1 and items.max() == 200
    assert [len(p) for p in (WORLD.train, WORLD.valid, WORLD.test)] == [1600, 200, 200]
    for record in items[:200].tolist():
        assert len({(i - 1) // EACH for i in record}) <= 5


def test_new_draws_fall_as_five_over_five_plus_t():
    """Distinct items of a record are at most its new draws; repeats of a new draw are rare early."""
    items = whole(WORLD)
    fresh = [(items[:, t, None] != items[:, :t]).all(1).double().mean().item() for t in range(20)]
    assert fresh[0] == 1.0
    for t in (5, 19):
        assert 0.3 * 5 / (5 + t) < fresh[t] < 5 / (5 + t)


def test_the_oracle_beats_popularity():
    target = WORLD.test.target.flatten()
    oracle = hit(ranks(count_scores(WORLD.test, WORLD.train).flatten(0, 1), target)).mean()
    popular = WORLD.train.items.flatten().bincount(minlength=201).float()
    popular = hit(ranks(popular.expand(len(target), -1), target)).mean()
    assert oracle > popular + 0.3 and popular > 0.1


def test_count_scores_by_a_loop():
    scores = count_scores(WORLD.test, WORLD.train)
    record, step = WORLD.test.items[3], 7
    for item in (record[0].item(), record[7].item(), 200):
        times = sum(i == item for i in record[: step + 1].tolist())
        share = (WORLD.train.items == item).sum() / (WORLD.train.items.numel() + 1)
        assert scores[3, step, item].item() == pytest.approx(times + share.item(), rel=1e-5)


def test_arrivals():
    """With arrivals many items of the end are not in the first half; without, hardly any is missing."""
    for arrivals, low, high in ((False, 0, 2), (True, 40, 110)):
        items = whole(rich_get_richer(4000, length=20, arrivals=arrivals, seed=0))
        early, late = set(items[:400].flatten().tolist()), set(items[-1000:].flatten().tolist())
        assert low <= len(late - early) <= high


def test_bad_sizes():
    with pytest.raises(ValueError, match="records must be at least 10, got 9"):
        rich_get_richer(9)
