"""Requests of one's own as groups: sizes, histories against a slow version, the past, and no look ahead."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.shown import NAMES, shown
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import data
from paperlab.ctr import own_requests
from paperlab.ctr.own_requests import cut, earlier, past
from paperlab.ctr.worlds.requests import GIFT, OWN
from paperlab.data.own.requests import ShownRequests

LOG = data.from_frame(shown(), "requests", name="x", **NAMES)


def of_sizes(*sizes: int) -> ShownRequests:
    """Requests of these sizes, one a moment, of two users by turns; labels by turns."""
    request = np.repeat(np.arange(len(sizes)), sizes)
    n = np.arange(len(request))
    part = np.minimum(2, request * 3 // len(sizes))
    return ShownRequests(
        "x", request, request % 2, 2 + n % 5, request * 1.0, np.float32(n % 2), part, np.ones((len(n), 1), np.float32)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "size", "rows"),
    [
        ([6] * 10, 6, 60),
        ([20] * 9, 10, 180),  # 16 at most; 16 would leave a fifth
        ([6] * 9 + [1, 2, 3], 6, 54),
        ([4] * 8 + [7, 7], 4, 40),  # 87 %
        ([2, 3] * 6, 2, 24),  # a leftover of a fifth is too much for every size: the smallest
        ([1] * 8 + [3], 2, 2),
    ],
)
def test_the_size_of_groups(sizes, size, rows):
    found = cut(of_sizes(*sizes), 4)
    assert found.shown.shape == (rows // size, size)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=3, max_size=12), st.integers(2, 9))
def test_a_group_is_of_one_request_and_a_row_of_one_group(sizes, size):
    if max(sizes) < size:
        with pytest.raises(ValueError, match=f"no request has {size} candidates; the largest has"):
            cut(of_sizes(*sizes), 4, size)
        return
    log = of_sizes(*sizes)
    found = cut(log, 4, size)
    of = log.request[found.shown]
    assert (of == of[:, :1]).all() and (np.diff(of[:, 0]) >= 0).all()
    assert len(np.unique(found.shown)) == found.shown.size
    assert np.bincount(of[:, 0], minlength=len(sizes)).tolist() == [n // size for n in sizes]


def test_histories_against_a_slow_version():
    found = cut(LOG, 5)
    requests, rows = found.requests(), range(len(LOG))
    assert found.shown.shape == (60, 4)
    whole = {n: torch.cat([getattr(getattr(requests, p), n) for p in ("train", "valid", "test")])
             for n in vars(requests.train)}  # fmt: skip
    for g, shown_rows in enumerate(found.shown):
        one = shown_rows[0]
        own = [r for r in rows if LOG.user[r] == LOG.user[one] and LOG.time[r] < LOG.time[one]][-5:]
        none = [0] * (5 - len(own))
        assert whole["items"][g].tolist() == none + LOG.item[own].tolist()
        assert whole["flags"][g].tolist() == none + [OWN if y else GIFT for y in LOG.label[own]]
        assert whole["candidates"][g].tolist() == LOG.item[shown_rows].tolist()
        assert whole["labels"][g].tolist() == LOG.label[shown_rows].tolist()
        assert whole["group"][g] == LOG.user[one]
    assert requests.vocabulary == LOG.item.max() + 1
    assert len(requests.train) + len(requests.valid) + len(requests.test) == 60


def test_features_of_groups():
    found = cut(LOG, 5)
    world, past_item = found.groups(), past(LOG, LOG.item)
    tested = found.shown[found.part == 2]
    columns = np.concatenate([LOG.features, past_item, np.zeros((len(LOG), 1))], 1)
    np.testing.assert_allclose(world.test.candidates, columns[tested], rtol=1e-6)
    columns[:, -1] = 2 * LOG.label - 1
    before = found.before[found.part == 2]
    expected = columns[before] * (before >= 0)[..., None]
    np.testing.assert_allclose(world.test.history, expected, rtol=1e-6)
    said = past(LOG, LOG.user)[tested[:, 0]]
    np.testing.assert_allclose(world.test.described[:, 0, 1:], said, rtol=1e-6)
    assert (world.test.described[..., 0] == 1).all()
    assert world.test.anchors.shape == (len(tested), 0, 1, columns.shape[1])
    np.testing.assert_allclose(world.utility, past_item[tested, 0])


def test_the_past_against_a_slow_version():
    log, found = LOG, past(LOG, LOG.item)
    rate, raw = log.label[log.part == 0].mean(), []
    for r in range(len(log)):
        own = log.label[(log.item == log.item[r]) & (log.time < log.time[r])]
        raw.append(((own.sum() + 10 * rate) / (len(own) + 10), np.log1p(len(own))))
    raw = np.array(raw)
    train = raw[log.part == 0]
    np.testing.assert_allclose(found, (raw - train.mean(0)) / train.std(0), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=40))
def test_earlier_rows_are_those_of_the_key_before(rows):
    key, time = np.array(sorted(rows, key=lambda r: r[1])).T
    order, first, at = earlier(key, time * 0.5)
    for r in range(len(key)):
        expected = np.flatnonzero((key == key[r]) & (time < time[r]))
        assert order[first[r] : at[r]].tolist() == expected.tolist()


def test_labels_of_a_moment_are_seen_by_later_ones_alone():
    moment = LOG.time[LOG.part == 2].min()
    other = replace(LOG, label=np.where(LOG.time == moment, 1 - LOG.label, LOG.label))
    for name in ("requests", "groups"):
        a, b = (getattr(cut(log, 5), name)() for log in (LOG, other))
        for part in ("train", "valid", "test"):
            one, two = (vars(getattr(world, part)) for world in (a, b))
            late = (cut(LOG, 5).part == 2) & (LOG.time[cut(LOG, 5).shown[:, 0]] > moment)
            same = ~late[cut(LOG, 5).part == 2] if part == "test" else slice(None)
            for column in set(one) - {"labels", "probability"}:
                assert one[column][same].equal(two[column][same])
    flags = (cut(log, 5).requests().test.flags for log in (LOG, other))
    assert not torch.equal(*flags)


def test_faults_are_one_line():
    with pytest.raises(ValueError, match="x: no request has 5 candidates; the largest has 4"):
        cut(LOG, 5, 5)
    with pytest.raises(ValueError, match="candidates must be at least 2, got 1"):
        cut(LOG, 5, 1)
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        own_requests.cut(LOG, 0)
