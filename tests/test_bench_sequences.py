"""The bench on histories: both sides are one function on the same rows; the tables say what was
measured."""

import numpy as np
import pytest
import torch
from paperlab.bench import sequences
from paperlab.data.store import save


@pytest.fixture(scope="module")
def peer():
    pytest.importorskip(
        "fuxictr.pytorch.dataloaders.npz_dataloader",
        reason="FuxiCTR is not installed: pip install -e '.[bench]'",
        exc_type=ImportError,
    )
    from paperlab.bench import fuxictr_din

    return fuxictr_din


@pytest.fixture(scope="module")
def log():
    from paperlab.interest.worlds.interest_sequences import interest_sequences

    return interest_sequences(1500, lengths=(1, 6), categories=4, items=5)


@pytest.fixture(scope="module")
def folder(log, peer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    save(log, folder)
    peer.save_npz(log, folder)
    return folder


def theirs(peer, log):
    return peer.DIN(log.schema, sequences.DIM, 0.01, sequences.ATTENTION, sequences.WIDTHS)


def test_both_sides_are_the_same_function(peer, log, folder):
    """From the same weights the same probabilities, padded histories included."""
    ours, other = sequences.build("DIN", log.schema, 0), theirs(peer, log)
    with torch.no_grad():
        ours.embed.table.weight.normal_(0, 0.7)
    peer.copy_weights(ours, other)
    assert len({sum(p.numel() for p in m.parameters()) for m in (ours, other)}) == 1
    want = ours.eval()(log.test.take(slice(None))).sigmoid().double()
    found = torch.from_numpy(other.predict(peer.loader(log.schema, folder, "test", 64)))
    assert want.std() > 0.02  # two thousand times the tolerance
    torch.testing.assert_close(found.detach(), want.detach(), atol=1e-5, rtol=0)


def test_copying_refuses_another_model(peer, log):
    with pytest.raises(ValueError, match="not the same model"):
        peer.copy_weights(sequences.build("TIN", log.schema, 0), theirs(peer, log))


def test_both_sides_see_the_same_histories(peer, log, folder):
    batch = next(iter(peer.loader(log.schema, folder, "test", len(log.test))))
    rows = log.test.take(slice(None))
    assert (batch["item"].numpy() == rows.ids[:, 0].numpy()).all()
    found = np.stack([batch["item_history"], batch["category_history"]], 2)
    assert found.shape[1] == 6
    assert (found[:, -rows.history.shape[1] :] == rows.history.numpy()).all()
    assert (found[:, : -rows.history.shape[1]] == 0).all()


def test_one_run_of_each_side(peer, folder):
    threads = torch.get_num_threads()
    try:
        runs = [sequences.train_ours(name, str(folder), 0) for name in sequences.MODELS]
        runs.append(sequences.train_theirs(str(folder), 0, workers=0))
        long = sequences.train_long("TIN", str(folder))
    finally:
        torch.set_num_threads(threads)
    for run in runs:
        assert run["rows"] == 1200 and run["seconds"] > 0 and 0 <= run["auc"] <= 1
    assert long["ms"] > 0 and long["peak_mb"] >= 0


def test_markdown_takes_medians_pair_by_pair():
    def runs(*seconds):
        return [{"seconds": s, "rows": 1000, "auc": 0.9 + s / 1000} for s in seconds]

    found = {
        "log": "Log(tiny)", "pairs": 3, "workers": 1,
        "DIN": runs(1, 2, 4), "TIN": runs(0.5, 1, 1), "theirs": runs(4, 4, 20),
        "lengths": [
            {"name": m, "length": n, "ms": n / 2, "peak_mb": 10.0 * n} for n in (20, 800) for m in ("DIN", "TIN")
        ],
    }  # fmt: skip
    text = sequences.markdown(found)
    assert "| DIN | 500 | 250 | 4.0 (2.0–5.0) | 0.9020 | 0.9040 |" in text
    assert "| TIN | 1,000 | 250 | 8.0 (4.0–20.0) | 0.9010 | 0.9040 |" in text
    assert "| history | 20 | 800 |" in text and "| TIN, peak MB | 200 | 8,000 |" in text


@pytest.mark.parametrize("wrong", [{"pairs": 0}, {"rows": 999}])
def test_faults(wrong):
    with pytest.raises(ValueError, match="pairs >= 1 and rows >= 1000"):
        sequences.measure(**wrong)
