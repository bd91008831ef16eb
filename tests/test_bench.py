"""The bench: both sides train the same function on the same rows; the tables say what was measured."""

import json
import os
import sys
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from paperlab import bench
from paperlab.bench import clock, preparation, processes, profile, startup, training
from paperlab.bench.clock import Clock
from paperlab.data.schema import Field, Schema
from paperlab.data.store import from_arrays, save

SCHEMA = Schema(
    (Field("a", size=7), Field("b", size=50), Field("c", size=300), Field("x", "numeric")),
    ("click",),
)


@pytest.fixture(scope="module")
def peer():
    pytest.importorskip(
        "fuxictr.pytorch.dataloaders.npz_dataloader",
        reason="FuxiCTR is not installed: pip install -e '.[bench]'",
        exc_type=ImportError,
    )
    from paperlab.bench import fuxictr

    return fuxictr


@pytest.fixture(scope="module")
def log():
    rng, n = np.random.default_rng(0), 900
    ids = np.stack([rng.integers(0, f.size, n) for f in SCHEMA.categorical], 1)
    values = np.stack([rng.normal(size=n), rng.random(n) < 0.3], 1)
    return from_arrays("tiny", SCHEMA, ids, values, np.repeat([0, 1, 2], 300))


@pytest.fixture(scope="module")
def folder(log, peer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    save(log, folder)
    peer.save_npz(log, folder)
    return folder


def theirs(peer, name):
    return getattr(peer, name)(SCHEMA, **training.settings(name, SCHEMA))


@pytest.mark.parametrize("name", training.MODELS)
def test_both_sides_are_the_same_function(peer, log, folder, name):
    """From the same weights (large ones, so that every term counts) the same probabilities."""
    ours, other = training.build(name, SCHEMA, 0), theirs(peer, name)
    with torch.no_grad():
        for p in ours.embed.parameters():
            p.normal_(0, 0.5)
    peer.copy_weights(ours, other)
    assert len({sum(p.numel() for p in m.parameters()) for m in (ours, other)}) == 1
    want = ours.eval()(log.test.take(slice(None))).sigmoid().double()
    found = torch.from_numpy(other.predict(peer.loader(other.feature_map, folder, "test", 128)))
    assert want.std() > 0.02  # two thousand times the tolerance
    torch.testing.assert_close(found, want, atol=1e-5, rtol=0)


def test_copying_refuses_another_model(peer):
    with pytest.raises(ValueError, match="not the same model"):
        peer.copy_weights(training.build("DCNv2", SCHEMA, 0), theirs(peer, "DeepFM"))


def test_sequences_are_refused(peer):
    with pytest.raises(ValueError, match="not sequences"):
        peer.feature_map(Schema((Field("s", "sequence", size=5, length=2),)))


def test_both_sides_see_the_same_rows(peer, log, folder):
    """Every training row once, in another order; the test rows in their own."""

    def read(part):
        batches = list(peer.loader(peer.feature_map(SCHEMA), folder, part, 128))
        assert [len(b["click"]) for b in batches] == [128, 128, 44]
        names = [f.name for f in SCHEMA.fields] + ["click"]
        return torch.stack([torch.cat([b[n] for b in batches]) for n in names], 1).numpy()

    for part in ("train", "test"):
        split = getattr(log, part)
        want = np.hstack([split.ids.numpy(), split.values.numpy()]).astype(np.float32)
        found = read(part)
        if part == "train":
            assert not np.array_equal(found, want)
            found, want = (a[np.lexsort(a.T)] for a in (found, want))
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("name", training.MODELS)
def test_one_run_of_each_side(peer, log, folder, name, monkeypatch):
    """Epochs of five batches, of which the first three do not count."""
    monkeypatch.setattr(training, "BATCH_SIZE", 64)
    torch_threads = torch.get_num_threads()
    try:
        runs = [
            training.train_ours(name, str(folder), 0),
            training.train_theirs(name, str(folder), 0),
        ]
    finally:
        torch.set_num_threads(torch_threads)
    for run in runs:
        assert set(run) == {"seconds", "rows", "auc"}
        assert run["rows"] == len(log.train) - 3 * 64
        assert run["seconds"] > 0 and 0 <= run["auc"] <= 1


def test_training_moves_both_sides_alike(peer, log, folder):
    """One full batch, so one step of Adam from the same weights: nearly the same model."""
    from paperlab import loop

    ours, other = training.build("DeepFM", SCHEMA, 0), theirs(peer, "DeepFM")
    before = ours.embed.table.weight.detach().clone()
    peer.copy_weights(ours, other)
    other.clock = Clock()
    other.fit(peer.loader(other.feature_map, folder, "train", 300), epochs=1)
    loop.fit(ours, log, batch_size=300, precision="32-true")
    table = other.embedding.embedding_layer.embedding_layers["c"].weight
    mine = ours.embed.table.weight[57:, 1:]
    assert (mine - before[57:, 1:]).abs().max() > 5e-4
    torch.testing.assert_close(mine, table, atol=2e-5, rtol=0)


def run(seconds, auc, rows=100):
    return {"seconds": seconds, "rows": rows, "auc": auc}


def test_a_row_takes_medians_pair_by_pair():
    runs = [
        {"ours": run(1, 0.70), "theirs": run(4, 0.71)},
        {"ours": run(2, 0.72), "theirs": run(4, 0.70)},
        {"ours": run(4, 0.71), "theirs": run(5, 0.75)},
    ]
    row = training.row("FM", "FuxiCTR", runs, {"least_ms": 500.0}, batch_size=50)
    assert row["ours"] == 50 and row["theirs"] == 25
    assert row["ratio"] == 2 and row["ratio_range"] == [1.25, 4]
    assert row["auc"] == 0.71 and row["auc_peer"] == 0.71
    assert row["step_ms"] == 1000 and row["share"] == 0.5  # 50 rows a batch at 50 rows/s
    runs[0]["theirs"]["auc"] = None
    assert training.row("FM", "FuxiCTR", runs, {"least_ms": 1.0}, 50)["auc_peer"] is None


def test_every_model_is_paired(log, monkeypatch):
    """The whole of ``measure``, with the runs themselves replaced by numbers."""
    generator = SimpleNamespace(criteo_shaped=lambda rows, ids, seed: log)
    monkeypatch.setitem(sys.modules, "paperlab.bench.criteo_shaped", generator)
    peer = SimpleNamespace(save_npz=lambda log, folder: None)
    monkeypatch.setitem(sys.modules, "paperlab.bench.fuxictr", peer)
    monkeypatch.setattr(training, "require", lambda pairs, rows: None)
    calls = []

    @contextmanager
    def lasting():
        def call(function, name, *rest):
            calls.append((function.__name__, name))
            limit = {"least_ms": 1.0}
            return (
                limit
                if function is training.least
                else run(4 if "their" in function.__name__ else 1, 0.7)
            )

        yield call

    monkeypatch.setattr(training, "lasting", lasting)
    found = training.measure(pairs=3, rows=1000)
    assert [r["model"] for r in found["rows"]] == list(training.MODELS)
    assert all(r["ratio"] == 4 and len(r["runs"]) == 3 for r in found["rows"])
    assert calls[:7] == [("train_ours", "LR"), ("train_theirs", "LR")] * 3 + [("least", "LR")]


@pytest.mark.parametrize("wrong", [{"pairs": 0}, {"rows": 10}])
def test_values_out_of_range(wrong):
    with pytest.raises(ValueError, match="pairs >= 1 and rows >= 1000"):
        training.require(**{"pairs": 1, "rows": 1000} | wrong)


def test_a_clock_leaves_the_first_steps_out(monkeypatch):
    now = iter([5.0, 6.0, 7.0, 7.5, 9.0])
    monkeypatch.setattr(clock.time, "process_time", lambda: next(now))
    timer = Clock()
    for _ in range(3):
        timer.tick(10)
    with pytest.raises(ValueError, match="3 steps, and the first 3 do not count"):
        timer.run()
    timer.tick(10)
    timer.tick(4)
    assert timer.run() == {"seconds": 2.0, "rows": 14}


def test_processes_run_what_they_get():
    with processes.lasting() as call:
        assert call(os.getpid) == call(os.getpid) != os.getpid()


def test_startup_times_what_it_names():
    assert 0 < startup.import_seconds("json") < 5


def test_preparation_counts_every_row(monkeypatch):
    """A thousand rows of real text through a real process; one row in a hundred is malformed."""
    monkeypatch.setattr(preparation, "EVERY", 100)
    (row,) = preparation.measure(rows=1000, times=1)["rows"]
    assert (sum(row["stored"].values()), row["rejected"]) == (990, 10)
    assert row["bytes"] > 100_000 and row["peak_mb"] > 50
    assert row["speed"] == 1000 / row["seconds"]


@pytest.mark.parametrize(("load", "quiet"), [(0.2, True), (3.0, False)])
def test_a_record_says_what_was_measured_and_how_quietly(
    tmp_path, monkeypatch, capsys, load, quiet
):
    monkeypatch.setattr(bench.records, "project_root", lambda: tmp_path)
    monkeypatch.setattr(bench.os, "getloadavg", lambda: (load, 9.0, 9.0))
    rows = [{"name": "import torch", "seconds": 1.25, "range": [1, 2]}]
    monkeypatch.setattr(startup, "measure", lambda: {"times": 3, "rows": rows})
    with (
        nullcontext() if quiet else pytest.warns(UserWarning, match="not a quiet machine: load 3.0")
    ):
        bench.main(["startup"])
    record = json.loads((tmp_path / "data/reference/bench_startup.json").read_text())
    assert record["rows"] == rows and record["part"] == "startup"
    assert record["quiet"] is quiet and record["load"] == load and record["versions"]["torch"]
    assert "import torch" in capsys.readouterr().out


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="no part lunch; it has training, sequences"):
        bench.main(["lunch"])


def test_profile_lists_the_costly_operators(log, capsys):
    assert profile.model_name("deepfm") == "DeepFM"
    with pytest.raises(ValueError, match="LR, FM, DeepFM, DCNv2"):
        profile.model_name("resnet")
    threads = torch.get_num_threads()
    try:
        profile.print_profile("DeepFM", log)
    finally:
        torch.set_num_threads(threads)
    lines = [line for line in capsys.readouterr().out.splitlines() if "aten::" in line]
    shares = [float(line.strip("│┃ ").split("│")[-1]) for line in lines]
    assert 0 < len(lines) <= 12
    assert shares == sorted(shares, reverse=True) and sum(shares) <= 100.5
