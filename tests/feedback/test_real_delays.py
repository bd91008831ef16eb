"""Carts and purchases: delays in days of Beijing, counts of the past only."""

import polars as pl
import pytest
from paperlab.feedback import real_delays
from paperlab.feedback.real_delays import DAY, START, carts

EVENTS = [  # user, item, hours since the start, behaviour
    (1, 10, 5, "fav"),
    (1, 10, 6, "cart"),  # bought next day, although less than 24 hours later
    (1, 10, 26, "buy"),
    (2, 10, 30, "cart"),  # never bought
    (2, 11, 10, "cart"),  # bought on the same day
    (2, 11, 11, "buy"),
    (3, 11, 47, "buy"),  # bought before: left out
    (3, 11, 48, "cart"),
    (3, 12, 24 * 4 + 23, "cart"),  # bought on the fifth day after: too late
    (3, 12, 24 * 9 + 1, "buy"),
    (4, 12, 24 * 5, "cart"),  # of the sixth day: left out
]


def frame() -> pl.DataFrame:
    rows = [(u, i, START + h * 3600, b) for u, i, h, b in EVENTS]
    return pl.DataFrame(rows, ("user", "item", "timestamp", "behavior"), orient="row")


def test_carts_delays_and_counts_by_hand():
    rows = carts(frame()).rows(named=True)
    assert [(r["user"], r["day"], r["delay"]) for r in rows] == [
        (1, 0, 1),
        (2, 0, 0),
        (2, 1, None),
        (3, 4, None),
    ]
    first, second, third, last = rows
    assert first["favourite"] == 1 and second["favourite"] == 0
    assert first["hour"] == 6 and last["hour"] == 23
    assert third["cart by user"] == 1  # one cart of theirs before: log2(1 + 1)
    assert third["buy by user"] == 1 and third["buy by item"] == 1 and third["cart by item"] == 1
    assert first["cart by user"] == 0 and first["fav by user"] == 1


def test_the_future_changes_no_field():
    early = frame().filter(pl.col("timestamp") < START + 3 * DAY)
    columns = ["user", "hour", "favourite", "cart by user", "buy by item", "fav by item"]
    before, after = carts(early).select(columns), carts(frame()).select(columns)
    assert before.rows() == after.rows()[: len(before)]


def test_the_log_reads_the_past_and_users_do_not_meet():
    try:
        log, whole = (real_delays.load(complete=c, seed=1) for c in (False, True))
    except FileNotFoundError:
        pytest.skip("taobao-multibehavior is not at hand")
    for part in ("train", "valid"):
        y, z, d, e = getattr(log, part).labels.unbind(1)
        assert (y == 1).all() and (d <= e).all() and set(e.unique().tolist()) == {0, 1, 2, 3, 4}
        assert 0 < z.sum() < getattr(whole, part).labels[:, 1].sum()
    parts = [set(getattr(log, p).users.tolist()) for p in ("train", "valid", "test")]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert (log.test.labels[:, 3] == real_delays.LAST).all()


def test_a_wrong_seed_is_refused():
    with pytest.raises(ValueError, match="seed must be at least 0"):
        real_delays.load(seed=-1)
