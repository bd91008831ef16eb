"""The drifting world: what moves, what does not, and what buckets make of it."""

import pytest
import torch
from paperlab import metrics
from paperlab.feedback.worlds.drifting import BUCKETS, DAYS, NAMES, drifting


def means(log, part, day=None):
    ids = getattr(log, part).ids.double()
    return ids.mean(0) if day is None else ids[log.truth.day == day].mean(0)


def test_days_parts_and_labels():
    log = drifting(rows=300, seed=1)
    assert [len(getattr(log, p)) for p in ("train", "valid", "test")] == [2100, 300, 2400]
    assert log.truth.day.unique().tolist() == [*range(1, DAYS + 1)]
    assert (
        log.train.times.max()
        < log.valid.times.min()
        <= log.valid.times.max()
        < log.test.times.min()
    )
    assert [f.name for f in log.schema.fields] == [*NAMES["user"], *NAMES["item"]]
    assert log.train.ids.min() >= 1 and log.train.ids.max() <= BUCKETS


def test_labels_are_drawn_with_the_known_probabilities():
    log = drifting(rows=4_000, seed=0)
    p, y = log.truth.probability, log.test.labels[:, 0]
    assert y.mean().item() == pytest.approx(p.mean().item(), abs=0.01)
    assert metrics.auc(p, y) == pytest.approx(metrics.exact_auc(p, p), abs=0.01)
    assert 0.8 < metrics.exact_auc(p, p) < 0.9


def test_four_statistics_a_side_move_and_two_do_not():
    log = drifting(0.25, rows=3_000, seed=2)
    moved = (means(log, "test", DAYS) - means(log, "train")).abs()
    for side in (moved[:6], moved[6:]):
        assert (side[:4] > 3).all() and (side[4:] < 1).all()
    still = drifting(0.0, rows=3_000, seed=2)
    assert ((means(still, "test", DAYS) - means(still, "train")).abs() < 0.8).all()


def test_ranks_within_the_day_do_not_move():
    log = drifting(0.25, rows=3_000, buckets="rank", seed=2)
    assert ((means(log, "test", DAYS) - means(log, "train")).abs() < 0.8).all()
    width = drifting(0.25, rows=3_000, seed=2)
    assert torch.equal(width.test.labels, log.test.labels)
    assert torch.equal(width.truth.probability, log.truth.probability)


def test_statistics_say_something_of_the_latent_vectors_on_every_day():
    """A linear map from within-day ranks to z explains a good part of it, on the last day too."""
    log = drifting(rows=3_000, buckets="rank", seed=3)
    x = log.test.ids[:, :6].double()
    x = torch.cat([x - x.mean(0), torch.ones(len(x), 1)], 1)
    last = log.truth.day == DAYS
    fitted = x @ torch.linalg.lstsq(x[~last], log.truth.user[~last]).solution
    left = (fitted - log.truth.user)[last].square().mean()
    assert left < 0.6 * log.truth.user[last].square().mean()


@pytest.mark.parametrize("wrong", [{"drift": -1.0}, {"rows": 0}, {"buckets": "equal"}])
def test_wrong_worlds_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        drifting(**wrong)
