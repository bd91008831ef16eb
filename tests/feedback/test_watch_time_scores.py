"""Scores against the known distribution: oracles, floors, and what a model that knows it gets."""

import numpy as np
import pytest
import torch
from paperlab import loop
from paperlab.feedback import watch_time_scores as scores
from paperlab.feedback.amount_contenders import contenders
from paperlab.feedback.worlds.watch_time import watch_time

LOG = watch_time(1_000, test=400)


def trained(name):
    torch.manual_seed(0)
    model = contenders(LOG, dropout=0.0)[name](LOG.schema, 8)
    loop.fit(model, LOG, epochs=2, batch_size=128, precision="32-true", accelerator="cpu")
    return model


def test_nothing_beats_the_true_median_and_a_constant_ranks_like_a_coin():
    found = scores.references(LOG)
    assert found["true median"]["mae"] < found["true mean"]["mae"] < found["constant"]["mae"]
    assert found["constant"]["xauc"] == 0.5
    labels = LOG.test.labels[:, 0]
    shifted = scores.of_predictions(torch.from_numpy(LOG.truth.test.median()).float() + 1, LOG)
    assert shifted["mae"] > found["true median"]["mae"]
    drawn = (labels - torch.from_numpy(LOG.truth.test.median())).abs().mean().item()
    assert drawn == pytest.approx(found["true median"]["mae"], rel=0.15)


def test_mass_gap_is_zero_for_the_truth_and_large_for_its_mean():
    true = scores.near_zero(LOG)
    assert scores.mass_gap(true, true) == 0
    assert scores.mass_gap(true + 0.1, true) == pytest.approx(0.1)
    fifths = np.array_split(np.sort(true), 5)
    want = np.mean([abs(f.mean() - true.mean()) for f in fifths])
    assert scores.mass_gap(np.full_like(true, true.mean()), true) == pytest.approx(want)
    assert want > 0.1


def test_models_with_a_distribution_are_scored_on_it():
    rows = {name: scores.of_model(trained(name), LOG, 8) for name in ("GR", "L1", "quantile bins")}
    assert np.isnan(rows["L1"]["mass gap"]) and np.isnan(rows["quantile bins"]["as trained"])
    assert 0 <= rows["quantile bins"]["mass gap"] < 0.3 and 0 <= rows["GR"]["mass"] <= 1
    assert rows["GR"]["as trained"] > 0


def test_bins_interpolate_their_probability():
    model = trained("quantile bins")
    at_most = model.at_most(LOG.test.take(slice(0, 400)))
    edge = model.edges[5].item()
    assert model.probability(LOG.test, edge) == pytest.approx(at_most[:, 4].detach(), abs=1e-5)
    half = (model.edges[5] + model.edges[6]).item() / 2
    want = (at_most[:, 4] + at_most[:, 5]).detach() / 2
    assert model.probability(LOG.test, half) == pytest.approx(want, abs=1e-4)
    assert (model.probability(LOG.test, 0.0) == 0).all()


def test_readings_leave_the_model_as_it_was():
    model = trained("GR")
    before = model.predict(LOG.test)
    found = scores.readings(model, LOG, 3)
    assert len(found) == 7 and all(row["mae"] > 0 for row in found.values())
    assert torch.equal(model.predict(LOG.test), before)
    assert found["expected embedding, window"] == scores.of_predictions(before, LOG)
