"""Ranking transformers in the bench: equal sizes, equal outputs, and what the tables say."""

from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from paperlab.bench import ranking_transformers as ranking
from torch import nn
from torch.nn import functional as F

NAMES = [(name, name) for name in ranking.FEED] + [(b, a) for a, b in ranking.AGAINST]


@pytest.fixture
def small(monkeypatch):
    sizes = {"DIM": 16, "HIDDEN": 32, "LENGTH": 6, "ITEMS": 40, "CANDIDATES": 4, "BATCH_SIZE": 8}
    sizes |= {"FEED": {"HSTU": 8, "SORT": 56}, "STEPS": 1}
    for name, value in sizes.items():
        monkeypatch.setattr(ranking, name, value)


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def build(name, beside):
    if name.startswith("RecBole"):
        pytest.importorskip("recbole", reason="RecBole is not installed", exc_type=ImportError)
    return ranking.build(name, beside)


def matrices(model) -> int:
    """Weights of a model's layers, without biases and norms."""
    kinds = "blocks", "layers", "trm_encoder", "encoder"
    (layers,) = (getattr(model, k) for k in kinds if hasattr(model, k))
    layers = getattr(layers, "stack", layers)
    return sum(p.numel() for p in layers.parameters() if p.ndim == 2)


@pytest.mark.parametrize(("name", "beside"), NAMES)
def test_layers_have_equal_weights(name, beside):
    """2 layers of 5 * 64^2 weights beside HSTU, of 11 * 64^2 beside SORT."""
    want = {"HSTU": 2 * 5 * 64**2, "SORT": 2 * 11 * 64**2}[beside]
    assert matrices(build(name, beside)) == pytest.approx(want, rel=0.005)


