"""Trying a stream: the study's own numbers, AUC as sums over users, and what is refused."""

import json
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import data, manifest, metrics, records, tryout
from paperlab.feedback import real_streams
from paperlab.feedback.snapshot_study import TRIED, Study, best
from paperlab.feedback.stream_tryout import contenders
from paperlab.scoring import stream

TINY = {
    "periods": 14,
    "judged": 3,
    "trials": 2,
    "rates": [0.01, 0.03],
    "passes": [1],
    "batch_size": 64,
}


def events(rows: int = 700, labelled: bool = False):
    draw = np.random.default_rng(0)
    frame = {
        "user": [f"u{k}" for k in draw.integers(0, 40, rows)],
        "item": (30 * draw.random(rows) ** 2).astype(int),
        "time": draw.permutation(rows),
    }
    if labelled:
        frame["like"] = (draw.random(rows) < 0.3 + 0.4 * (frame["item"] % 2)).astype(int)
    return data.from_frame(frame, "stream", name="own", label="like" if labelled else None)


@pytest.fixture(scope="module")
def tried():
    record, lines = records.Record("305_asmg", 1, "cpu"), []
    given = {"seeds": [0, 1], "tell": lines.append, "only": ["EMA", "popularity"]}
    return tryout.run("asmg", events(), record, **given, **TINY), lines


def test_try_gives_the_numbers_of_the_notebooks_real_section(tried):
    """Same events, negatives, tuning on the periods before, snapshots and sums over users."""
    found, lines = tried
    study, names = Study(3, 2, meta_batch=128, batch_size=64), ["ASMG", "EMA", "popularity"]
    pairs, edges = events().pairs, np.linspace(0, 700, 15).astype(int)
    for seed in (0, 1):
        drawn = real_streams.negatives(pairs, edges, np.random.default_rng([seed, 5]))
        rows = np.array(
            [r for (u, i), n in zip(pairs, drawn, strict=True) for r in ((u, i), (u, n))]
        )
        here = real_streams.cut("own", rows, np.tile([1, 0], 700), 2 * edges)
        if seed == 0:
            grid = study.tune({0: here}, [*product(TINY["rates"], [1])], study.earlier)
            setting = best(grid, "rate", "passes")
            chosen = study.choose({0: here}, setting, names, study.earlier)
        for row, tested, _ in study.compete(here, seed, setting, chosen):
            [mine] = [
                r for r in found.scores.rows if (r["model"], r["seed"]) == (row["model"], seed)
            ]
            assert {k: mine[k] for k in row} == row
            parts = [(x, here.periods[t]) for t, x in tested[-3:]]
            size = here.schema.fields[0].size
            sums = [real_streams.user_units(x, p.labels[:, 0], p.users, size) for x, p in parts]
            values, weights = np.sum(sums, 0)
            assert found.scores.units[row["model"], seed].sum() / found.scores.weights.sum() == (
                pytest.approx(values.sum() / weights.sum())
            )
    assert len(lines) == 6


def test_contenders_are_those_of_the_notebook():
    book = json.loads((manifest.project_root() / "notebooks/305_asmg.ipynb").read_text())
    assert any("[*TRIED][:7]" in "".join(c["source"]) for c in book["cells"])
    assert set(contenders()) == {*[*TRIED][:7]}


def test_claims_and_notes(tried):
    found, _ = tried
    assert [c.text for c in found.claims] == [
        f"ASMG beats {b} on own" for b in ("EMA", "popularity")
    ]
    assert (
        found.scores.notes[0] == "one drawn negative for each event; 14 periods, the last 3 judged"
    )
    assert found.scores.notes[1].startswith("the base model: rate 0.0")


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([0.2, 0.5, 0.8]))
def test_shares_of_users_sum_to_the_mean_auc(seed, rate):
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randint(1, 9, (120, 2), generator=draw)
    labels = (torch.rand(120, generator=draw) < rate).float()
    labels[::30], labels[1::30] = 0, 1
    own = real_streams.cut("own", rows.numpy(), labels.numpy(), np.array([0, 60, 120]))
    tested = [(t, torch.randint(0, 6, (60,), generator=draw).float()) for t in (0, 1)]
    values, weights = stream.user_shares(own, tested)
    aucs = [metrics.auc(x, own.periods[t].labels[:, 0]) for t, x in tested]
    assert values.sum() / weights.sum() == pytest.approx(sum(aucs) / 2)
    assert weights.sum() == pytest.approx(2)


def test_labels_of_ones_own_are_the_streams():
    own = stream.of_events(events(labelled=True), 14, seed=0)
    assert [len(p) for p in own.periods] == [50] * 14
    labels = torch.cat([p.labels[:, 0] for p in own.periods])
    assert (labels.numpy() == events(labelled=True).labels).all()


def test_faults_are_one_line():
    with pytest.raises(ValueError, match="periods must be at least 12, got 11"):
        stream.score(events(), {}, seeds=[0], tell=print, **TINY | {"periods": 11})
    with pytest.raises(ValueError, match="own: 700 rows are too few for 351 periods"):
        stream.of_events(events(), 351, seed=0)
    some = events(labelled=True)
    some.labels[:50] = 1
    with pytest.raises(ValueError, match="own: period 1 of 14 has one label only: no AUC"):
        stream.of_events(some, 14, seed=0)
