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
    assert fits.chosen == {n: {"lr": 0.01, "alpha": a} for n, a in (("linear", 0), ("ELBO", 0.1))}
    assert fits.trials == []
    assert [(r["trials"], r["edge"]) for r in fits.settings()] == [(0, [])] * 2


def planted_quality(fits, monkeypatch, quality) -> list:
    """Let `Study.fit` return the validation AUC that ``quality`` sets; returns what is asked for."""
    asked = []

    def fit(name, log, seed, lr, alpha):
        asked.append((name, log, seed, lr, alpha))
        return type("Run", (), {"valid": {"auc": quality(**locals())}, "history": [1]}), None

    monkeypatch.setattr(fits, "fit", fit)
    return asked


def test_rates_widen_for_all_arms_until_inside_and_trials_are_equal(monkeypatch):
    """Best at .04 for ELBO, .01 for linear; alpha 1.0 of a grid that ends at .1."""
    fits = small()

    def quality(name, lr, alpha, **_):
        best = {"linear": 0.01, "ELBO": 0.04}[name]
        return 0.7 - abs(np.log(lr / best)) / 100 - (name == "ELBO") * abs(np.log(alpha)) / 100

    asked = planted_quality(fits, monkeypatch, quality)
    fits.choose({n: ["first", "second"] for n in ("linear", "ELBO")}, [0.02, 0.01], [0.1, 0.01], 7)
    tried = {n: {t["lr"] for t in fits.trials if t["model"] == n} for n in ("linear", "ELBO")}
    # .02 and .01 have both bests at an end: .04 and .005, then .08; alpha: .01, 1 and 10
    assert tried["ELBO"] == {0.01, 0.02, 0.04, 0.005, 0.08}
    assert tried["linear"] > tried["ELBO"]
    rows = {r["model"]: r for r in fits.settings()}
    assert all((r["trials"], r["edge"]) == (8, []) for r in rows.values())
    assert rows["ELBO"]["lr tried"] == pytest.approx([0.005, 0.08])
    assert fits.chosen["ELBO"] == {"lr": 0.04, "alpha": pytest.approx(1)}
    assert fits.chosen["linear"]["lr"] == 0.01
    assert len(asked) == len(set(asked)) == 2 * 16
    assert {(log, seed) for _, log, seed, *_ in asked} == {("first", 7), ("second", 8)}


def test_a_setting_is_judged_by_its_mean_over_pilot_logs(monkeypatch):
    fits = small()
    found = {("a", 0.01): 0.9, ("b", 0.01): 0.5, ("a", 0.02): 0.8, ("b", 0.02): 0.7}
    planted_quality(fits, monkeypatch, lambda log, lr, **_: found.get((log, lr), 0.0))
    fits.choose({"linear": ["a", "b"]}, [0.01, 0.02], [0.1], 0)
    assert fits.chosen["linear"]["lr"] == 0.02
    aucs = {t["lr"]: t["validation AUC"] for t in fits.trials}
    assert aucs[0.01] == pytest.approx(0.7) and aucs[0.02] == pytest.approx(0.75)


def test_a_grid_that_never_turns_ends_and_is_named(monkeypatch):
    fits = small()
    planted_quality(fits, monkeypatch, lambda lr, **_: lr)
    fits.choose({"linear": [None]}, [0.01, 0.02], [0.1], 0)
    assert fits.chosen["linear"]["lr"] == pytest.approx(0.02 * 2**study.WIDER)
    assert fits.settings()[0]["edge"] == ["lr"]


def test_next_values_of_a_grid_by_hand():
    assert study.beyond({1.0: 3, 2.0: 2, 4.0: 1}, 3) == [0.5]
    assert study.beyond({1.0: 1, 2.0: 2, 4.0: 3}, 3) == [8.0]
    assert study.beyond({1.0: 1, 2.0: 3, 4.0: 2}, 3) == []
    assert [study.nearer({1.0: 0, 4.0: 1, 9.0: 0}, k) for k in (0, 1)] == [2.0, 6.0]
    assert [study.nearer({1.0: 0, 4.0: 1}, k) for k in (0, 1)] == [2.0, 2.0]


