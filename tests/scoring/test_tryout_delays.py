"""Trying late conversions: the notebook's own numbers, what is known when, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import data, manifest, metrics, records, trials, tryout
from paperlab.feedback import esdf
from paperlab.feedback.delay_tryout import contenders
from paperlab.scoring import delays

NOW, DAY = 1_700_000_000, 86_400
TINY = {"rates": [0.012], "epochs": 1, "batch_size": 128}


def log(rows: int = 900, days: int = 3, seed: int = 0, impressions: bool = False):
    draw = np.random.default_rng(seed)
    topic = draw.integers(0, 4, rows)
    click = NOW - draw.integers(0, 9 * DAY, rows)
    bought = click + draw.exponential(DAY, rows).astype(int)
    came = (draw.random(rows) < 0.2 + 0.2 * topic) & (bought <= NOW)
    missed = (draw.random(rows) < 0.3) & impressions
    frame = {
        "user": draw.integers(0, 90, rows),
        "delay": topic,  # a field of a name that is a label's of `esdf`
        "time": click,
        "click": [None if m else c for c, m in zip(click.tolist(), missed, strict=True)],
        "conversion": [
            b if k else None for b, k in zip(bought.tolist(), came & ~missed, strict=True)
        ],
    }
    options = {"time": "time"} if impressions else {"drop": "time"}
    return data.from_frame(
        frame, "delays", name="own", user="user", end=str(NOW), days=days, min_count=1, **options
    )


def notebook() -> dict:
    """What the notebook's cell of arms defines."""
    book = json.loads((manifest.project_root() / "notebooks/302_esdf.ipynb").read_text())
    [cell] = [c for c in book["cells"] if "".join(c["source"]).startswith("arms = {")]
    options = {k: v for k, v in TINY.items() if k != "rates"}
    names = {
        "options": options | {"precision": "32-true", "accelerator": "cpu"},
        "rates": TINY["rates"],
    }
    names |= {"trials": trials, "esdf": esdf, "metrics": metrics, "torch": torch}
    exec("".join(cell["source"]), names)
    return names


@pytest.fixture(scope="module")
def tried():
    record, lines = records.Record("302_esdf", 1, "cpu"), []
    return tryout.run("esdf", log(), record, seeds=[0], tell=lines.append, **TINY), lines


def test_try_gives_the_numbers_of_the_notebooks_real_section(tried):
    """Same arms, start, rates and choice of the pass, on clicks alone."""
    (found, lines), theirs = tried, notebook()
    arms = {
        k: v for k, v in theirs["arms"].items() if k not in theirs["rules"]
    }  # SHIFT, NAIVE cut rows
    assert arms == contenders()
    given = {"days": 3, "entire": False}
    arms = {k: v | given for k, v in arms.items() if k != "clicks only"}
    rows = [*theirs["train"](arms, lambda complete: delays.as_seen(log(), 3, complete=complete), 0)]
    assert len(lines) == len(rows) == 5
    y = log().test.labels[:, 1]
    for row, own, model in rows:
        [mine] = [r for r in found.scores.rows if r["model"] == row["model"]]
        score = model.predict(own.test)
        assert (mine["nll"], mine["lr"], mine["dense"]) == (row["nll"], row["lr"], row["dense"])
        assert (mine["logloss"], mine["auc"]) == (metrics.logloss(score, y), metrics.auc(score, y))
        assert mine["bias"] == metrics.calibration_ratio(score.sigmoid(), y) - 1
        loss = torch.nn.functional.binary_cross_entropy_with_logits(score, y, reduction="none")
        assert (found.scores.units[row["model"], 0] == loss.numpy()).all()
    assert (found.scores.clusters == log().test.users.numpy()).all()


def test_the_constant_is_the_rate_that_the_oracle_knows(tried):
    found, _ = tried
    rate, y = log().train.labels[:, 1].mean(), log().test.labels[:, 1]
    [flat] = [r for r in found.scores.rows if r["model"] == "constant"]
    assert flat["logloss"] == pytest.approx(metrics.logloss(torch.logit(rate).expand(len(y)), y))
    assert flat["bias"] == pytest.approx((rate / y.mean() - 1).item(), abs=1e-5)
    assert flat["auc"] == 0.5


def test_claims_and_notes(tried):
    found, _ = tried
    assert [c.text for c in found.claims] == [
        f"ESDF beats {rival} on own" for rival in ("ESMM", "global delay", "DFM")
    ]
    arrived, bias, *_ = found.scores.notes
    _, c, d, e = log().train.labels.unbind(1)
    share = ((c == 1) & (d <= e)).sum() / c.sum()
    assert arrived == f"training saw {share.item():.0%} of the conversions that came within 3 days"
    assert (
        bias.startswith("predicted over true conversions, minus 1: ESMM ") and "constant " in bias
    )


def test_impressions_train_all_arms_but_one_and_clicks_are_judged():
    some = log(impressions=True)
    arms = {name: contenders()[name] for name in ("ESDF", "clicks only")}
    found = delays.score(some, arms, seeds=[0], tell=print, **TINY)
    assert {r["model"] for r in found.rows} == {"ESDF", "clicks only", "constant"}
    clicks = some.test.labels[:, 0] == 1
    assert 0 < clicks.sum() < len(clicks)
    assert all(len(v) == clicks.sum() for v in found.units.values())
    assert (found.clusters == some.test.users[clicks].numpy()).all()


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**16), st.integers(1, 4))
def test_what_is_seen_is_part_of_what_is_known(seed, days):
    some = log(600, days, seed)
    seen, known = delays.as_seen(some, days), delays.as_seen(some, days, complete=True)
    for part in ("train", "valid", "test"):
        _, z, d, e = getattr(seen, part).labels.unbind(1)
        _, c, full, last = getattr(known, part).labels.unbind(1)
        assert (z <= c).all() and (d == full * z).all() and (last == days).all()
        assert (z[e == days] == c[e == days]).all()
        assert torch.equal(getattr(seen, part).ids, getattr(some, part).ids)
    assert torch.equal(seen.test.labels, known.test.labels)


def test_what_is_refused():
    some = log()
    none = replace(some.test, values=some.test.values * torch.tensor([1.0, 0, 0, 1]))
    with pytest.raises(ValueError, match="own.test has [0-9]+ clicks of one class: no AUC"):
        delays.score(replace(some, test=none), contenders(), seeds=[0], tell=print)
    late = some.train.values.clone()
    late[:, 2], late[:, 3] = 3 * late[:, 1], 0
    blind = replace(some, train=replace(some.train, values=late))
    with pytest.raises(ValueError, match="own.train has no observed conversion"):
        delays.score(blind, {"ESDF": {}}, seeds=[0], tell=print, **TINY)
