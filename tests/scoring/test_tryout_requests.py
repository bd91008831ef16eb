"""Trying requests: the studies' own numbers, floors, AUC within groups, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.shown import NAMES, shown
from paperlab import data, metrics, records, tryout
from paperlab.ctr import own_requests, sort_studies
from paperlab.ctr.onepiece_studies import Studies
from paperlab.scoring import requests

TINY = {"rates": [0.002, 0.008], "epochs": 2, "batch_size": 16, "length": 8}
LOG = data.from_frame(shown(90), "requests", name="own", **NAMES)


def tried(slug: str, *only: str):
    record, lines = records.Record(slug, 1, "cpu"), []
    given = {"seeds": [0, 1], "tell": lines.append, "only": only}
    return tryout.run(slug, LOG, record, **given, **TINY), lines


@pytest.fixture(scope="module")
def sort():
    return tried("sort", "scratch", "vanilla")


@pytest.fixture(scope="module")
def onepiece():
    return tried("onepiece", "invisible", "2 layers")


def row_of(found, name: str, seed: int) -> dict:
    [row] = [r for r in found.scores.rows if (r["model"], r["seed"]) == (name, seed)]
    return row


def test_sort_gives_the_numbers_of_the_notebooks_real_section(sort, monkeypatch):
    """`sort_studies.kuairand`, with these requests in place of KuaiRand's."""
    found, lines = sort
    log = own_requests.cut(LOG, 8).requests()
    assert min(log.train.present.sum(1)) > 1  # so that every history is trained on in both
    monkeypatch.setattr(sort_studies.real_requests, "load", lambda: log)
    how = {k: TINY[k] for k in ("rates", "epochs", "batch_size")}
    rows, scores, _ = sort_studies.kuairand([0, 1], ["transfer, frozen", "scratch"], **how)
    names = {"transfer, frozen": "SORT", sort_studies.OWN_SHARE: "user's past share"}
    names |= {"item's click rate": "item's past share", "scratch": "scratch"}
    assert len(rows) == 8 and len(lines) == 6
    for row in rows:
        mine = row_of(found, names[row["model"]], row["seed"])
        assert mine["auc"] == pytest.approx(row["auc"], abs=1e-12)
        assert (mine["lr"], mine["dense"], mine["edge"]) == (row["lr"], row["dense"], row["edge"])
        if (key := (row["model"], row["seed"])) in scores:
            assert (found.scores.units[names[key[0]], key[1]] == scores[key].numpy()).all()


def test_a_plain_transformer_is_the_notebooks(sort):
    found, _ = sort
    log = own_requests.cut(LOG, 8).requests()
    how = {k: TINY[k] for k in ("rates", "epochs", "batch_size")}
    arms = {"vanilla": sort_studies.PARTS["vanilla"]}
    [(row, _, _)] = sort_studies.trained(lambda *_: arms, [(0, log)], **how)
    assert row_of(found, "vanilla", 0)["auc"] == row["auc"]
    assert row["dense"] == pytest.approx(row_of(found, "SORT", 0)["dense"], rel=0.01)


def test_onepiece_gives_the_numbers_of_the_notebooks_studies(onepiece):
    found, lines = onepiece
    step = {"layers": 1, "at": (1,)}
    arms = {"OnePiece": step, "invisible": step | {"see": False}, "2 layers": {}}
    studies, world = Studies(2, [0.002, 0.008], 16), own_requests.cut(LOG, 8).groups()
    for seed in (0, 1):
        for row, model in studies.train("own", world, arms, seed):
            mine = row_of(found, row["model"], seed)
            assert (mine["auc"], mine["lr"], mine["dense"]) == (
                row["pooled"],
                row["lr"],
                row["dense"],
            )
            assert mine["within"] == pytest.approx(row["within"], abs=1e-12)
            assert mine["edge"] == (("own", row["model"]) in studies.edges)
            scores = model.predict(world.test).flatten().numpy()
            assert (found.scores.units[row["model"], seed] == scores).all()
    assert len(lines) == 6


def test_claims_floors_and_notes(sort, onepiece):
    for (found, _), method, rivals in (
        (sort, "SORT", ["scratch", "vanilla"]),
        (onepiece, "OnePiece", ["invisible", "2 layers"]),
    ):
        assert [c.text for c in found.claims] == [f"{method} beats {b} on own" for b in rivals]
        assert found.scores.floor == [0.5, "user's past share", "item's past share"]
        assert row_of(found, "user's past share", 0)["within"] == 0.5  # one number a request
        notes = found.scores.notes
        assert [n.split(":")[1] for n in notes[:2]] == [f" {method} against {b}" for b in rivals]
        assert notes[2].startswith("groups of 4: 360 of 378 candidates, the others stand")
    labels, users = found.scores.labels, found.scores.clusters
    cut = own_requests.cut(LOG, 8)
    tested = cut.shown[cut.part == 2].flatten()
    assert (labels == LOG.label[tested]).all() and (users == LOG.user[tested]).all()


def test_aucs_of_groups_have_the_mean_of_the_grouped_auc():
    draw = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (50, 5), generator=draw).float()  # with ties
    labels = (torch.rand(50, 5, generator=draw) < 0.4).float()
    mixed = labels.min(1)[0] < labels.max(1)[0]
    groups = torch.arange(50).repeat_interleave(5)
    expected = metrics.gauc(scores.flatten(), labels.flatten(), groups)
    assert requests.aucs(scores[mixed], labels[mixed]).mean() == pytest.approx(expected)
    one = requests.aucs(torch.tensor([[2.0, 1.0, 1.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
    assert one.tolist() == [0.25]  # below one, level with the other


def score(log, slug: str = "sort", **more):
    terms = tryout.terms_of(slug, TINY | more)
    contenders, _ = tryout.chosen(terms, [])
    return requests.score(log, contenders, seeds=[0], tell=print, **terms["settings"])


def test_what_cannot_be_judged_is_one_line():
    of_request = (LOG.request % 2).astype(np.float32)
    with pytest.raises(ValueError, match="own.test has no group with both labels: no AUC within"):
        score(replace(LOG, label=of_request))
    zero = np.where(LOG.part == 1, 0, LOG.label).astype(np.float32)
    with pytest.raises(ValueError, match="own.valid: 40 candidates in groups of 4, fewer than two"):
        score(replace(LOG, label=zero))
    with pytest.raises(ValueError, match="own: no request has 9 candidates; the largest has 4"):
        score(LOG, candidates=9)
    with pytest.raises(ValueError, match="own.train: no user has two candidates in earlier"):
        score(replace(LOG, user=LOG.request))
