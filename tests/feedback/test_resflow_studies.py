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


def test_a_rate_is_chosen_once_in_a_world_of_its_own():
    worlds = studies.Funnels(1_000, 300, [0.0001, 0.01], HOW)
    arms = {"ResFlow": studies.ARMS["ResFlow"]}
    first, second = (next(worlds.runs(arms, -1.0, seed))[0] for seed in (0, 1))
    assert worlds.chosen["ResFlow", -1.0]["seed"] == 0 and len(worlds.chosen) == 1
    assert first["lr"] == second["lr"] >= 0.01


def small(labels):
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 6, (600, 3))
    chance = rng.random((600, len(labels))) < 0.2 + 0.1 * (ids[:, :1] > 3)
    values = 60 * rng.random((600, 1)) * ids[:, :1] / 3 if labels == ("seconds",) else chance
    schema = Schema(tuple(Field(f"f{k}", size=6) for k in range(3)), labels=labels)
    return from_arrays("small", schema, ids, values, np.arange(600) % 3)


def test_comments_and_watch_time_give_a_row_and_units_a_model_and_seed():
    rows, units = studies.comments(small(("click", "long_view", "comment")), [0, 1], [0.003], **HOW)
    names = {*studies.ARMS, *studies.OTHERS}
    assert {(r["model"], r["seed"]) for r in rows} == {(n, s) for n in names for s in (0, 1)}
    assert units.keys() == {(n, s) for n in names for s in (0, 1)}
    clamped = next(r for r in rows if r["model"] == "ResFlow, clamped")
    assert clamped["falls"] == 1 and all(len(u) == 200 for u in units.values())
    rows, errors = studies.watch_time(small(("seconds",)), [0], [0.003], **HOW)
    assert [r["model"] for r in rows] == [*studies.WATCH, "constant"]
    assert errors["separate towers", 0].mean() == pytest.approx(1)
    ratio = rows[0]["mse"] / rows[1]["mse"]
    assert errors["chain", 0].mean() == pytest.approx(ratio, rel=1e-5)
