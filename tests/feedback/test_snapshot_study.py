"""The comparison of methods on snapshots: equal inputs, choices on earlier periods, movements by hand."""

import math
from dataclasses import replace

import pytest
from paperlab.feedback import snapshot_study, snapshots
from paperlab.feedback.prequential import Stream
from paperlab.feedback.snapshot_study import TRIED, Study, best, movement, run
from paperlab.feedback.worlds.factor_stream import factor_stream

SETTING = (0.01, 1)


@pytest.fixture(scope="module")
def stream() -> Stream:
    return factor_stream("trend", periods=14, rows=256, seed=3)


def test_the_best_setting_by_hand():
    rows = [
        {"rate": r, "passes": p, "AUC": a} for r, p, a in ((1, 1, 0.6), (1, 1, 0.7), (2, 1, 0.66))
    ]
    assert best(rows, "rate", "passes") == (2, 1)
    assert best([*rows, {"rate": 3, "passes": 1, "AUC": 0.66}], "rate") == (
        2,
    )  # the first of equals


def test_every_method_reads_the_same_snapshots_and_gives_a_row(stream):
    study = Study(judged=3, trials=1)
    chosen = study.choose({}, SETTING, TRIED, study.earlier)
    assert chosen["zero state"] == chosen["single period"] == chosen["ASMG"] == TRIED["ASMG"][0]
    found = [*study.compete(stream, 0, SETTING, chosen)]
    assert [row["model"] for row, _, _ in found] == [*TRIED]
    assert not any(row["edge"] for row, _, _ in found)
    frozen = {id(m.snapshots) for row, _, m in found if row["model"] != "popularity"}
    assert len(frozen) == 1
    row, tested, _ = found[1]  # fine-tuned: its own snapshots, its judged periods by hand
    aucs = [
        r["auc"]
        for r in run(stream, study.method("fine-tuned", study.base(stream, SETTING, 0), None, 0))[0]
    ]
    assert row["auc"] == pytest.approx(sum(aucs[-3:]) / 3)
    assert [t for t, _ in tested] == [*range(snapshot_study.FIRST, 14)]


def test_numbers_are_chosen_on_periods_before_the_judged_ones(stream):
    study = Study(judged=3, trials=5)
    names = ("EMA", "extrapolation", "popularity")
    chosen = study.choose({0: stream}, SETTING, names, study.earlier)
    wrong = [replace(p, values=1 - p.values) for p in stream.periods[-3:]]
    spoilt = Stream("spoilt", stream.schema, (*stream.periods[:-3], *wrong))
    assert study.choose({0: spoilt}, SETTING, names, study.earlier) == chosen
    base = study.base(stream, SETTING, 0)
    for name in names:  # a slow version of the choice
        found = {x: run(stream, study.method(name, base, x, 0))[0][-6:-3] for x in TRIED[name]}
        aucs = {x: math.fsum(r["auc"] for r in rows) for x, rows in found.items()}
        assert aucs[chosen[name]] == pytest.approx(max(aucs.values()))


def test_the_tuning_grid_has_a_row_for_each_setting_and_stream(stream):
    grid = [(0.01, 1), (0.02, 1)]
    found = Study(judged=3).tune({0: stream, 1: stream}, grid, slice(-3, None))
    assert [(r["rate"], r["seed"]) for r in found] == [(0.01, 0), (0.01, 1), (0.02, 0), (0.02, 1)]
    assert all(0.4 < r["AUC"] < 0.8 for r in found)


@pytest.mark.parametrize("step", [-1.0, 0.25])
def test_the_movement_of_an_extrapolation_is_its_step(stream, step):
    study = Study(judged=3)
    model, frozen = study.base(stream, SETTING, 0)
    method = snapshots.Served(model, frozen, lambda s: snapshots.extrapolate(s, step))
    method.update(stream.periods)
    level, found = movement(method)
    assert (level, found) == pytest.approx((0.0, step), abs=1e-4)


@pytest.mark.parametrize(
    "options", [{"judged": 0}, {"trials": 6}, {"meta_batch": 0}, {"batch_size": 0}]
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Study(**{"judged": 8} | options)


def test_an_unknown_method_is_refused(stream):
    study = Study(judged=3)
    with pytest.raises(ValueError, match="method"):
        study.method("EMMA", study.base(stream, SETTING, 0), 0.1, 0)