@pytest.mark.parametrize(("name", "beside"), NAMES)
def test_every_model_learns_a_batch(small, name, beside):
    batch = ranking.draw(8, 4, 0)
    model = build(name, beside)
    (step,) = ranking.steps(model, [batch])
    before = ranking.logits(model, batch)
    for _ in range(60):
        step()
    losses = [F.cross_entropy(z, batch.labels) for z in (before, ranking.logits(model, batch))]
    assert before.shape == (8, 4) and losses[1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", ["HSTU", "torch encoder", "RecBole SASRec"])
def test_a_score_is_the_product_with_the_last_state(small, name):
    """One candidate at a time; and the last event counts, as does the first."""
    model, batch = build(name, "HSTU").eval(), ranking.draw(3, 4, 1)
    with torch.no_grad():
        ranking.table(model).normal_()
        found = ranking.logits(model, batch)
        if "RecBole" in name:
            states = model(batch.items, torch.full((3,), 6))
        else:
            states = model(ranking.Histories(batch.items, batch.items))[:, -1]
        for row in range(3):
            for k, item in enumerate(batch.candidates[row].tolist()):
                want = states[row] @ ranking.table(model)[item]
                torch.testing.assert_close(found[row, k], want, atol=1e-4, rtol=1e-4)
        for place in (0, 5):
            items = batch.items.clone()
            items[:, place] = items[:, place] % 39 + 1
            other = ranking.logits(model, batch.with_history(items, batch.flags))
            assert (other - found).abs().amin() > 1e-6


def test_torchs_layer_is_causal_and_equals_a_masked_one(small):
    layer = ranking.TorchLayer(16, 2, 8, 6).eval()
    x = torch.randn(2, 6, 16)
    found, _ = layer(x, None, None)
    mask = torch.ones(6, 6, dtype=torch.bool).triu(1)
    want = nn.TransformerEncoderLayer.forward(layer, x, src_mask=mask)
    torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-4)
    x[:, -1] += 1
    moved, _ = layer(x, None, None)
    torch.testing.assert_close(moved[:, :-1], found[:, :-1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["HSTU", "SORT"])
def test_the_least_time_counts_every_product(small, name):
    """A layer's 5 or 11 dim^2 weights a token and its two products of attention, three times each."""
    found = ranking.least(name)
    rows, dim, n = 8, 16, 4
    tokens = 6 if name == "HSTU" else 6 + 2 + n
    layer = {"HSTU": 5, "SORT": 11}[name] * dim**2 * tokens + 2 * tokens**2 * dim
    rest = n * dim  # products of candidates and state
    if name == "SORT":  # the last layer keeps all tokens; a projection of items, and the head
        rest = (6 + n) * dim**2 + n * (3 * dim**2 + dim)
    assert found["gflop"] == pytest.approx(3 * 2 * rows * (2 * layer + rest) / 1e9, rel=1e-9)
    kinds = ("matrix", "gather", "scatter", "update")
    assert sum(found[f"{k}_ms"] for k in kinds) == pytest.approx(found["least_ms"])
    assert all(found[f"{k}_ms"] > 0 for k in kinds) and found["dtype"] == "float32"
    assert 0 < sum(o["share"] for o in found["operators"]) <= 1 + 1e-9


def test_one_run(small):
    run = ranking.train("HSTU", "HSTU", 0)
    assert run["rows"] == 8 and run["seconds"] > 0 and run["auc"] is None


def test_recbole_leaves_no_debugging_on():
    """A module of RecBole's turns anomaly detection on, which slows every step of the process."""
    pytest.importorskip("recbole", reason="RecBole is not installed", exc_type=ImportError)
    from paperlab.bench import recbole  # noqa: F401

    assert not torch.is_anomaly_enabled()


def test_both_ways_of_a_request_have_the_same_gradients(small):
    """So equal outputs are equal training: N sequences of one candidate, or one of N."""
    model, joint = ranking.build("SORT", "SORT"), ranking.draw(3, 4, 0)
    weights, found = [*model.parameters()], []
    for way in (joint, ranking.one_at_a_time(joint)):
        loss = model.training_step(way, 0)
        found.append([loss, *torch.autograd.grad(loss, weights)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_rows_of_requests_and_tables(small):
    first, second = ranking.request_rows([1, 4], 1)
    assert (first["candidates"], first["tokens"]) == (1, 1.0)
    assert (second["candidates"], second["tokens"]) == (4, 4 * 9 / 12)
    (row,) = ranking.table_rows([3], 1)
    assert row["fields"] == 3
    for found in (first, second, row):
        assert found["ratio"] == pytest.approx(found["peer_ms"] / found["ours_ms"])


def test_merged_tables_give_what_separate_ones_give():
    merged, separate = (ranking.vectors(4, way) for way in (True, False))
    assert merged.shape == (2, 4 * 16, 8)
    assert (merged[1] - merged[0]).abs().min() > 1e-3  # Adam's first step is about the rate: .01
    torch.testing.assert_close(merged, separate, atol=1e-6, rtol=1e-5)


def test_other_outputs_are_refused(small, monkeypatch):
    x = torch.randn(10)
    ranking.same(x, x + 1e-7)
    for other, what in ((x + 1e-3, "not close"), (x[:5], "shape")):
        with pytest.raises(AssertionError, match=what):
            ranking.same(x, other)
    with pytest.raises(AssertionError, match="do not vary"):
        ranking.same(torch.zeros(10), torch.zeros(10))
    monkeypatch.setattr(ranking, "one_at_a_time", lambda b: b.take(torch.arange(8).flip(0)))
    with pytest.raises(AssertionError, match="not close"):
        ranking.request_rows([1], 1)


def test_calls_alternate_and_the_first_pair_does_not_count(monkeypatch):
    """Ours takes 9, then 1, 2, 4; theirs 9, then 3, 8, 4: ratios 3, 4, 1."""
    spent, now, order = iter([9, 9, 1, 3, 2, 8, 4, 4]), [0.0], []

    def call(side):
        order.append(side)
        now[0] += next(spent)

    monkeypatch.setattr(ranking.time, "process_time", lambda: now[0])
    found = ranking.in_turn(lambda: call("ours"), lambda: call("theirs"), 3)
    assert order == ["ours", "theirs"] * 4
    assert (found["ours_ms"], found["peer_ms"], found["ratio"]) == (2000, 4000, 3)
    assert found["ratio_range"] == [1, 4]


def test_an_interval_by_hand():
    """Of 9 values the second and the eighth: each end misses with probability 10 / 2^9 < .025."""
    assert ranking.interval([3, 1, 2, 9, 8, 7, 4, 6, 5]) == [2, 8]
    assert ranking.interval([6, 1, 2, 3, 4, 5]) == [1, 6]
    assert all(x != x for x in ranking.interval([1, 2, 3, 4, 5]))


@seed(0)
@settings(max_examples=30)
@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=30), st.floats(0.5, 2))
def test_an_interval_holds_the_median_and_scales(values, factor):
    low, high = ranking.interval(values)
    assert min(values) <= low <= sorted(values)[len(values) // 2] <= high <= max(values)
    assert ranking.interval([factor * v for v in values]) == [factor * low, factor * high]


@pytest.mark.parametrize("installed", [True, False])
def test_every_model_is_paired(monkeypatch, installed):
    """The whole of ``measure``, with the runs themselves replaced by numbers."""
    calls = []

    @contextmanager
    def lasting():
        def call(function, *args):
            calls.append((function.__name__, *args))
            if function is ranking.least:
                return {"least_ms": 64.0}
            return {"seconds": 2 if args[0] in ranking.FEED else 3, "rows": 128, "auc": None}

        yield call

    monkeypatch.setattr(ranking, "lasting", lasting)
    monkeypatch.setattr(ranking, "alone", lambda call, sizes, pairs: (call.__name__, sizes, pairs))
    monkeypatch.setattr(ranking, "find_spec", lambda name: installed)
    found = ranking.measure(6, [1], [2])
    kept = [pair for pair in ranking.AGAINST if installed or pair[1] == "torch encoder"]
    assert [(r["model"], r["peer"]) for r in found["rows"]] == kept and len(
        kept
    ) == 2 + 2 * installed
    for r in found["rows"]:
        assert (r["ours"], r["theirs"], r["ratio"], r["auc"]) == (64, 128 / 3, 1.5, None)
        assert r["interval"] == [1.5, 1.5] and r["step_ms"] == 2000 and r["share"] == 0.032
    assert found["requests"] == ("request_rows", [1], 6)
    assert found["tables"] == ("table_rows", [2], 6)
    assert calls[:2] == [("train", "HSTU", "HSTU", 0), ("train", "SORT", "SORT", 0)]
    assert calls[2] == ("train", kept[0][1], "HSTU", 0)


def test_an_interval_needs_six_pairs():
    with pytest.raises(ValueError, match="pairs must be at least 6, got 5"):
        ranking.measure(5)
