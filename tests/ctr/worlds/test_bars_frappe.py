"""Redrawn negatives and moved rows: what stays, what changes, and in which shares."""

import numpy as np
import pytest
import torch
from paperlab.ctr.worlds.bars_frappe import bars_frappe
from paperlab.data.schema import Field, Schema
from paperlab.data.store import from_arrays

APPS = 30


def log(rows: int = 2000, second: str = "item"):
    """Users and apps drawn evenly, the last app never used, a third of rows positive, split 8:1:1."""
    draw = np.random.default_rng(0)
    labels = (np.arange(rows) % 3 == 0).astype("f4")[:, None]
    ids = np.stack([draw.integers(1, 9, rows), draw.integers(1, APPS, rows)], 1)
    ids[labels[:, 0] == 0, 1] = APPS
    part = np.repeat(np.arange(3), [rows * 8 // 10, rows // 10, rows // 10])
    schema = Schema((Field("user", size=9), Field(second, size=APPS + 1)))
    return from_arrays("toy", schema, ids, labels, part)


def test_shares_are_seven_two_one_and_no_row_is_lost():
    old, new = log(), bars_frappe(log())
    assert [len(s) for s in (new.train, new.valid, new.test)] == [1400, 400, 200]
    clicks = [sum(float(s.labels.sum()) for s in (d.train, d.valid, d.test)) for d in (old, new)]
    assert clicks[0] == clicks[1] > 0


def test_only_apps_of_negatives_change_and_only_to_used_apps():
    old, new = log().test, bars_frappe(log()).test
    positive = old.labels[:, 0] == 1
    assert torch.equal(new.labels, old.labels) and torch.equal(new.ids[:, 0], old.ids[:, 0])
    assert torch.equal(new.ids[positive], old.ids[positive])
    assert (old.ids[~positive, 1] == APPS).all() and (new.ids[~positive, 1] < APPS).all()


def test_a_seed_repeats_and_another_redraws():
    first, again, other = (bars_frappe(log(), seed).test.ids for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_log_without_items_is_refused():
    with pytest.raises(ValueError, match="field item, got user, app"):
        bars_frappe(log(second="app"))
