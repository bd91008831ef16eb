"""Trying amounts: the study's own numbers, the tick, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paperlab import data, records, tryout
from paperlab.feedback import watch_time_study
from paperlab.feedback.generative_regression import tokens_of, vocabulary
from paperlab.scoring import amounts

TINY = {"rates": [0.003], "epochs": 1, "batch_size": 64}


def log(rows: int = 400):
    draw = np.random.default_rng(0)
    frame = {
        "user": draw.integers(0, 40, rows),
        "topic": draw.choice(list("abcd"), rows),
        "amount": draw.exponential(20, rows).round(1),
    }
    return data.from_frame(frame, "amounts", name="own", user="user", split="random")


@pytest.fixture(scope="module")
def tried():
    record, lines = records.Record("303_generative_regression", 1, "cpu"), []
    given = {"seeds": [0, 1], "tell": lines.append, "only": ["L1", "GR teacher forcing"]}
    return tryout.run("generative_regression", log(), record, **given, **TINY), lines


def test_try_gives_the_numbers_of_the_notebooks_real_section(tried):
    """Same models, sizes, rates, seeds, errors and users as `watch_time_study.kuairand`."""
    found, lines = tried
    real = watch_time_study.kuairand(["GR teacher forcing", "L1"], [0, 1], log=log(), **TINY)
    for row in real.rows:
        [mine] = [r for r in found.scores.rows if all(r[k] == row[k] for k in ("model", "seed"))]
        assert (mine["mae"], mine["xauc"], mine["lr"]) == (row["mae"], row["xauc"], row["lr"])
    amount = real.log.test.labels[:, 0]
    constant = (amount - real.log.train.labels[:, 0].median()).abs().mean()
    for key, predicted in real.predicted.items():
        relative = (predicted - amount).abs() / constant
        assert found.scores.units[key] == pytest.approx(relative.numpy(), abs=1e-6)
    assert set(found.scores.units) == set(real.predicted)
    assert (found.scores.clusters == real.log.test.users.numpy()).all()
    assert len(lines) == 6


def test_a_verdict_in_shares_of_the_constants_error(tried):
    found, _ = tried
    assert [c.text for c in found.claims] == [
        "GR beats L1 on own",
        "GR beats GR teacher forcing on own",
    ]
    for row in found.scores.rows:
        key = row["model"], row["seed"]
        assert row["relative MAE"] == pytest.approx(found.scores.units[key].mean(), abs=1e-6)
    assert {r["relative MAE"] for r in found.scores.rows if r["model"] == "constant"} == {1.0}
    assert (found.scores.better, found.scores.floor) == ("lower", ["constant"])
    assert "relative MAE: 1 is the error of the constant" in "".join(found.sentences())


def test_a_test_part_at_the_training_median_is_refused():
    some = log()
    middle = some.train.labels[:, 0].median().item()
    same = replace(some.test, values=torch.full_like(some.test.values, middle))
    with pytest.raises(ValueError, match="own.test has the amount .* alone: nothing to predict"):
        amounts.score(replace(some, test=same), {}, seeds=[0], tell=print)
    with pytest.raises(ValueError, match="tick must be at least 0"):
        amounts.score(some, {}, seeds=[0], tell=print, tick=-1.0)


def test_an_amount_of_many_tokens_is_refused():
    some = log()
    one = some.train.values.clone()
    one[0] = 1e6
    far = replace(some, train=replace(some.train, values=one))
    with pytest.raises(
        ValueError, match="own: an amount takes [0-9,]+ tokens, more than 64: --set tick=1 "
    ):
        amounts.score(far, {}, seeds=[0], tell=print, tick=0.1)


@pytest.mark.parametrize(
    ("middle", "tick"), [(5.0, 0.1), (15.0, 0.1), (49.9, 0.1), (50.0, 1.0), (0.02, 0.0001)]
)
def test_the_tick_by_hand(middle, tick):
    amounts_ = torch.tensor([0.0, 0.0, middle / 2, middle, middle * 3])
    assert amounts.natural_tick(amounts_) == pytest.approx(tick)


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=60).filter(any))
def test_longest_is_the_length_of_the_longest_sequence(ticks):
    rows = torch.tensor(ticks)
    tokens = tokens_of(rows, vocabulary(np.array(ticks)))
    assert amounts.longest(rows.double() / 4, 0.25) == tokens.shape[1] - 1
