"""HSTU as a target-aware ranker on a next-item log: padding, the target's place, a whole try."""

import numpy as np
import pytest
import torch
from paperlab import data
from paperlab.ctr.hstu_tryout import HSTURanker, contenders
from paperlab.scoring import sequences


@pytest.fixture(scope="module")
def log():
    """60 users who go round twelve items, each from a start of their own."""
    draw = np.random.default_rng(0)
    rows = [
        (u, (start + k) % 12)
        for u, start in enumerate(draw.integers(12, size=60))
        for k in range(draw.integers(6, 9))
    ]
    user, item = zip(*rows, strict=True)
    frame = {"user": user, "item": item, "time": range(len(rows))}
    return data.from_frame(frame, "sequences", user="user", item="item", time="time")


@pytest.mark.parametrize("layer", ["HSTU", "softmax", "SASRec"])
def test_padding_does_not_count(log, layer):
    torch.manual_seed(0)
    model = HSTURanker(log.schema, layer=layer).eval()
    for p in model.layers.parameters():
        torch.nn.init.normal_(p, 0, 0.3)
    batch = log.test.take(slice(0, 6))
    more = torch.nn.functional.pad(batch.history, (0, 0, 3, 0))
    assert torch.allclose(model(batch), model(batch._replace(history=more)), atol=1e-5)
    turned = batch._replace(history=batch.history.flip(1))
    full = (batch.history[..., 0] > 0).all(1)
    assert full.any() and not torch.allclose(model(batch)[full], model(turned)[full], atol=1e-3)


def test_the_try_finds_what_follows(log):
    terms = {"budget": 8_000, "rates": (0.01,), "epochs": 30, "patience": 10, "length": 5}
    built = {"HSTU": contenders()["HSTU"]}
    found = sequences.score(log, built, seeds=[0], tell=lambda line: None, **terms)
    score = {row["model"]: row["gauc"] for row in found.rows}
    assert score["HSTU"] > 0.85 and score["popularity"] < 0.75
    assert found.rows[0]["dense"] == pytest.approx(8_000, rel=0.05)


def test_bad_arguments(log):
    with pytest.raises(ValueError, match="layer must be one of HSTU, softmax, SASRec"):
        HSTURanker(log.schema, layer="none")
    with pytest.raises(ValueError, match="heads must be at least 1, got 0"):
        HSTURanker(log.schema, heads=0)
