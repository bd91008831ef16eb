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
    from paperlab.bench import fuxictr

    ours, other = sequences.build("DIN", log.schema, 0), theirs(peer, log)
    with torch.no_grad():
        ours.embed.table.weight.normal_(0, 0.7)
    peer.copy_weights(ours, other)
    assert len({sum(p.numel() for p in m.parameters()) for m in (ours, other)}) == 1
    want = ours.eval()(log.test.take(slice(None))).sigmoid().double()
    found = torch.from_numpy(other.predict(fuxictr.loader(other.feature_map, folder, "test", 64)))
    assert want.std() > 0.02  # two thousand times the tolerance
    torch.testing.assert_close(found.detach(), want.detach(), atol=1e-5, rtol=0)


def test_copying_refuses_another_model(peer, log):
    with pytest.raises(ValueError, match="not the same model"):
        peer.copy_weights(sequences.build("TIN", log.schema, 0), theirs(peer, log))


def test_both_sides_see_the_same_histories(peer, log, folder):
    from paperlab.bench import fuxictr

    batch = next(iter(fuxictr.loader(peer.feature_map(log.schema), folder, "test", len(log.test))))
    rows = log.test.take(slice(None))
    assert (batch["item"].numpy() == rows.ids[:, 0].numpy()).all()
    found = np.stack([batch["item_history"], batch["category_history"]], 2)
    assert found.shape[1] == 6
    assert (found[:, -rows.history.shape[1] :] == rows.history.numpy()).all()
    assert (found[:, : -rows.history.shape[1]] == 0).all()


def test_one_run_of_each_side(peer, folder, monkeypatch):
    monkeypatch.setattr(sequences, "BATCH_SIZE", 240)  # five batches; the first three do not count
    threads = torch.get_num_threads()
    try:
        runs = [sequences.train_ours(name, str(folder), 0) for name in sequences.MODELS]
        runs.append(sequences.train_theirs("FuxiCTR DIN", str(folder), 0))
        long = sequences.train_long("TIN", str(folder))
    finally:
        torch.set_num_threads(threads)
    for run in runs:
        assert run["rows"] == 480 and run["seconds"] > 0 and 0 <= run["auc"] <= 1
    assert long["ms"] > 0 and long["peak_mb"] >= 0


@pytest.mark.parametrize("name", ["DIN", "SASRec"])
def test_recboles_models_learn_from_our_rows(log, name):
    """About as many weights as ours, and a loss that falls on a batch seen often."""
    pytest.importorskip("recbole", reason="RecBole is not installed", exc_type=ImportError)
    from paperlab.bench import recbole

    torch.manual_seed(0)
    model = recbole.build(name, log, sequences.DIM, sequences.WIDTHS, sequences.ATTENTION)
    batch = recbole.rows(log.train.take(slice(0, 200)), log.schema.categorical[0].size)
    assert (batch["item_list"] != 0).sum(1).equal(batch["length"])
    adam = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(30):
        adam.zero_grad()
        losses.append(model.calculate_loss(batch))
        losses[-1].backward()
        adam.step()
    assert losses[-1] < 0.9 * losses[0]
