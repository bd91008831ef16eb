"""The world of late conversions: labels agree with the clock, and rates with the known truth."""

import pytest
import torch
from paperlab.feedback.worlds.delays import DAYS, EARLY, LATE, delays


@pytest.mark.parametrize("world", ["A", "B", "C", "D"])
def test_labels_agree_with_the_clock(world):
    log = delays(world, 4_000, held=500, seed=3)
    y, z, d, e = log.train.labels.unbind(1)
    assert (z <= y).all() and (d[z == 1] <= e[z == 1]).all() and (d[z == 0] == 0).all()
    assert e.unique().tolist() == [*range(DAYS + 1)]
    assert (log.test.labels[:, 3] == DAYS).all()
    truth = log.truth
    assert truth.seen == int(z.sum()) < truth.conversions < truth.clicks == int(y.sum())


def test_an_oracle_sees_the_same_rows_when_all_has_arrived():
    now, later = (delays("B", 4_000, held=500, complete=c, seed=5) for c in (False, True))
    assert torch.equal(now.train.ids, later.train.ids)
    assert torch.equal(now.train.labels[:, 0], later.train.labels[:, 0])
    assert later.train.labels[:, 1].sum() == later.truth.conversions == now.truth.conversions
    assert (later.train.labels[:, 1] >= now.train.labels[:, 1]).all()


@pytest.mark.parametrize("world", ["A", "B", "C", "D"])
def test_rates_are_the_known_ones(world):
    log = delays(world, 1_000, held=60_000, seed=1)
    truth, (y, z, d, _) = log.truth, log.test.labels.unbind(1)
    assert y.mean().item() == pytest.approx(truth.click.mean().item(), abs=0.01)
    clicked = y == 1
    expected = (truth.click * truth.conversion).sum() / truth.click.sum()
    assert z[clicked].mean().item() == pytest.approx(expected.item(), abs=0.015)
    assert torch.allclose(truth.delay.sum(1), torch.ones(60_000, dtype=torch.float64))
    weight = (truth.click * truth.conversion)[:, None]
    expected = (weight * truth.delay).sum(0) / weight.sum()
    seen = torch.bincount(d[z == 1].long(), minlength=DAYS + 1) / z.sum()
    assert seen.tolist() == pytest.approx(expected.tolist(), abs=0.02)
    if world == "A":
        assert truth.delay[0].tolist() == pytest.approx(EARLY.tolist())


def test_in_world_c_what_converts_does_so_late():
    def mean_delay(world):
        truth = delays(world, 10, held=30_000, seed=2).truth
        return torch.corrcoef(
            torch.stack([truth.conversion, truth.delay @ torch.arange(DAYS + 1.0).double()])
        )[0, 1].item()

    assert mean_delay("C") > 0.3 and abs(mean_delay("B")) < 0.2
    assert EARLY.sum() == pytest.approx(1) and LATE.sum() == pytest.approx(1)


def test_in_world_d_a_day_takes_the_same_share_each_time():
    f = delays("D", 10, held=50, seed=0).truth.delay
    share = f[:, 1:] / f[:, :-1]
    assert torch.allclose(share, share[:, :1].expand_as(share)) and share[:, 0].std() > 0.05


@pytest.mark.parametrize("wrong", [("E", 10), ("A", 0)])
def test_wrong_worlds_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        delays(*wrong)


def test_what_is_later_than_the_oldest_click_is_never_seen():
    log = delays("A", 20_000, held=500, latest=2, seed=4)
    d, e = log.train.labels[:, 2:].unbind(1)
    assert e.max() == 2 and d.max() == 2
    share = log.truth.seen / log.truth.conversions
    assert share == pytest.approx((3 * EARLY[0] + 2 * EARLY[1] + EARLY[2]) / 3, abs=0.03)
    with pytest.raises(ValueError, match="latest must be one of"):
        delays("A", 10, latest=8)
