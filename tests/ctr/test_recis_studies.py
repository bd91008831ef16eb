"""The studies' parts: tables of a given size, the cost of sharing, the choice of a rate."""

import math

import pytest
import torch
from paperlab import metrics
from paperlab.ctr import recis_studies as studies
from paperlab.ctr.recis import codes
from paperlab.ctr.worlds.zipf_stream import zipf_stream
from paperlab.nn.tables import BoundedTable, GrowingTable, HashedTable

LOG = zipf_stream(3_000, fields=3, ids=60, valid=500, held=2_000, seed=0)


def test_sized_tables_have_equal_rows():
    made = {name: table(2) for name, table in studies.sized(LOG, 0.25).items()}
    rows = int(0.25 * len(codes(LOG.train.ids).unique()))
    assert {n: (type(t), len(t)) for n, t in made.items()} == {
        "hashed 1/4": (HashedTable, rows),
        "bounded 1/4": (BoundedTable, rows),
    }
    first = codes(LOG.train.ids[:1_500]).unique(return_counts=True)
    known = torch.isin(first[0], made["bounded 1/4"].ids)
    assert first[1][known].min() >= first[1][~known].max()
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\]"):
        studies.sized(LOG, 0)


def test_the_cost_of_sharing():
    """None with a row for each id; that of the mean weight with one row for all."""
    exact = GrowingTable(1)
    exact(codes(torch.arange(61)[:, None].expand(-1, 3)))
    assert studies.shared_cost(LOG, exact) == pytest.approx(0, abs=1e-9)
    truth = LOG.truth
    mean = (truth.frequency * truth.weights).sum() / truth.frequency.sum()
    p = truth.logits.sigmoid()
    one = 1e3 * metrics.kl(torch.full_like(p, truth.bias + 3 * mean.item()), p)
    assert studies.shared_cost(LOG, HashedTable(1, 1)) == pytest.approx(one, rel=1e-6)
    some = studies.shared_cost(LOG, HashedTable(40, 1))
    assert 0 < some < one


def test_the_constant_is_worse_than_the_truth():
    scores = studies.constant(LOG)
    labels = LOG.test.labels[:, 0]
    truth = metrics.logloss(LOG.truth.logits.float(), labels)
    assert scores["logloss"] - truth == pytest.approx(scores["excess"] / 1e3, abs=0.02)
    assert scores["excess"] > 50 and math.isnan(scores["rare excess"])  # no rare ids here


def test_the_rate_is_chosen_over_seeds():
    """At rate 1 the mean is 2, at rate 2 it is 1.5, although seed 0 alone would choose rate 1."""
    losses = {(1, 0): 1.0, (1, 1): 3.0, (2, 0): 2.0, (2, 1): 1.0, (3, 0): 4.0, (3, 1): 4.0}
    rows = [
        {"model": "a", "rate": r, "seed": s, "valid_logloss": v} for (r, s), v in losses.items()
    ]
    rows += [{**r, "model": "b", "valid_logloss": r["rate"]} for r in rows]
    floor = {"model": "constant", "rate": None, "seed": 0}
    chosen, ends = studies.tuned([*rows, floor])
    assert {(r["model"], r["rate"]) for r in chosen} == {("constant", None), ("a", 2), ("b", 1)}
    assert len(chosen) == 5 and ends == ["b"]
    assert studies.tuned([r for r in rows if r["rate"] == 1])[1] == []


def test_a_stream_has_every_arm():
    rows = [*studies.stream(600, 0, [0.25], [0.03], 200)]
    names = [*studies.RULES, "hashed 1/4", "bounded 1/4", "constant"]
    assert [r["model"] for r in rows] == names
    assert all(0 < r["excess"] < 1e3 for r in rows)
    shared = {r["kind"]: r["shared"] for r in rows}
    assert shared["hashed"] > 0 and shared["bounded"] > 0 and shared["growing"] is None


def test_steps_of_merged_and_separate_tables():
    for merged in (True, False):
        step = studies.stepper(3, merged, ids=5)
        step(), step()
    with pytest.raises(ValueError, match="features must be at least 1"):
        studies.stepper(0, True)


def test_eviction_bounds_the_rows():
    scores, sizes = studies.drift(2_000, 0, [5], [0.03], 50)
    names = ["never evicted", "evicted after 5", "hashed 1/4", "bounded 1/4"]
    assert [s["model"] for s in scores] == names
    assert scores[2]["rows"] == scores[3]["rows"] and scores[2]["MB"] < scores[3]["MB"]
    assert studies.tuned(scores)[0] == scores
    kept, evicted = ([r["rows"] for r in sizes if r["model"] == s["model"]] for s in scores[:2])
    assert kept == sorted(kept) and max(evicted) < 0.5 * kept[-1]
    assert scores[0]["MB"] == kept[-1] * 104 / 1e6
