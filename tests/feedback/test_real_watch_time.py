"""KuaiRand's watch times: no look ahead in ids and buckets, XAUC row by row, sums by user."""

import numpy as np
import polars as pl
import pytest
import torch
from helpers.watch import kuairand_tables
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import intervals, metrics
from paperlab.feedback import real_watch_time as real


def test_days_split_rows_and_later_days_change_no_id():
    events, users = kuairand_tables()
    log = real.of_tables(events, users)
    assert len(log.train) == (events["date"] < 20220418).sum()
    assert len(log.valid) == (events["date"] == 20220418).sum()
    changed = events.with_columns(
        video_id=pl.when(pl.col("date") >= 20220418).then(1000).otherwise("video_id"),
        duration_ms=pl.when(pl.col("date") >= 20220418).then(10**6).otherwise("duration_ms"),
    )
    other = real.of_tables(changed, users)
    assert (other.train.ids == log.train.ids).all()
    assert (other.test.ids[:, 1] == 0).all() and (other.test.ids[:, -1] == 50).all()
    y = 10 * log.train.labels.double()
    assert (y - y.round()).abs().max() < 1e-3
    assert set(log.test.users.tolist()) <= set(range(9))


def test_rare_videos_and_unknown_durations_share_id_0():
    events, users = kuairand_tables()
    log = real.of_tables(events, users)
    counts = dict(events.filter(pl.col("date") < 20220418)["video_id"].value_counts().iter_rows())
    kept = {v for v, n in counts.items() if n >= real.LEAST}
    assert len(log.train.ids[:, 1].unique()) == len(kept) + 1
    train = events.filter(pl.col("date") < 20220418)
    assert (log.train.ids[:, -1] == 0).sum() == (train["duration_ms"] == 0).sum()


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(3, 700), st.integers(0, 99))
def test_rows_average_to_xauc(n, seed):
    draw = torch.Generator().manual_seed(seed)
    predicted = torch.randint(9, (n,), generator=draw).float()
    actual = torch.randint(5, (n,), generator=draw).float()
    actual[0], actual[1] = 0, 1
    rows = real.xauc_by_row(predicted, actual)
    assert rows.mean().item() == pytest.approx(metrics.xauc(predicted, actual))


def test_spread_of_rows_is_that_of_xauc_over_samples():
    draw = torch.Generator().manual_seed(0)
    found, said = [], []
    for _ in range(300):
        actual = torch.rand(120, generator=draw)
        predicted = actual + torch.rand(120, generator=draw)
        rows = real.xauc_by_row(predicted, actual)
        found.append(rows.mean().item())
        said.append((rows.std() / 120**0.5).item())
    assert np.std(found) == pytest.approx(np.mean(said), rel=0.15)


def test_sums_by_user_keep_the_mean():
    values, users = torch.tensor([1.0, 2.0, 4.0, 9.0]), torch.tensor([7, 3, 7, 3])
    sums, rows = real.by_user(values, users)
    assert sums.tolist() == [11, 5] and rows.tolist() == [2, 2]
    zero = np.zeros((1, 2))
    assert intervals.two_level(sums[None], zero, rows).value == pytest.approx(4)
