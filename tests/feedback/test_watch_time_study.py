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
    rivals = ["L1", "quantile bins", "GR hard tokens"]
    done = study.planted(rivals, [3, 4], 300, 200, [0.003], **QUICK)
    names = ["GR", *rivals, "constant", "true median", "true mean"]
    assert {(r["model"], r["seed"]) for r in done.rows} == {(n, s) for n in names for s in (3, 4)}
    dense = [r["dense"] for r in done.rows if r["dense"]]
    assert max(dense) / min(dense) < 1.1
    assert len(done.readings) == 2 * 7 and len(done.curves) == 8
    assert all(r["log mae"] == pytest.approx(math.log(r["mae"])) for r in done.rows)
    line, hard = study.exposure(done.rows)
    assert (line["model"], hard["model"]) == ("GR", "GR hard tokens")
    assert line["gap"] == pytest.approx(line["free"] - line["as trained"])
    with pytest.raises(ValueError, match="rivals must be one of"):
        study.planted(["GRU"], [0], 300, 200, [0.003], **QUICK)


def test_rates_are_chosen_on_two_logs_without_rows():
    done = study.planted(["L1"], [0, 1], 300, 200, [0.001, 0.01], **QUICK)
    assert {r["seed"] for r in done.rows + done.curves} == {0, 1}
    for name in ("GR", "L1"):
        used = {r["lr"] for r in done.rows if r["model"] == name}
        assert used == {done.chosen[name]}


def fake(errors):
    """A study whose trials have the validation MAE errors[seed](rate), and the trials made."""
    done, made = study.Study([0.01, 0.1], {"epochs": 7}), []

    def fit(name, log, build, seed, rates, epochs):
        made.append((seed, rates[0], epochs))
        return {"valid_mae": errors[seed](rates[0])}, None

    done._fit = fit
    return done, made


def test_the_least_mean_of_two_logs_wins_and_an_end_is_widened():
    errors = {5: lambda rate: abs(rate - 1), 6: lambda rate: abs(rate - 1.2)}
    done, made = fake(errors)
    done.choose(["GR"], [(None, {}, 5), (None, {}, 6)])
    assert [rate for seed, rate, _ in made if seed == 5] == pytest.approx([0.01, 0.1, 1, 10])
    assert {epochs for *_, epochs in made} == {3} and len(made) == 8
    assert done.chosen["GR"] == pytest.approx(1) and not done.edges

    def diverging(rate):
        if rate > 0.05:
            raise FloatingPointError("loss is NaN")
        return rate

    done, _ = fake({5: diverging})
    done.choose(["GR"], [(None, {}, 5)])
    assert done.chosen["GR"] == pytest.approx(0.0001) and done.edges == {"GR"}
    split = {5: lambda rate: {0.01: 0, 0.1: 3}.get(rate, 9), 6: lambda rate: 6 if rate < 0.1 else 1}
    done, _ = fake(split)  # means 3, 2
    done.choose(["GR"], [(None, {}, 5), (None, {}, 6)])
    assert done.chosen["GR"] == 0.1


def test_a_best_rate_at_an_end_is_named():
    done, made = fake({5: lambda rate: -rate})
    done.choose(["GR"], [(None, {}, 5)])
    assert len(made) == 2 + study.BEYOND and done.edges == {"GR"}
    done, made = fake({5: lambda rate: 0.0})
    done.rates = [0.003]
    done.choose(["GR"], [])
    assert done.chosen == {"GR": 0.003} and not made and not done.edges


def test_worked_convergence():
    rows = [
        {"model": "a", "seed": seed, "epoch": k, "mae": mae}
        for seed, maes in enumerate([[10, 9, 8, 8, 7.6, 9], [10, 5, 6, 6, 5.5, 6]])
        for k, mae in enumerate(maes, 1)
    ]
    [line] = study.convergence(rows)
    assert (line["best pass"], line["passes"]) == ((5 + 2) / 2, 6)
    assert line["last third"] == pytest.approx((5 - 10) / 2)  # 8 -> 7.6, and 5 -> 5.5


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
    assert {r["model"] for r in done.rows} == {"GR", "L1", "constant"} and len(done.curves) == 4
    units = done.units("L1", 0.01, 0.005)
    mae = sum(r["mae"] for r in done.rows if r["model"] == "L1") / 2
    zero = 0 * done.weights[None]
    for row in done.rows:
        key = row["model"], row["seed"]
        found = intervals.two_level(units["MAE"][key][None], zero, done.weights).value
        assert found == pytest.approx(-row["mae"] / (0.01 * mae), rel=1e-5)
        found = intervals.two_level(units["XAUC"][key][None], zero, done.weights).value
        assert found == pytest.approx(row["xauc"] / 0.005, rel=1e-5)
