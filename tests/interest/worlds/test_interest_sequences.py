"""The generator does what its page says: the planted law is in the rows, and truth is the ceiling."""

import numpy as np
import pytest
import torch
from paperlab import metrics
from paperlab.interest.worlds.interest_sequences import UNIT, interest_sequences


def test_logits_are_the_planted_sum_row_by_row():
    for decay in ("rank", "time"):
        log = interest_sequences(300, decay=decay, lengths=(0, 7), seed=3)
        truth, batch = log.truth, log.test.take(slice(None))
        for row, logit in enumerate(truth.logits):
            history = [e for e in batch.history[row].tolist() if e[0]]
            hours = batch.elapsed[row][batch.history[row, :, 0] > 0].tolist()
            target = int(batch.ids[row, 1])
            total = truth.bias
            for back, ((_, category), h) in enumerate(
                zip(reversed(history), reversed(hours), strict=True), 1
            ):
                apart = min((category - target) % 20, (target - category) % 20)
                weight = {0: 4, 1: 1}.get(apart, 0)
                total += weight * (0.6 ** (back - 1) if decay == "rank" else 0.6 ** (h / UNIT))
            assert logit == pytest.approx(total, abs=1e-5)


def test_items_mean_their_category_and_times_go_forward():
    log = interest_sequences(500, lengths=(3, 9))
    ids, events = log.train.ids, log.events.ids
    assert torch.equal((ids[:, 0] - 1) // 50 + 1, ids[:, 1])
    assert torch.equal((events[:, 0] - 1) // 50 + 1, events[:, 1])
    batch = log.train.take(slice(None))
    real = batch.history[..., 0] > 0
    assert real.sum(1).min() == 3 and real.sum(1).max() == 9
    assert (batch.elapsed[real] >= 0).all()
    assert (batch.elapsed[:, 1:] <= batch.elapsed[:, :-1])[real[:, :-1]].all()


def test_half_are_positive_and_the_truth_is_a_ceiling():
    log = interest_sequences(40_000)
    labels = torch.cat([getattr(log, p).labels for p in ("train", "valid", "test")])
    assert labels.mean() == pytest.approx(0.5, abs=0.01)
    assert 0.66 < log.truth.bayes_auc < 0.74
    assert log.truth.g(np.array([1, 2, 3])).tolist() == pytest.approx([1, 0.6, 0.36])
    last = log.test.take(slice(None)).history[:, -1, 1].long()
    nearest = torch.from_numpy(log.truth.weight)[last, log.test.ids[:, 1].long()]
    part = metrics.auc(nearest, log.test.labels[:, 0])
    assert 0.55 < part < log.truth.bayes_auc  # the last event alone says something, not all


def test_the_law_changes_the_labels_and_not_the_events():
    rank, time = (interest_sequences(400, decay=d, lengths=(2, 6)) for d in ("rank", "time"))
    assert torch.equal(rank.events.ids, time.events.ids)
    assert torch.equal(rank.events.times, time.events.times)
    assert not torch.equal(rank.train.labels, time.train.labels)
    assert not torch.equal(
        rank.events.ids, interest_sequences(400, lengths=(2, 6), seed=1).events.ids
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 5}, "rows must be at least 10"),
        ({"decay": "day"}, "decay must be rank or time"),
        ({"rate": 0.0}, r"rate must be in \(0, 1\]"),
        ({"lengths": (5, 2)}, "lengths must be 0 <= least <= most"),
        ({"lengths": (0, 0)}, "most >= 1"),
        ({"categories": 3}, "categories must be at least 4"),
        ({"items": 0}, "items must be at least 1"),
    ],
)
def test_bad_input_is_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        interest_sequences(**{"rows": 50} | options)
