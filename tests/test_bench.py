"""The bench: both sides train the same function on the same rows; the tables say what was measured."""

import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from paperlab import bench
from paperlab.bench import preparation, profile, startup, training
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
    found = torch.from_numpy(other.predict(peer.loader(SCHEMA, folder, "test", 128)))
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

    def read(part, workers):
        batches = list(peer.loader(SCHEMA, folder, part, 128, workers))
        assert [len(b["click"]) for b in batches] == [128, 128, 44]
        names = [f.name for f in SCHEMA.fields] + ["click"]
        return torch.stack([torch.cat([b[n] for b in batches]) for n in names], 1).numpy()

    for part in ("train", "test"):
        split = getattr(log, part)
        want = np.hstack([split.ids.numpy(), split.values.numpy()]).astype(np.float32)
        found = read(part, workers=0)
        if part == "train":
            assert not np.array_equal(found, want)
            found, want = (a[np.lexsort(a.T)] for a in (found, want))
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("name", training.MODELS)
def test_one_run_of_each_side(peer, log, folder, name):
    torch_threads = torch.get_num_threads()
    try:
        runs = [
            training.train_ours(name, str(folder), 0),
            training.train_theirs(name, str(folder), 0, workers=0),
        ]
    finally:
        torch.set_num_threads(torch_threads)
    for run in runs:
        assert set(run) == {"seconds", "rows", "auc"}
        assert run["rows"] == len(log.train)
        assert run["seconds"] > 0 and 0 <= run["auc"] <= 1


def test_training_moves_both_sides_alike(peer, log, folder):
    """One full batch, so one step of Adam from the same weights: nearly the same model."""
    from paperlab import loop

    ours, other = training.build("DeepFM", SCHEMA, 0), theirs(peer, "DeepFM")
    before = ours.embed.table.weight.detach().clone()
    peer.train(ours, other, log, folder, batch_size=300, workers=0)
    loop.fit(ours, log, batch_size=300, precision="32-true")
    table = other.embedding.embedding_layer.embedding_layers["c"].weight
    mine = ours.embed.table.weight[57:, 1:]
    assert (mine - before[57:, 1:]).abs().max() > 5e-4
    torch.testing.assert_close(mine, table, atol=2e-5, rtol=0)


def run(seconds, auc, rows=100):
    return {"seconds": seconds, "rows": rows, "auc": auc}


def test_summary_takes_medians_pair_by_pair():
    runs = [
        {"ours": run(1, 0.70), "theirs": run(4, 0.71)},
        {"ours": run(2, 0.72), "theirs": run(4, 0.70)},
        {"ours": run(4, 0.71), "theirs": run(5, 0.75)},
    ]
    row = training.summary(runs)
    assert row["ours"] == 50 and row["theirs"] == 25
    assert row["ratio"] == 2 and row["ratio_range"] == [1.25, 4]
    assert row["auc_ours"] == 0.71 and row["auc_theirs"] == 0.71


FOUND = {
    "log": "Log(tiny)",
    "pairs": 5,
    "rows": [
        {
            "name": name,
            "ours": 12_345.6,
            "theirs": 4_000.0,
            "ratio": 3.086,
            "ratio_range": [2.9, 3.2],
            "auc_ours": 0.71234,
            "auc_theirs": 0.71198,
            "workers": 1,
        }
        for name in training.MODELS
    ],
}


def test_training_has_a_line_a_model():
    lines = training.markdown(FOUND).splitlines()
    assert lines[2] == "| LR | 12,346 | 4,000 | 3.1 (2.9–3.2) | 0.7123 | 0.7120 |"
    assert lines[7].startswith("| MaskNet |")
    assert {line.count("|") for line in lines[:8]} == {7}


def test_one_pair_of_both_models(peer, log, monkeypatch):
    """The whole of ``measure``, with the runs themselves replaced by numbers."""
    generator = SimpleNamespace(criteo_shaped=lambda rows, ids, seed: log)
    monkeypatch.setitem(sys.modules, "paperlab.bench.criteo_shaped", generator)
    results = {training.train_ours: run(1.0, 0.702), training.train_theirs: run(4.0, 0.700)}
    monkeypatch.setattr(training, "alone", lambda call, *args, spin=None: results[call])
    found = training.measure(pairs=3, rows=1000)
    assert [r["name"] for r in found["rows"]] == list(training.MODELS)
    assert all(r["ratio"] == 4 and len(r["runs"]) == 3 for r in found["rows"])


@pytest.mark.parametrize("wrong", [{"pairs": 0}, {"rows": 10}])
def test_values_out_of_range(wrong):
    with pytest.raises(ValueError, match="pairs >= 1 and rows >= 1000"):
        training.measure(**wrong)


def test_each_side_waits_as_it_would_by_itself(monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert training.alone(os.getenv, "GOMP_SPINCOUNT", spin="9") == "9"
    assert training.alone(os.getenv, "GOMP_SPINCOUNT") == "7"
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_startup_times_what_it_names():
    assert 0 < startup.import_seconds("json") < 5
    found = {"times": 3, "rows": [{"name": "import torch", "seconds": 1.234, "range": [1, 2]}]}
    assert startup.markdown(found).splitlines()[2] == "| `import torch` | 1.23 |"


def test_preparation_counts_every_row(monkeypatch):
    """A thousand rows of real text through a real process; one row in a hundred is malformed."""
    monkeypatch.setattr(preparation, "EVERY", 100)
    found = preparation.measure(rows=1000)
    assert (sum(found["stored"].values()), found["rejected"]) == (990, 10)
    assert found["bytes"] > 100_000 and found["peak_mb"] > 50
    assert "| 1,000 |" in preparation.markdown(found) and "| 990 | 10 |" in preparation.markdown(
        found
    )


def test_a_part_is_recorded_and_published_between_its_markers(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(startup, "measure", lambda: {"times": 1, "rows": []})
    page = tmp_path / "data/reference/BENCH.md"
    page.parent.mkdir(parents=True)
    for old in ("", "old text\n"):
        page.write_text(f"above\n<!-- bench startup -->\n{old}<!-- /bench startup -->\nbelow\n")
        bench.main(["startup"])
        text = page.read_text()
        assert text.startswith("above\n<!-- bench startup -->\n| start | seconds |")
        assert text.endswith("<!-- /bench startup -->\nbelow\n") and "old" not in text
    record = json.loads((tmp_path / "data/reference/bench_startup.json").read_text())
    assert record["rows"] == [] and record["machine"] in text
    page.write_text("no markers")
    with pytest.raises(ValueError, match="BENCH.md holds no markers of startup"):
        bench.main(["startup"])
    assert page.read_text() == "no markers"


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="no part lunch; it has training, startup"):
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
