"""The comparisons of 303: equal terms, units of effects, round trips, KuaiRand's form."""

import math
from dataclasses import replace

import pytest
import torch
from paperlab import intervals
from paperlab.feedback import watch_time_study as study
from paperlab.feedback.worlds.watch_time import watch_time

QUICK = {"epochs": 1, "batch_size": 256}


def test_planted_rows_are_paired_and_of_one_size():
    done = study.planted(["L1", "quantile bins"], 1, [3, 4], 300, 200, [0.003], **QUICK)
    names = ["GR", "L1", "quantile bins", "constant", "true median", "true mean"]
    assert {(r["model"], r["seed"]) for r in done.rows} == {(n, s) for n in names for s in (3, 4)}
    dense = [r["dense"] for r in done.rows if r["dense"]]
    assert max(dense) / min(dense) < 1.1
    assert {r["model"] for r in done.ablations} == {"GR", *study.ABLATIONS}
    assert len(done.readings) == 2 * 7 and len(done.curves) == 6
    assert all(r["log mae"] == pytest.approx(math.log(r["mae"])) for r in done.rows)
    [line] = study.exposure(done.rows)
    assert line["gap"] == pytest.approx(line["free"] - line["as trained"])
    with pytest.raises(ValueError, match="rivals must be one of"):
        study.planted(["GRU"], 0, [0], 300, 200, [0.003], **QUICK)


def test_rates_are_tried_once_and_kept():
    done = study.planted(["L1"], 0, [0, 1], 300, 200, [0.001, 0.01], **QUICK)
    for name in ("GR", "L1"):
        used = {r["lr"] for r in done.rows if r["model"] == name}
        assert len(used) == 1 and used == {done.chosen[name]}


def test_worked_gains():
    rows = [
        {"model": "a", "seed": 0, "mae": 9.8, "xauc": 0.7},
        {"model": "b", "seed": 0, "mae": 10.0, "xauc": 0.69},
    ]
    one, two = (study.gains(rows[k : k + 1], [(0.02, 0.005), (0.01, 0.01)]) for k in range(2))
    gap = [{c: a[c] - b[c] for c in ("claim 1", "claim 2")} for a, b in zip(one, two, strict=True)]
    assert gap[0]["claim 1"] == pytest.approx(1) and gap[0]["claim 2"] == pytest.approx(
        2.01, abs=0.01
    )
    assert gap[1] == pytest.approx({"claim 1": 2, "claim 2": 1})


def test_worked_difference():
    rows = [
        {"model": m, "seed": k, "log mae": v + 0.01 * k * e, "xauc": 0.6 + v}
        for k in range(3)
        for m, v, e in (("a", 0.05, 1), ("b", 0.03, 0))
    ]
    mean, half = 3.0, 4.302653 * 1.0 / 3**0.5  # per cent: differences 2, 3, 4
    want = f"MAE +3.0 % [{mean - half:+.1f} %, {mean + half:+.1f} %], XAUC +0.020 [error unknown]"
    assert study.difference(rows, "a", "b") == want


def test_worked_round_trip():
    found = study.round_trip(torch.tensor([37, 0]), (20, 8, 5, 1))
    assert (
        found["length"] == 3
        and found["longest"] == 5
        and found["tokens"] == 5
        and found["error"] == 0
    )
    shares = [2 / 6, 1 / 6, 2 / 6, 1 / 6]  # eos, 20, 8, 1
    assert found["evenness"] == pytest.approx(-sum(p * math.log(p) for p in shares) / math.log(5))
    even = study.round_trip(torch.tensor([1]), (1,))
    assert even["evenness"] == pytest.approx(1)


def test_real_units_by_user_keep_the_means():
    log = watch_time(300, test=120)
    log = replace(log, test=replace(log.test, users=torch.arange(120) % 9))
    done = study.kuairand(["L1"], [0, 1], [0.003], log, **QUICK)
    assert {r["model"] for r in done.rows} == {"GR", "L1", "constant"}
    units = done.units("L1", 0.01, 0.005)
    mae = sum(r["mae"] for r in done.rows if r["model"] == "L1") / 2
    zero = 0 * done.weights[None]
    for row in done.rows:
        key = row["model"], row["seed"]
        found = intervals.two_level(units["MAE"][key][None], zero, done.weights).value
        assert found == pytest.approx(-row["mae"] / (0.01 * mae), rel=1e-5)
        found = intervals.two_level(units["XAUC"][key][None], zero, done.weights).value
        assert found == pytest.approx(row["xauc"] / 0.005, rel=1e-5)
