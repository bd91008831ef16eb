"""Chances by day: worked numbers, the truth's own score, and the two rivals."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paperlab import metrics
from paperlab.feedback import delay_scores
from paperlab.feedback.esdf import ESDF
from paperlab.feedback.worlds.delays import delays


def logit(p: float) -> torch.Tensor:
    return torch.logit(torch.tensor([p]))


def test_worked_chances():
    f = torch.tensor([[0.5, 0.3, 0.2]])
    found = delay_scores.converted_by(logit(0.4), f).sigmoid()
    assert found[0].tolist() == pytest.approx([0.2, 0.32, 0.4], abs=1e-6)


@given(st.floats(0.01, 0.99), st.lists(st.floats(0.01, 1.0), min_size=2, max_size=9))
def test_chances_rise_to_the_conversion_rate(v, shares):
    f = torch.tensor([shares]) / sum(shares)
    found = delay_scores.converted_by(logit(v), f).sigmoid()[0]
    assert (found.diff() > 0).all() and found[-1].item() == pytest.approx(v, abs=1e-5)


def test_the_truth_has_no_divergence_on_any_day_and_a_model_without_delay_has_on_the_first():
    truth = delays("B", 4_000, seed=0).truth
    score = torch.logit(truth.conversion)
    own = delay_scores.against_truth(truth, score, truth.delay)
    assert own["by day"] == pytest.approx([0.0] * 8, abs=1e-6)
    assert own["bias"] == pytest.approx(0.0, abs=1e-6)
    at_once = torch.eye(8)[:1].expand(len(score), 8)
    final = delay_scores.against_truth(truth, score, at_once)["by day"]
    assert final[0] > 0.05 and final[-1] == pytest.approx(0.0, abs=1e-6)


def test_log_loss_by_day_by_hand():
    labels = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]])  # one converts on day 1
    score, f = torch.zeros(2), torch.tensor([[0.5, 0.5]]).expand(2, 2)
    found = delay_scores.against_labels(labels, score, f)
    day_0 = -torch.tensor(0.75).log().item()  # nobody has converted; 1/4 was predicted
    assert found["by day"] == pytest.approx([day_0, found["logloss"]], abs=1e-6)
    assert found["logloss"] == pytest.approx(0.6931472, abs=1e-6) and found["bias"] == 0.0


def test_rivals_follow_esmm_and_the_oracle():
    log = delays("A", 40_000, seed=1)
    model = ESDF(log.schema, delay=None).start_at(log.train)
    (_, score, at_once), (name, scaled, f) = delay_scores.with_rivals("ESMM", model, log)
    assert at_once[:, 0].min() == 1 and name == delay_scores.HISTOGRAM
    true = log.truth.delay[0]
    seen = true.cumsum(0).mean().item()  # days since the click are uniform over 0..7
    assert (score.sigmoid() / scaled.sigmoid()).mean().item() == pytest.approx(seen, abs=0.03)
    assert (f - true).abs().sum(1).max() < 0.1
    complete = delays("A", 40_000, complete=True, seed=1)
    (*_, own), (name, rate, f) = delay_scores.with_rivals("oracle", model, complete)
    assert torch.equal(own, f) and (f - true).abs().sum(1).max() < 0.1
    y, z = complete.train.labels[:, :2].unbind(1)
    assert name == "constant" and rate.min() == rate.max()
    assert rate[0].sigmoid().item() == pytest.approx(z[y == 1].mean().item())
    assert metrics.exact_auc(rate, complete.truth.conversion) == pytest.approx(0.5)
    assert len([*delay_scores.with_rivals("ESDF", ESDF(log.schema), log)]) == 1
