"""Trying clicks by day: the study's own numbers, a trivial rival, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from paperlab import data, metrics, records, tryout
from paperlab.feedback import elbo_tds_study
from paperlab.scoring import daily

TINY = {"rates": [0.01], "alphas": [0.1], "copies": 2, "epochs": 1, "batch_size": 128}


def log(rows: int = 800):
    draw = np.random.default_rng(0)
    item = draw.integers(0, 20, rows)
    frame = {
        "user": draw.integers(0, 40, rows),
        "item": item,
        "time": 1_700_000_000 + draw.integers(0, 9 * 86_400, rows),
        "city": draw.choice(list("abcd"), rows),
        "length": draw.exponential(20, rows).round(1),
        "click": (draw.random(rows) < 0.2 + 0.5 * (item % 2)).astype(int),
    }
    return data.from_frame(frame, "daily", name="own", user_fields="city")


@pytest.fixture(scope="module")
def tried():
    record, lines = records.Record("304_elbo_tds", 1, "cpu"), []
    given = {"seeds": [0, 1], "tell": lines.append, "only": ["linear", "jitter"]}
    return tryout.run("elbo_tds", log(), record, **given, **TINY), lines


def test_try_gives_the_numbers_of_the_notebooks_real_section(tried):
    """Same arms, sides, choice of settings, weights of users: `elbo_tds_study.kuairand` in one call."""
    found, lines = tried
    past = [f"past {key} {what}" for key in ("user", "item") for what in ("rows", "click")]
    sides = {"users": ["city", *past[:2]], "statistics": ["length", *past]}
    study = elbo_tds_study.Study(sides, {"epochs": 1, "batch_size": 128}, 2)
    names = ["ELBO", "linear", "jitter"]
    study.choose({name: [log()] for name in names}, TINY["rates"], TINY["alphas"], 0)
    rows, units, weights = elbo_tds_study.kuairand(study, log(), names, [0, 1])
    for row in rows:
        [mine] = [r for r in found.scores.rows if all(r[k] == row[k] for k in ("model", "seed"))]
        for column in ("user-AUC", "auc", "valid_auc", "lr", "alpha"):
            assert mine[column] == row[column]
    for key, sums in units.items():
        assert (found.scores.units[key] == sums).all()
    assert (found.scores.weights == weights).all()
    assert len(lines) == len(rows) == 6


def test_the_trivial_rival_ranks_by_the_items_past(tried):
    found, _ = tried
    some = log()
    share = some.test.ids[:, [f.name for f in some.schema.fields].index("past item click")]
    expected = metrics.gauc(share.float(), some.test.labels[:, 0], some.user("test"))
    [row, _] = [r for r in found.scores.rows if r["model"] == daily.FLOOR]
    assert row["user-AUC"] == pytest.approx(expected)
    values = found.scores.units[daily.FLOOR, 1]
    assert values.sum() / found.scores.weights.sum() == pytest.approx(expected)


def test_claims_and_notes(tried):
    found, _ = tried
    assert [c.text for c in found.claims] == [
        f"ELBO beats {b} on own" for b in ("linear", "jitter")
    ]
    assert found.scores.floor == [0.5, daily.FLOOR]
    assert {j.outcome for j in found.judged} == {"unresolved"}  # two seeds, one pass
    users, moved = found.scores.notes
    assert users == f"{len(found.scores.weights)} users of the test days have both labels"
    assert moved.startswith("what moved most from training to test: past ")


def test_users_of_one_label_are_refused():
    some = log()
    own = some.test.users % 2  # every user's rows have the user's own label
    values = torch.cat([own[:, None].float()], 1)
    with pytest.raises(ValueError, match="own.test has no user with both labels"):
        daily.score(
            replace(some, test=replace(some.test, values=values)), {}, seeds=[0], tell=print
        )
