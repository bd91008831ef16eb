"""ResFlow's experiments: the truth's own scores, rivals without training, gains, units."""

import numpy as np
import pytest
import torch
from paperlab import metrics
from paperlab.data.schema import Field, Schema
from paperlab.data.store import from_arrays
from paperlab.feedback import resflow_studies as studies
from paperlab.feedback.worlds.funnel import funnel

HOW = {"epochs": 1, "batch_size": 512, "precision": "32-true", "accelerator": "cpu"}


def test_the_truth_scores_as_the_ceiling():
    truth = funnel(10, b=-3.0, held=2_000, seed=0).truth
    found = studies.against(truth, torch.logit(torch.stack([truth.click, truth.order], 1)))
    assert found["KL"] == pytest.approx(0, abs=1e-9) and found["r"] == pytest.approx(1)
    assert found["falls"] == 1 and found["exact AUC"] == metrics.exact_auc(truth.order, truth.order)


def test_runs_gains_and_rivals_without_training():
    arms = {name: studies.ARMS[name] for name in ("separate towers", "ResFlow")}
    worlds = studies.Funnels(2_000, 500, [0.003], HOW)
    rows = [row for seed in (0, 1) for row, _ in worlds.runs(arms, -1.0, seed)]
    assert [r["model"] for r in rows[:4]] == [
        "separate towers",
        "click score",
        "constant",
        "ResFlow",
    ]
    constant = rows[2]
    assert (
        constant["exact AUC"] == pytest.approx(0.5)
        and constant["falls"] == 1
        and rows[1]["KL"] is None
    )
    assert rows[1]["exact AUC"] < rows[1]["best"] and rows[0]["lr"] == 0.003
    gained = studies.gains(rows)
    assert (
        gained[0]["gain"] == 0 and gained[3]["gain"] == rows[3]["exact AUC"] - rows[0]["exact AUC"]
    )
    assert {g["orders"] for g in gained} == {round((rows[0]["orders"] + rows[4]["orders"]) / 2)}


def test_a_rate_is_chosen_once_in_worlds_of_their_own():
    worlds = studies.Funnels(1_000, 300, [0.0001, 0.01], HOW)
    arms = {"ResFlow": studies.ARMS["ResFlow"]}
    first, second = (next(worlds.runs(arms, -1.0, seed))[0] for seed in (0, 1))
    assert worlds.chosen.keys() == {("ResFlow", -1.0)}
    assert first["lr"] == second["lr"] >= 0.01


def test_the_best_rate_has_the_lowest_mean_validation_loss_of_all_pilots():
    arm, rates = studies.ARMS["ResFlow"], [0.001, 0.004, 0.016]
    pilots = [(studies.funnel(800, rho=0.8, b=-1.0, held=300, seed=s), s) for s in (7, 8)]
    found = studies.best_rate("ResFlow", arm, pilots, rates, **HOW)
    mean = {}
    for rate in {*rates, found["lr"] / 4, found["lr"], found["lr"] * 4}:
        losses = [
            row["valid_logloss_order"]
            for log, seed in pilots
            for row, _ in studies.trained("ResFlow", arm, log, [seed], rate, **HOW)
        ]
        mean[rate] = sum(losses) / 2
    assert not found["edge"] and found["lr"] == min(mean, key=mean.get)
    assert studies.best_rate("ResFlow", arm, [], [0.5], **HOW) == {"lr": 0.5, "edge": False}


def test_a_rate_that_diverges_loses():
    def arm(schema):
        model = studies.ARMS["ResFlow"](schema)
        model.lr = 0.0
        step = model.training_step
        model.training_step = lambda *given: step(*given) * (1.0 if model.lr < 1 else float("nan"))
        return model

    pilots = [(studies.funnel(400, rho=0.8, b=-1.0, held=200, seed=7), 7)]
    found = studies.best_rate("arm", arm, pilots, [0.01, 2.0], **HOW)
    assert found["lr"] < 1


def test_watch_time_gives_a_row_and_errors_a_model_and_seed():
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 6, (600, 3))
    schema = Schema(tuple(Field(f"f{k}", size=6) for k in range(3)), labels=("seconds",))
    seconds = 60 * rng.random((600, 1)) * ids[:, :1] / 3
    log = from_arrays("small", schema, ids, seconds, np.arange(600) % 3)
    rows, errors = studies.watch_time(log, [0], [0.003], **HOW)
    assert [r["model"] for r in rows] == [*studies.WATCH, "constant"]
    assert errors["separate towers", 0].mean() == pytest.approx(1)
    ratio = rows[0]["mse"] / rows[1]["mse"]
    assert errors["chain", 0].mean() == pytest.approx(ratio, rel=1e-5)
