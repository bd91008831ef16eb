"""Trying a funnel: the study's own numbers, the click score, and what is refused."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from paperlab import data, metrics, records, tryout
from paperlab.feedback import real_multitask, resflow_studies
from paperlab.feedback.funnel_tryout import contenders
from paperlab.nn.budget import width_for
from paperlab.scoring import funnel

TINY = {"rates": [0.004], "epochs": 2, "batch_size": 128}


def log(rows: int = 800):
    draw = np.random.default_rng(0)
    topic = draw.integers(0, 4, rows)
    click = draw.random(rows) < 0.3 + 0.1 * topic
    order = click & (draw.random(rows) < 0.4)
    frame = {"user": draw.integers(0, 40, rows), "topic": topic, "click": click, "order": order}
    return data.from_frame(frame, "funnel", name="own", user="user", split="random")


@pytest.fixture(scope="module")
def tried():
    record, lines = records.Record("301_resflow", 1, "cpu"), []
    given = {"seeds": [0], "tell": lines.append}
    return tryout.run("resflow", log(), record, **given, **TINY), lines


OPTIONS = {
    "epochs": 2,
    "patience": 2,
    "batch_size": 128,
    "precision": "32-true",
    "accelerator": "cpu",
}


def test_try_gives_the_numbers_of_the_notebooks_real_section(tried):
    """All models of `real_multitask.runs`: sizes, rates, seeds, start and choice of the pass."""
    found, lines = tried
    every = real_multitask.ARMS | real_multitask.PARTS
    rows, _ = real_multitask.runs(log(), [0], [0.004], "order", every, **OPTIONS)
    assert len(lines) == len(rows) == 10
    for row in rows:
        [mine] = [r for r in found.scores.rows if all(r[k] == row[k] for k in ("model", "seed"))]
        for name in ("auc_order", "logloss_order", "falls", "lr", "dense"):
            assert mine[name] == row[name], name
        assert (mine["auc"], mine["logloss"]) == (row["auc_order"], row["logloss_order"])
        scores = torch.from_numpy(found.scores.units[row["model"], 0])
        assert metrics.auc(scores, log().test.labels[:, 1]) == row["auc_order"]
    assert (found.scores.labels == log().test.labels[:, 1].numpy().astype(bool)).all()
    assert (found.scores.clusters == log().test.users.numpy()).all()


def test_all_but_logistic_regression_have_equal_dense_weights(tried):
    dense = {r["model"]: r["dense"] for r in tried[0].scores.rows if r["dense"]}
    small = dense.pop("logistic regression")
    base = dense["separate towers"]
    assert len(dense) == 9 and small < base / 10
    assert all(abs(n - base) <= 0.05 * base for n in dense.values())


def test_the_click_score_is_the_first_logit_of_separate_towers(tried):
    found, some = tried[0], log()
    base = real_multitask.ARMS[real_multitask.BASE]
    weights = base(some.schema, real_multitask.WIDTH).count_parameters()["dense"]
    arm = partial(base, width=width_for(partial(base, some.schema), weights))
    for _, model in resflow_studies.trained("separate towers", arm, some, [0], 0.004, **OPTIONS):
        clicks = model.predict_all(some.test)[:, 0]
    [row] = [r for r in found.scores.rows if (r["model"], r["seed"]) == ("click score", 0)]
    assert row["auc"] == pytest.approx(metrics.auc(clicks, some.test.labels[:, 1]))
    assert (found.scores.units["click score", 0] == clicks.numpy()).all()
    assert row["logloss"] is None


def test_the_constant_and_the_claims(tried):
    found, _ = tried
    flat = [r for r in found.scores.rows if r["model"] == "constant"]
    assert {r["auc"] for r in flat} == {0.5} and {r["falls"] for r in flat} == {1.0}
    assert [c.text.split(" beats ")[1] for c in found.claims] == [
        f"{rival} on own" for rival in ("separate towers", "ESMM", "logit residual", "click score")
    ]
    assert "AUC of order over all rows" in found.sentences()
    assert {row["model"] for row in found.board()} == {*contenders(), "constant"}


def test_what_is_refused():
    some = log()
    with pytest.raises(ValueError, match="only 'click score' needs 'separate towers' too"):
        funnel.score(some, {"click score": None}, seeds=[0], tell=print)
    none = replace(some.test, values=some.test.values * torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="own.test has [0-9]+ rows of one order: no AUC"):
        funnel.score(replace(some, test=none), contenders(), seeds=[0], tell=print)
