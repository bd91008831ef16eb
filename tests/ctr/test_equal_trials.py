"""Rates and regularisers chosen alike: the order of trials, ends of the grid, ties to real runs."""

import pytest
from paperlab import trials
from paperlab.ctr import equal_trials
from paperlab.ctr.baselines.dnn import DNN
from paperlab.ctr.baselines.lr import LR
from paperlab.ctr.worlds.planted_orders import planted_orders


@pytest.fixture
def fake(monkeypatch):
    """Trials whose validation AUC is score(log, rate, **setting); the trials made."""
    made = []

    def use(score):
        def compare(builders, log, *, seeds, rates, budget):
            [setting] = builders.values()
            made.append((log, seeds[0], rates[0], setting))
            yield {"valid_auc": score(log, rates[0], **setting)}, None

        monkeypatch.setattr(trials, "compare", compare)
        return made

    return use


def choose(rates, settings, logs=(("a", 7),)):
    return equal_trials.choose(lambda **setting: setting, logs, rates=rates, settings=settings)


def test_the_rate_first_then_each_setting(fake):
    def score(log, rate, l2, drop):
        return -abs(rate - 0.1) + (l2 > 0) * (0.1 + drop) - (l2 == 0) * drop

    made = fake(score)
    found = choose([0.01, 0.1, 1.0], {"l2": [0.0, 0.01], "drop": [0.0, 0.2, 0.4]})
    assert found == equal_trials.Chosen(0.1, {"l2": 0.01, "drop": 0.4})
    assert len(made) == 3 + 1 + 2 + 2  # no trial twice
    assert {seed for _, seed, *_ in made} == {7}


def test_the_mean_over_logs_decides(fake):
    scores = {("a", 0.01): 3.0, ("b", 0.01): 0.0, ("a", 0.1): 1.0, ("b", 0.1): 1.0}
    made = fake(lambda log, rate: scores.get((log, rate), -1.0))
    found = choose([0.01, 0.1], {}, [("a", 1), ("b", 2)])
    assert found.rate == 0.01 and not found.edge and [m[0] for m in made] == ["a", "b"] * 3


def test_the_rate_is_chosen_again_with_the_settings(fake):
    made = fake(lambda log, rate, l2: -abs(rate - (1.0 if l2 else 0.1)) + l2)
    found = choose([0.01, 0.1, 1.0], {"l2": [0.0, 2.0]})
    assert found == equal_trials.Chosen(1.0, {"l2": 2.0}) and not found.edge
    assert [m[2] for m in made] == pytest.approx([0.01, 0.1, 1.0, 0.1, 0.01, 1.0, 10.0])


def test_an_end_is_widened_and_named(fake):
    made = fake(lambda log, rate: rate)
    found = choose([0.01, 0.1], {})
    assert found.rate == pytest.approx(10) and found.edge and len(made) == 2 + equal_trials.BEYOND


def test_a_run_that_is_not_finite_loses(fake):
    def score(log, rate):
        if rate > 0.05:
            raise FloatingPointError("loss is NaN")
        return -rate

    fake(score)
    assert choose([0.01, 0.1], {}).rate < 0.01


def test_one_candidate_trains_nothing(fake):
    made = fake(lambda *_, **__: 0.0)
    assert choose([0.003], {"drop": [0.2]}) == equal_trials.Chosen(0.003, {"drop": 0.2})
    assert not made


def test_real_models_and_their_best_rate():
    log = planted_orders(2000, {1: 1.5}, vocabulary=4)

    def build(dropout):
        return lambda schema, w: DNN(schema, 4, widths=(w,), dropout=dropout)

    same = {"budget": 300, "epochs": 1, "batch_size": 64, "precision": "32-true"}
    rates = [1e-5, 0.003, 0.01]
    found = equal_trials.choose(
        build, [(log, 3)], rates=rates, settings={"dropout": [0.0, 0.9]}, **same
    )
    aucs = {
        rate: next(trials.compare({"": build(0.0)}, log, seeds=[3], rates=[rate], **same))[0]
        for rate in {*rates, found.rate}
    }
    assert max(aucs, key=lambda rate: aucs[rate]["valid_auc"]) == found.rate > 1e-5
    assert found.setting == {"dropout": 0.0}  # 0.9 leaves a tenth of few units


def test_trials_train_what_was_chosen_and_untuned_models_without_settings():
    make = lambda seed: planted_orders(1500, {1: 1.5}, vocabulary=4, seed=seed)  # noqa: E731
    builders = {
        "LR": lambda: lambda schema, w: LR(schema),
        "MLP": lambda **own: lambda schema, w: DNN(schema, 4, widths=(w,), **own),
    }
    builders["plain"] = builders["MLP"]
    same = {"epochs": 1, "batch_size": 64, "precision": "32-true"}
    equal = equal_trials.Trials([0.01], {"dropout": [0.5], "embedding_l2": [0.1]}, 300, same)
    equal.tune(builders, make, [3], untuned=["plain"])
    rows = [row for row, _, _ in equal.train(builders, make, [1, 2])]
    assert [(r["seed"], r["model"]) for r in rows] == [(s, n) for s in (1, 2) for n in builders]
    drops = {r["model"]: (r["dropout"], r["embedding_l2"]) for r in rows}
    assert drops == {"LR": (None, None), "MLP": (0.5, 0.1), "plain": (None, None)}
    assert all(abs(r["dense"] - 300) <= 15 for r in rows if r["model"] != "LR")
    [(alone, _)] = trials.compare(
        {"MLP": builders["MLP"](dropout=0.5, embedding_l2=0.1)},
        make(2),
        seeds=[2],
        rates=[0.01],
        budget=300,
        **same,
    )
    assert alone["auc"] == rows[4]["auc"] != rows[5]["auc"]