def test_a_rival_runs_at_its_own_rate_and_an_ablation_at_elbos():
    fits, log = study.Study(study.WORLD, FEW | {"epochs": 2}, 2), drifting(rows=200, seed=3)
    fits.chosen = {"linear": {"lr": 0.03, "alpha": 0.1}, "ELBO": {"lr": 0.01, "alpha": 0.5}}
    assert fits.train("linear", log, 0)[0]["lr"] == 0.03
    row, scores, model = fits.train("prior only", log, 0, slower=2.0, watch=True)
    assert (row["lr"], row["alpha"], model.terms) == (0.005, 0.5, (False, True))
    assert row["passes"] == 2 and len(scores) == len(log.test)
    curve = [c["auc"] for c in fits.curves]
    assert curve == sorted(curve) and curve[-1] == pytest.approx(row["valid_auc"])


def test_logistic_regression_is_additive_in_the_fields():
    """Its logit of a row is what the row's own ids add: swapping one side's ids swaps that part."""
    log = drifting(rows=300, seed=5)
    ids = log.test.ids.clone()
    ids[2:4] = ids[:2]
    ids[2:4, :6] = ids[[1, 0], :6]
    swapped = replace(log, test=replace(log.test, ids=ids))
    a, b, c, d = study.logistic(swapped)[:4].tolist()
    assert a + b == pytest.approx(c + d) and a != pytest.approx(c)
    p = log.truth.probability
    assert 0.5 < metrics.exact_auc(study.logistic(log), p) < metrics.exact_auc(p, p)


def test_worlds_are_paired_by_seed_and_score_the_known_truth():
    fits = small(chosen={name: {"lr": 0.01, "alpha": 0.1} for name in study.ARMS})
    rows = study.worlds(
        fits, ["linear", "quantiles", "ERM", "logistic regression"], [4], 0.25, 300, watch=1
    )
    assert [r["model"] for r in rows] == ["linear", "quantiles", "ERM", "logistic regression"]
    for row in rows:
        assert row["late"] == pytest.approx(np.mean(row["days"][6:]))
        assert row["all days"] == pytest.approx(np.mean(row["days"]))
        assert 0.5 < row["reachable"] < row["bayes"] < 1
    assert len({r["reachable"] for r in rows}) == 1 and len(fits.curves) == 3
    assert rows[0]["rank"] >= 1 and rows[2]["rank"] is None  # ERM has no encoder
    with pytest.raises(ValueError, match="arms must be"):
        study.worlds(fits, ["boost"], [4], 0.25, 300)


def test_per_day_is_long_and_may_take_a_rival_off():
    rows = [{"model": m, "seed": 1, "days": [a] * 8} for m, a in (("linear", 0.5), ("ELBO", 0.75))]
    whole, lead = study.per_day(rows), study.per_day(rows, "linear")
    assert [r["AUC"] for r in whole] == [0.5] * 8 + [0.75] * 8
    assert [(r["model"], r["day ahead"], r["AUC"]) for r in lead] == [
        ("ELBO", k, 0.25) for k in range(1, 9)
    ]


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
    rows, sums, weights = study.kuairand(fits, log, ["ELBO", "logistic regression"], [0, 1])
    assert [(r["model"], r["seed"]) for r in rows] == list(sums)
    for row, found in zip(rows, sums.values(), strict=True):
        assert row["user-AUC"] == pytest.approx(found.sum() / weights.sum())
        assert (found <= weights).all()
    scores, label = study.logistic(log), log.test.labels[:, 0]
    assert rows[1]["user-AUC"] == pytest.approx(metrics.gauc(scores, label, log.user("test")))
