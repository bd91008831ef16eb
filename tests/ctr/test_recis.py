"""The model on any table: a slow version, what is learned on known weights, in the stream's order."""

import polars as pl
import pytest
import torch
from paperlab import data, loop, metrics
from paperlab.ctr import raw_criteo
from paperlab.ctr.recis import Recis, codes, contenders, frequent
from paperlab.ctr.worlds.zipf_stream import zipf_stream
from paperlab.data.formats.criteo import CATEGORIES
from paperlab.nn.tables import BoundedTable, GrowingTable, HashedTable

LOG = zipf_stream(12_000, fields=3, ids=60, valid=1_000, held=4_000, seed=0)
FIT = {"batch_size": 128, "precision": "32-true", "accelerator": "cpu"}


def test_frequent_codes():
    ids = torch.tensor([[1, 1], [1, 2], [3, 2], [1, 2]]).int()
    split = data.Split(ids, torch.zeros(4, 1), 0)
    assert codes(ids)[0].tolist() == [1, 1 + 2**52]
    assert frequent(split, 3).tolist() == [1, 2 + 2**52, 3]  # 3, 3 and 1 times, the tie by code
    assert len(frequent(split, 99)) == 4


def test_it_is_what_a_loop_computes():
    model = Recis(LOG.schema, lambda d: GrowingTable(d, std=0.5), dim=2, widths=(4,))
    batch = LOG.train.take(slice(0, 5))
    got = model(batch)
    rows = model.embed.eval()(codes(batch.ids))
    for b in range(5):
        e = rows[b, :, 1:]
        pairs = sum(e[i] @ e[j] for i in range(3) for j in range(i))
        want = model.bias + rows[b, :, 0].sum() + pairs + model.mlp(e.flatten())[0]
        assert got[b].item() == pytest.approx(want.item(), abs=1e-5)
    assert model.count_parameters() == {
        "dense": 1 + 6 * 4 + 4 + 4 + 1,
        "embedding": 3 * len(codes(batch.ids).unique()),
    }


def trained(table, **options):
    model = Recis(LOG.schema, table, lr=0.02, **options).start_at(LOG.train)
    assert model.bias.sigmoid().item() == pytest.approx(LOG.train.labels.mean().item(), abs=1e-6)
    loop.fit(model, LOG, **FIT)
    return model


def test_known_weights_are_found():
    """Far below the constant's excess, and the more so the fewer ids share a row."""
    constant = Recis(LOG.schema, lambda d: GrowingTable(d)).start_at(LOG.train)
    floor = constant.evaluate(LOG)["excess"]
    exact, hashed = trained(GrowingTable), trained(lambda d: HashedTable(20, d))
    exact, hashed = exact.evaluate(LOG)["excess"], hashed.evaluate(LOG)["excess"]
    assert exact < 0.35 * floor and exact < 0.7 * hashed


def test_a_bounded_table_of_all_ids_is_the_exact_one():
    every = frequent(LOG.train, 10**6)
    bounded = trained(lambda d: BoundedTable(every, d)).evaluate(LOG)["excess"]
    assert bounded == pytest.approx(trained(GrowingTable).evaluate(LOG)["excess"], rel=1e-4)


def test_a_stream_is_read_in_order():
    batches = trained(GrowingTable).batches(LOG.train, 5_000, seed=0)
    assert [len(b.ids) for b in batches] == [5_000, 5_000, 2_000]
    assert torch.equal(torch.cat([b.ids for b in batches]), LOG.train.ids)
    batches.load_state_dict({"epoch": 1, "start": 2})
    assert torch.equal(next(iter(batches)).ids, LOG.train.ids[10_000:])


def test_a_part_with_too_few_rows_is_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        trained(GrowingTable).batches(LOG.train, 0, seed=0)
    mixed = data.Schema((data.Field("a", size=3), data.Field("n", "numeric")))
    with pytest.raises(ValueError, match="categorical fields only"):
        Recis(mixed, GrowingTable)
    with pytest.raises(ValueError, match="dim must be at least 0"):
        Recis(LOG.schema, GrowingTable, dim=-1)


def test_contenders_train():
    for build in contenders().values():
        model = build(LOG.schema, None)
        before = model.evaluate(LOG)["logloss"]
        model.lr = 0.01
        assert loop.fit(model, LOG, **FIT).test["logloss"] < before - 0.03


def test_gauc_counts_every_group():
    """RecIS's released loop leaves the first and the last group of a call out."""
    scores, labels = torch.tensor([0.9, 0.1, 0.1, 0.9]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert metrics.gauc(scores, labels, torch.tensor([0, 0, 1, 1])) == 0.5


def test_raw_criteo():
    values = [None, 7, 7, 2] * 5
    frame = pl.DataFrame({"label": [0, 1] * 10} | {c: values for c in CATEGORIES})
    log = raw_criteo.log(frame)
    assert [len(s) for s in (log.train, log.valid, log.test)] == [14, 2, 4]
    assert log.train.ids[:4, 0].tolist() == [1, 3, 3, 2]
    assert log.test.ids[:, 25].tolist() == [1, 3, 3, 2]
    assert len(log.schema.fields) == 26
    with pytest.raises(ValueError, match="rows must be at least 10"):
        raw_criteo.log(frame[:4])
