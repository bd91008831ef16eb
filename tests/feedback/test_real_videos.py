"""KuaiRand's feedback: statistics of past days only, ids and buckets of training rows, refusals."""

import numpy as np
import polars as pl
import pytest
from paperlab.feedback.real_videos import ACCOUNT, COUNTED, buckets, known_ids, of_tables, past_days


def tables(rows=400, seed=0):
    rng = np.random.default_rng(seed)
    click = rng.random(rows) < 0.6
    events = pl.DataFrame(
        {
            "user_id": rng.integers(0, 8, rows),
            "video_id": rng.integers(0, 30, rows),
            "date": rng.choice([20220416, 20220417, 20220418, 20220419], rows),
            "hourmin": 100 * rng.integers(0, 24, rows),
            "duration_ms": rng.integers(0, 5, rows) * 10_000,
            "is_click": click.astype(int),
            "long_view": (click & (rng.random(rows) < 0.5)).astype(int),
            "is_comment": (rng.random(rows) < 0.1).astype(int),
            "play_time_ms": rng.integers(0, 60_000, rows),
        }
    )
    users = pl.DataFrame(
        {"user_id": range(8), **{c: [f"{c}{k % 3}" for k in range(8)] for c in ACCOUNT}}
    )
    return events, users


def test_past_days_by_hand():
    events = pl.DataFrame(
        {
            "user_id": [1, 1, 1, 1, 2],
            "date": [1, 1, 2, 4, 4],
            "is_click": [1, 0, 1, 0, 1],
            "long_view": [0, 0, 1, 0, 1],
            "is_comment": [0, 0, 0, 1, 0],
        }
    )
    found = past_days(events, "user_id").to_dicts()
    assert [r["past_user_id_rows"] for r in found] == [None, 2, 3, None]
    assert [r["past_user_id_is_click"] for r in found] == [None, 0.5, pytest.approx(2 / 3), None]
    assert [r["past_user_id_is_comment"] for r in found] == [None, 0.0, 0.0, None]


def test_past_days_against_a_loop():
    events, _ = tables(200, 1)
    found = past_days(events, "video_id")
    for row in found.sample(25, seed=0).to_dicts():
        before = events.filter(
            (pl.col("video_id") == row["video_id"]) & (pl.col("date") < row["date"])
        )
        assert row["past_video_id_rows"] == (len(before) or None)
        for c in COUNTED:
            want = before[c].mean()
            assert row[f"past_video_id_{c}"] == (None if want is None else pytest.approx(want))


def test_features_do_not_depend_on_the_rows_own_day_or_later():
    """Whatever happens on the test day, features and training ids stay."""
    events, users = tables()
    last = pl.col("date") == 20220419
    changed = events.with_columns(
        pl.when(last).then(1 - pl.col(c)).otherwise(pl.col(c)).alias(c) for c in COUNTED
    )
    a, b = (of_tables(e, users, ("click", "comment")) for e in (events, changed))
    for part in ("train", "valid", "test"):
        assert (getattr(a, part).ids == getattr(b, part).ids).all()
    assert (a.test.labels != b.test.labels).all()


def test_parts_labels_and_rare_ids():
    events, users = tables()
    log = of_tables(events, users, ("click", "long_view", "comment", "seconds"))
    sizes = [len(p) for p in (log.train, log.valid, log.test)]
    days = events["date"].to_numpy()
    assert sizes == [(days < 20220418).sum(), (days == 20220418).sum(), (days > 20220418).sum()]
    assert log.train.labels[:, 3].max() < 60 and log.train.labels[:, :3].unique().tolist() == [0, 1]
    assert set(log.user("test").tolist()) <= set(range(8))
    total = sum(p.labels[:, 0].sum().item() for p in (log.train, log.valid, log.test))
    assert total == events["is_click"].sum()


def test_ids_and_buckets_come_from_training_rows():
    train = np.array([True] * 5 + [False] * 2)
    assert known_ids(np.array(list("bbaacda")), train, 2).tolist() == [2, 2, 1, 1, 0, 0, 1]
    assert known_ids(np.array(list("abcdefg")), train, 2).tolist() == [0] * 7
    values = np.array([1.0, 2.0, 3.0, 4.0, np.nan, 99.0, np.nan])
    assert buckets(values, train, 2).tolist() == [1, 1, 2, 2, 0, 2, 0]
    assert buckets(np.full(7, np.nan), train, 2).tolist() == [0] * 7


def test_an_unknown_label_is_refused():
    events, users = tables(20)
    with pytest.raises(
        ValueError, match="labels must be one of click, long_view, comment, seconds"
    ):
        of_tables(events, users, ("like",))
