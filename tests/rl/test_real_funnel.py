"""Counts before a moment against a slow version; folds; and the real core where it is at hand."""

import os

import numpy as np
import polars as pl
import pytest
import torch
from paperlab.rl import real_funnel
from paperlab.rl.real_funnel import RealFunnel, earlier, follow_scores


def planted(n=1000, users=60, seed=0):
    """A funnel in which the first feature decides clicks and the second follows."""
    draw = torch.Generator().manual_seed(seed)
    obs = torch.randn(n, 4, generator=draw)
    click = (torch.rand(n, generator=draw) < (2 * obs[:, 0]).sigmoid()).float()
    follow = click * (torch.rand(n, generator=draw) < (3 * obs[:, 1] - 1).sigmoid())
    user = np.random.default_rng(seed).integers(0, users, n) * 7
    return RealFunnel(obs, click, follow, user, ("a", "b", "earlier_user_id_is_follow", "d"))


def test_counts_are_of_strictly_earlier_rows():
    draw = np.random.default_rng(0)
    size = 200
    events = {"user_id": draw.integers(0, 9, size), "time_ms": np.sort(draw.integers(0, 60, size))}
    events |= {name: draw.integers(0, 2, size) for name in real_funnel.EVENTS}
    table = pl.DataFrame(events)
    found = table.join(earlier(table, "user_id"), on=["user_id", "time_ms"], maintain_order="left")
    for i in range(size):
        before = (events["user_id"] == events["user_id"][i]) & (
            events["time_ms"] < events["time_ms"][i]
        )
        assert found["earlier_user_id_rows"][i] == before.sum()
        for name in real_funnel.EVENTS:
            assert found[f"earlier_user_id_{name}"][i] == events[name][before].sum()
    assert found["earlier_user_id_rows"].max() > 5


def test_a_users_rows_share_a_fold():
    data = planted()
    fold = data.folds(3)
    for user in np.unique(data.user):
        assert len(set(fold[data.user == user])) == 1
    assert sorted(set(fold)) == [0, 1, 2, 3, 4]
    assert (fold == data.folds(3)).all() and (fold != data.folds(4)).any()


def test_planted_follows_are_ranked_out_of_fold():
    from sklearn.metrics import roc_auc_score

    data = planted()
    fold = data.folds(0)
    found = follow_scores(data, fold, "add", steps=50)
    truth = (2 * data.obs[:, 0]).sigmoid() * (3 * data.obs[:, 1] - 1).sigmoid()
    best = roc_auc_score(data.follow, truth)
    assert (
        best - 0.05 < roc_auc_score(data.follow, found) and (found > 0).all() and (found < 1).all()
    )


def test_no_row_of_a_users_fold_reaches_its_model():
    """Other labels in one fold, and in the one that stops its model: its scores stay or move."""
    data = planted()
    fold = data.folds(0)
    other = data.follow.clone()
    other[torch.from_numpy(fold == 2)] = 0
    one, two = (
        follow_scores(d, fold, "shared", steps=10) for d in (data, data._replace(follow=other))
    )
    np.testing.assert_array_equal(one[fold == 2], two[fold == 2])
    assert (one[fold == 0] != two[fold == 0]).any()


def test_compare_names_its_rivals(monkeypatch):
    data = planted(30_000, 300)
    noise = torch.randn(30_000, generator=torch.Generator().manual_seed(1)).numpy()
    truth, spoilt = (data.obs[:, 0] + data.obs[:, 1]).numpy(), {"separate": 3.0}
    scores = lambda d, fold, name, seed: truth + (spoilt.get(name, 0) + seed / 9) * noise  # noqa: E731
    monkeypatch.setattr(real_funnel, "follow_scores", scores)
    rows = {row["model"]: row for row in real_funnel.compare(data, [0, 1, 2])}
    assert [*rows] == ["add", "shared", "separate", "logistic regression", "past follows"]
    assert rows["shared"]["add minus it"] == 0 and rows["add"].keys() == {"model", "AUC"}
    gap = rows["separate"]
    assert 0 < gap["low"] < gap["add minus it"] < gap["high"]
    assert gap["add minus it"] == pytest.approx(rows["add"]["AUC"] - gap["AUC"], abs=1e-9)
    assert abs(rows["past follows"]["AUC"] - 0.5) < 0.03  # that feature is noise here
    assert rows["logistic regression"]["AUC"] > 0.8


def test_the_real_core():
    if not os.environ.get("PAPERLAB_DATA"):
        pytest.skip("PAPERLAB_DATA is not set: no real data on this machine")
    data = real_funnel.load()
    assert data.obs.shape == (41_828, 16) == (len(data.user), len(data.names))
    assert data.obs.isfinite().all()
    torch.testing.assert_close(data.obs.mean(0), torch.zeros(16), atol=1e-4, rtol=0)
    assert (int(data.click.sum()), int(data.follow.sum())) == (27_484, 304)
    assert int((data.follow * (1 - data.click)).sum()) == 38
    assert len(np.unique(data.user)) == 664
