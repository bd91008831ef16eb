"""Several labels on real data: equal sizes, rows and units of every model, Census-Income's log."""

import numpy as np
import polars as pl
import pytest
import torch
from paperlab import metrics
from paperlab.data.schema import Field, Schema
from paperlab.data.store import from_arrays
from paperlab.feedback import real_multitask as real

HOW = {"epochs": 1, "batch_size": 256, "precision": "32-true", "accelerator": "cpu"}


def small(rows=600):
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 6, (rows, 8))
    chance = rng.random((rows, 3)) < 0.2 + 0.1 * (ids[:, :1] > 3)
    schema = Schema(tuple(Field(f"f{k}", size=6) for k in range(8)), labels=("a", "b", "c"))
    part, users = np.arange(rows) % 3, np.arange(rows) // 6
    return from_arrays("small", schema, ids, chance, part, users=users)


def test_all_models_have_as_many_dense_weights_but_the_regression():
    arms = real.ARMS | real.PARTS
    rows, gaps = real.runs(small(), [0, 1], [0.003], "c", arms, **HOW)
    names = ["logistic regression", *arms]
    assert [(r["model"], r["seed"]) for r in rows] == [(n, s) for n in names for s in (0, 1)]
    pairs = [(label, name) for label in "abc" for name in names if name != real.BASE]
    assert [(g["label"], g["model"]) for g in gaps] == pairs
    dense = {r["model"]: r["dense"] for r in rows}
    assert dense.pop("logistic regression") == 3 * (8 * 8 + 1)
    assert max(dense.values()) < 1.05 * dense["separate towers"] < 1.11 * min(dense.values())
    assert {r["falls"] for r in rows if r["model"] in ("ESMM", "ResFlow, clamped")} == {1.0}


def test_gaps_are_differences_of_auc_with_errors_of_seeds_and_rows():
    log, rng = small(), np.random.default_rng(2)
    logits = {name: rng.normal(size=(3, 200, 3)) for name in ("separate towers", "other")}
    found = real.gaps(log, logits)
    assert [(g["label"], g["model"]) for g in found] == [(name, "other") for name in "abc"]
    labels = log.test.labels[:, 0].bool()
    score = {
        n: np.mean([metrics.auc(torch.tensor(s[:, 0]), labels) for s in x])
        for n, x in logits.items()
    }
    assert found[0]["value"] == pytest.approx(score["other"] - score["separate towers"])
    assert found[0]["low"] < found[0]["value"] < found[0]["high"]
    [swapped, *_] = real.gaps(log, logits, base="other")
    for end, other in (("value", "value"), ("low", "high"), ("high", "low")):
        assert swapped[end] == pytest.approx(-found[0][other])


def test_rate_and_pass_are_chosen_by_the_label_that_is_named():
    rows, _ = real.runs(
        small(), [0], [0.003, 0.006], "all", {real.BASE: real.ARMS[real.BASE]}, **HOW
    )
    assert "valid_logloss_all" in rows[0]
    total = sum(rows[0][f"logloss_{name}"] for name in "abc")
    assert rows[0]["logloss_all"] == pytest.approx(total)


def table(rows=400):
    """Rows of a few values, so that many are equal."""
    rng = np.random.default_rng(1)
    return pl.DataFrame(
        {
            "age": rng.integers(0, 20, rows),
            "education": rng.choice([" low", "high", "none "], rows),
            "capital_gains": rng.choice([0, 1, 2, 3, 4, 5000], rows),
            "marital_stat": rng.choice([" Never married", "Widowed"], rows),
            "instance_weight": rng.random(rows),
            "income_50k": rng.choice(["- 50000.", " 50000+."], rows),
        }
    )


def of(frame, seed=0):
    labels = {
        "marital_stat": frame["marital_stat"] == " Never married",
        "income_50k": frame["income_50k"] == " 50000+.",
    }
    return real.of_table("own", frame.drop("instance_weight"), labels, ["capital_gains"], seed)


def test_census_labels_fields_and_groups():
    frame = table()
    log = of(frame)
    assert log.schema.labels == ("never_married", "income")
    assert [f.name for f in log.schema.fields] == ["age", "education", "capital_gains"]
    parts = [getattr(log, part) for part in ("train", "valid", "test")]
    labels = torch.cat([p.labels for p in parts]).sum(0).tolist()
    assert labels[0] == (frame["marital_stat"] == " Never married").sum()
    assert labels[1] == (frame["income_50k"] == " 50000+.").sum()
    groups = [set(p.users.tolist()) for p in parts]
    assert sum(map(len, groups)) == len(set().union(*groups))
    train = log.train
    rows = {}
    for key, ids in zip(train.users.tolist(), train.ids.tolist(), strict=True):
        rows.setdefault(key, set()).add(tuple(ids))
    assert all(len(kinds) == 1 for kinds in rows.values()) and len(rows) < len(train)
    # gains 0, 1, 2 -> themselves, 3 and 4 -> floor(ln(x)^2) = 1: with 1; 5000 -> 72
    assert len(train.ids[:, 2].unique()) == 4


def test_parts_are_drawn_by_the_seed():
    one, again, other = (of(table(), seed) for seed in (0, 0, 1))
    assert torch.equal(one.test.ids, again.test.ids)
    assert len(one.test) != len(other.test) or not torch.equal(one.test.ids, other.test.ids)
