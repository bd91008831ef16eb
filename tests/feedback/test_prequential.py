"""Test-then-train: no label is seen before its period has been tested, and metrics are the truth's."""

import math

import pytest
import torch
from paperlab import metrics
from paperlab.feedback import prequential
from paperlab.feedback.asmg import Base
from paperlab.feedback.prequential import Stream, Trained, joined, test_then_train
from paperlab.feedback.worlds.factor_stream import factor_stream


class Witness:
    """Notes what it is shown."""

    def __init__(self):
        self.learned, self.tested = [], []

    def update(self, periods):
        assert not torch.cat([p.values for p in periods]).isnan().any()
        self.learned.append(len(periods))

    def predict(self, period):
        self.tested.append((period.ids, self.learned[-1], period.labels.isnan().all().item()))
        return torch.zeros(len(period))


def test_a_period_is_tested_before_it_is_learned_and_without_labels():
    stream, witness = factor_stream(periods=6, rows=20, seed=1), Witness()
    assert [t for t, _ in test_then_train(witness, stream, 2)] == [2, 3, 4, 5]
    assert witness.learned == [2, 3, 4, 5]  # the last period is never learned
    for t, (ids, learned, hidden) in enumerate(witness.tested, 2):
        assert torch.equal(ids, stream.periods[t].ids) and learned == t and hidden
    assert not stream.periods[3].labels.isnan().any()


@pytest.mark.parametrize("how", [{}, {"window": 2, "restart": True}, {"replay": 15}])
def test_labels_of_a_period_change_no_earlier_score(how):
    stream = factor_stream(periods=5, rows=40, seed=2)
    flipped = stream.periods[3].values.clone().neg_().add_(1)
    changed = (*stream.periods[:3], stream.periods[3].__class__(stream.periods[3].ids, flipped, 0))
    other = Stream("other", stream.schema, (*changed, stream.periods[4]))
    found = []
    for s in (stream, other):
        torch.manual_seed(0)
        found.append([x for _, x in test_then_train(Trained(Base(s.schema), **how), s, 2)])
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][2], found[1][2])


class Constant(Witness):
    def predict(self, period):
        return torch.full((len(period),), math.nan)


def test_faults_are_refused():
    stream = factor_stream(periods=3, rows=10)
    for first in (0, 3):
        with pytest.raises(ValueError, match="first must be in"):
            [*test_then_train(Witness(), stream, first)]
    with pytest.raises(ValueError, match="period 1: a logit that is no NaN"):
        [*test_then_train(Constant(), stream, 1)]
    for wrong in ({"window": 0}, {"epochs": 0}, {"replay": -1}):
        with pytest.raises(ValueError, match="must be at least"):
            Trained(Base(stream.schema), **wrong)


def test_rows_hold_the_metrics_and_a_temperature_of_the_period_before():
    stream = factor_stream(periods=4, rows=500, seed=3)
    exact = [(t, 3 * torch.logit(p).float()) for t, p in enumerate(stream.truth)]
    found = prequential.rows(stream, exact[1:])
    assert [r["period"] for r in found] == [1, 2, 3] and found[0]["temperature"] == 1
    for before, row in zip(exact[1:], found[1:], strict=False):
        labels = stream.periods[before[0]].labels[:, 0]
        assert row["temperature"] == metrics.temperature(before[1], labels)
        assert row["temperature"] == pytest.approx(3, rel=0.3)
        assert row["tempered_kl"] < 0.01 < row["kl"] and row["tempered"] < row["logloss"]
        p = stream.truth[row["period"]]
        assert row["exact_auc"] == pytest.approx(metrics.exact_auc(p, p))


def test_joined_and_replay_and_restart():
    stream = factor_stream(periods=4, rows=30, seed=4)
    both = joined(stream.periods[1:3])
    assert torch.equal(both.ids[:30], stream.periods[1].ids) and len(both) == 60
    assert torch.equal(both.labels[30:], stream.periods[2].labels)

    seen = []

    class Spy(Base):
        def loss(self, batch):
            seen.append(batch.ids)
            return super().loss(batch)

    method = Trained(Spy(stream.schema), replay=10, batch_size=1_000)
    method.update(stream.periods[:2]).update(stream.periods[:3])
    assert [len(ids) for ids in seen] == [60, 40]
    past = {tuple(i) for i in joined(stream.periods[:2]).ids.tolist()}
    own = {tuple(i) for i in stream.periods[2].ids.tolist()}
    drawn = [tuple(i) for i in seen[1].tolist()]
    assert own <= set(drawn) and all(i in past | own for i in drawn)

    torch.manual_seed(0)
    twice = Trained(Base(stream.schema), restart=True, window=None)
    twice.update(stream.periods[:2]).update(stream.periods[:3]).update(stream.periods[:4])
    torch.manual_seed(0)
    once = Trained(Base(stream.schema), restart=True, window=None)
    once.update(stream.periods[:2]).update(stream.periods[:4])
    probe = stream.periods[3]
    assert torch.equal(twice.predict(probe), once.predict(probe))


def test_a_diverged_loss_is_an_error():
    stream = factor_stream(periods=2, rows=10)
    model = Base(stream.schema)
    model.user.weight.data.fill_(math.inf)
    with pytest.raises(FloatingPointError, match="not finite"):
        Trained(model).update(stream.periods[:1])
