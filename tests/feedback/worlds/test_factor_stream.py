"""The factor stream: its ceiling, its labels, and what moves."""

import pytest
import torch
from paperlab import metrics
from paperlab.feedback.worlds.factor_stream import DRIFTS, ITEMS, USERS, factor_stream


@pytest.mark.parametrize("drift", DRIFTS)
def test_ceiling_rates_and_labels(drift):
    stream = factor_stream(drift, seed=1)
    assert len(stream.periods) == 22 and all(len(p) == 2_048 for p in stream.periods)
    for period, p in zip(stream.periods, stream.truth, strict=True):
        assert 0.79 < metrics.exact_auc(p, p) < 0.87
        assert period.labels.mean().item() == pytest.approx(p.mean().item(), abs=0.045)
        ids = period.ids
        assert ids[:, 0].min() >= 1 and ids[:, 0].max() <= USERS and ids[:, 1].max() <= ITEMS


@pytest.mark.parametrize("drift", DRIFTS)
def test_what_moves(drift):
    """The same pairs in a late period: their probabilities stay, wander or turn."""
    stream = factor_stream(drift, periods=12, rows=20_000, seed=2)

    def table(t):
        pair = stream.periods[t].ids[:, 0].long() * (ITEMS + 1) + stream.periods[t].ids[:, 1]
        whole = torch.full(((USERS + 1) * (ITEMS + 1),), torch.nan, dtype=torch.float64)
        whole[pair] = torch.logit(stream.truth[t])
        return whole

    def likeness(t):
        a, b = table(0), table(t)
        both = ~(a.isnan() | b.isnan())
        return torch.corrcoef(torch.stack([a[both], b[both]]))[0, 1].item()

    near, far = likeness(1), likeness(11)
    if drift == "none":
        assert near == pytest.approx(1) and far == pytest.approx(1)
    else:
        assert near > 0.9 and far < near - 0.1


def test_seeds_and_wrong_arguments():
    a, b, c = (factor_stream(periods=2, rows=50, seed=s) for s in (0, 0, 1))
    assert torch.equal(a.truth[1], b.truth[1]) and not torch.equal(a.truth[1], c.truth[1])
    for wrong in ({"drift": "jump"}, {"periods": 0}, {"rows": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match="must be"):
            factor_stream(**wrong)
