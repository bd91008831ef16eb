"""The study of ELBO-TDS: choices, scores with known answers, and KuaiRand's sides."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from paperlab import data, metrics
from paperlab.feedback import elbo_tds_study as study
from paperlab.feedback import real_videos
from paperlab.feedback.worlds.drifting import drifting

FEW = {"epochs": 1, "batch_size": 512}


def small(**options) -> study.Study:
    return study.Study(study.WORLD, FEW, 2, **options)


def test_one_setting_is_taken_without_a_trial():
    fits = small()
    fits.choose({"linear": None, "ELBO": None}, [0.01], [0.1], 0)
    assert fits.chosen == {name: {"lr": 0.01, "alpha": 0.1} for name in ("linear", "ELBO")}
    assert fits.trials == [] and fits.edges() == []


def test_the_best_setting_is_chosen_and_an_end_is_widened(monkeypatch):
    """Validation AUCs that we set: rates peak beyond the grid, alpha within it."""
    fits, asked = small(), []

    def fit(name, log, seed, lr, alpha):
        asked.append((name, lr, alpha))
        quality = 0.7 + lr - (alpha - 0.01) ** 2
        return type("Run", (), {"valid": {"auc": quality}}), None

    monkeypatch.setattr(fits, "fit", fit)
    fits.choose({"linear": None, "ELBO": None}, [0.02, 0.01], [0.1, 0.01, 0.001], 0)
    assert fits.chosen["ELBO"] == {"lr": pytest.approx(0.04), "alpha": 0.01}
    assert fits.chosen["linear"]["lr"] == pytest.approx(0.04)
    assert len(asked) == len(set(asked)) == 3 + 5  # linear: 3 rates; ELBO: 3 rates, 2 more alphas
    assert fits.edges() == ["linear (lr)", "ELBO (lr)"]


def test_a_rival_runs_at_its_own_rate_and_an_ablation_at_elbos():
    fits, log = small(), drifting(rows=200, seed=3)
    fits.chosen = {"linear": {"lr": 0.03, "alpha": 0.1}, "ELBO": {"lr": 0.01, "alpha": 0.5}}
    assert fits.train("linear", log, 0)[0]["lr"] == 0.03
    row, model = fits.train("prior only", log, 0, slower=2.0, watch=True)
    assert (row["lr"], row["alpha"], model.terms) == (0.005, 0.5, (False, True))
    assert [c["pass"] for c in fits.curves] == [1]


def test_worlds_are_paired_by_seed_and_score_the_known_truth():
    fits = small(chosen={name: {"lr": 0.01, "alpha": 0.1} for name in study.ARMS})
    rows = study.worlds(fits, ["linear", "quantiles", "ERM"], [4], 0.25, 300, watch=1)
    assert [r["model"] for r in rows] == ["linear", "quantiles", "ERM"]
    for row in rows:
        assert row["late"] == pytest.approx(np.mean(row["days"][6:]))
        assert row["all days"] == pytest.approx(np.mean(row["days"]))
        assert 0.5 < row["reachable"] < row["bayes"] < 1
    assert len({r["reachable"] for r in rows}) == 1 and len(fits.curves) == 3
    assert rows[0]["rank"] >= 1 and rows[2]["rank"] is None  # ERM has no encoder
    with pytest.raises(ValueError, match="arms must be"):
        study.worlds(fits, ["boost"], [4], 0.25, 300)


def test_scores_by_day_are_exact_on_each_day():
    log = drifting(rows=150, seed=1)
    p = log.truth.probability
    assert study.by_day(p, log) == pytest.approx(
        [metrics.exact_auc(q, q) for q in p.reshape(8, 150)]
    )
    assert study.by_day(-p, log) == pytest.approx([1 - a for a in study.by_day(p, log)])


def test_probe_finds_linear_maps_and_nothing_else():
    torch.manual_seed(0)
    x, noise = torch.randn(600, 5), torch.randn(600, 2)
    y = x @ torch.randn(5, 2) + 3
    assert study.probe(x, y) == pytest.approx(1, abs=1e-6)
    assert study.probe(torch.cat([x, x], 1), y) == pytest.approx(1, abs=1e-6)  # of rank 5
    assert abs(study.probe(x, noise)) < 0.1


def test_reachable_is_the_truth_where_ranks_hold_it():
    """Logits that are bilinear in the normal scores of the ranks are reached exactly."""
    log = drifting(rows=500, buckets="rank", seed=2)
    normal = torch.special.ndtri((log.test.ids.double() - 0.5) / 20)
    p = (0.5 * normal[:, 0] - normal[:, 1] * normal[:, 7] - 1).sigmoid()
    told = replace(log, truth=replace(log.truth, probability=p))
    assert study.reachable(told) == pytest.approx(metrics.exact_auc(p, p), abs=1e-9)
    assert study.reachable(log) < metrics.exact_auc(*[log.truth.probability] * 2)


def test_moved_is_total_variation_between_training_and_test():
    schema = data.Schema((data.Field("a", size=4), data.Field("b", size=3)))
    ids = np.array([[1, 1], [1, 2], [2, 1], [3, 2], [1, 1], [1, 2], [3, 1], [3, 2]])
    part, label = np.array([0, 0, 0, 0, 1, 2, 2, 2]), np.array([[0], [1]] * 4)
    log = data.from_arrays("log", schema, ids, label, part)
    # a: training (2, 1, 1)/4, test (1, 0, 2)/3; b: (2, 2)/4 and (1, 2)/3
    want = [("a", 5 / 12), ("b", 1 / 6)]
    found = study.moved(log, ["a", "b"])
    assert [r["statistic"] for r in found] == [name for name, _ in want]
    assert [r["moved"] for r in found] == pytest.approx([v for _, v in want])


def test_user_auc_is_the_auc_of_each_user_with_both_labels():
    schema = data.Schema((data.Field("a", size=2),))
    users = np.array([5, 3, 5, 3, 9, 5, 3, 9, 1, 1])
    labels = np.array([1, 0, 0, 1, 1, 1, 0, 1, 0, 1])
    part = np.array([2] * 8 + [0, 1])
    log = data.from_arrays("log", schema, np.ones((10, 1), int), labels[:, None], part, users=users)
    scores = torch.tensor([0.9, 0.1, 0.5, 0.4, 0.3, 0.2, 0.4, 0.8])
    found, rows = study.user_auc(scores, log)
    assert found.tolist() == [0.75, 0.5] and rows.tolist() == [3, 3]  # user 9 has one label only
    assert np.average(found, weights=rows) == pytest.approx(
        metrics.gauc(scores, log.test.labels[:, 0], log.user("test"))
    )


@pytest.fixture(scope="module")
def core() -> data.Log:
    """Forty videos and twenty users over six days."""
    draw, n = np.random.default_rng(0), 900
    flags = {c: draw.integers(0, 2, n) for c in ("is_click", "long_view", "is_comment")}
    events = pl.DataFrame(
        {
            "user_id": draw.integers(0, 20, n),
            "video_id": draw.integers(0, 40, n),
            "date": 20220414 + draw.integers(0, 6, n),
            "hourmin": draw.integers(0, 24, n) * 100,
            "duration_ms": draw.integers(5_000, 60_000, n),
            "play_time_ms": draw.integers(0, 60_000, n),
        }
        | flags
    )
    users = pl.DataFrame(
        {"user_id": range(20)} | dict.fromkeys(real_videos.ACCOUNT, ["a", "b"] * 10)
    )
    return real_videos.of_tables(events, users, ["long_view"])


def test_videos_have_two_sides_and_no_ids(core):
    log, sides = study.videos(core)
    names = [f.name for f in log.schema.fields]
    assert "user_id" not in names and "video_id" not in names
    assert set(sides["statistics"]) == {n for n in names if n.startswith("past_")} | {"duration"}
    items = [n for n in names if n not in sides["users"]]
    assert items and all("video" in n or n == "duration" for n in items)
    before = [f.name for f in core.schema.fields].index("duration")
    assert torch.equal(log.test.ids[:, names.index("duration")], core.test.ids[:, before])


def test_kuairand_scores_users_of_each_arm_and_seed(core):
    log, sides = study.videos(core)
    fits = study.Study(sides, FEW, 2, chosen={"ELBO": {"lr": 0.01, "alpha": 0.1}})
    rows, units, weights = study.kuairand(fits, log, ["ELBO"], [0, 1])
    assert [(r["model"], r["seed"]) for r in rows] == list(units)
    for row, found in zip(rows, units.values(), strict=True):
        assert row["user-AUC"] == pytest.approx(np.average(found, weights=weights))
