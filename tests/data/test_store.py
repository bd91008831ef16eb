"""Schema, column store, batches, and the two generators."""

import numpy as np
import pytest
import torch
from paperlab.data import Batches, Field, Log, Schema, from_arrays, open_store, save
from paperlab.data.criteo_shaped import criteo_shaped
from paperlab.data.noise_fields import noise_fields

SCHEMA = Schema(
    (Field("n", "numeric"), Field("h", "sequence", length=3, shares="i"), Field("u", size=5), Field("i", size=9)),
    ("click",),
    user="u",
)  # fmt: skip


def log(rows: int = 50) -> Log:
    draw = np.random.default_rng(0)
    ids = np.concatenate([draw.integers(0, 5, (rows, 1)), draw.integers(0, 9, (rows, 4))], 1)
    values = np.stack([draw.random(rows), draw.integers(0, 2, rows)], 1)
    return from_arrays("x", SCHEMA, ids, values, np.arange(rows) % 3)


def test_fields_stand_in_the_order_of_the_matrix():
    assert [f.name for f in SCHEMA.fields] == ["u", "i", "n", "h"]
    assert (SCHEMA.id_columns, SCHEMA.user_column) == (5, 0)
    assert Schema.from_json(SCHEMA.to_json()) == SCHEMA


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Field("a", "words"), "not 'words'"),
        (lambda: Field("a"), "size >= 1"),
        (lambda: Field("a", "sequence", size=3), "length >= 1"),
        (lambda: Schema((Field("a", size=2), Field("a", size=2))), "twice"),
        (lambda: Schema((Field("a", size=2),), user="b"), "not a categorical field"),
        (lambda: Schema(()), "at least one field"),
        (
            lambda: from_arrays("x", SCHEMA, np.zeros((3, 2)), np.zeros((3, 2)), np.zeros(3)),
            "asks for",
        ),
        (lambda: noise_fields(5, 0), "rows must be in 10"),
        (lambda: noise_fields(100, 0, pairs=46), "pairs must be in 1..45"),
        (lambda: criteo_shaped(10), "rows >= 100"),
    ],
)
def test_bad_input_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_log_survives_the_disk_and_is_mapped(tmp_path):
    made = log()
    save(made, tmp_path / "x")
    found = open_store(tmp_path / "x")
    assert found.schema == SCHEMA
    for part in ("train", "valid", "test"):
        torch.testing.assert_close(getattr(found, part).ids, getattr(made, part).ids)
        torch.testing.assert_close(getattr(found, part).values, getattr(made, part).values)
    (tmp_path / "x/test.ids.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"test\.ids\.npy missing"):
        open_store(tmp_path / "x")


def test_batches_cover_every_row_once_in_a_new_order_each_epoch():
    batches = Batches(log().train, 4, seed=3)
    first, second = ([b.numeric for b in batches] for _ in range(2))
    assert [len(b) for b in first] == [4, 4, 4, 4, 1]
    for epoch in (first, second):
        torch.testing.assert_close(
            torch.cat(epoch).sort(0).values, log().train.values[:, :1].sort(0).values
        )
    assert not torch.equal(torch.cat(first), torch.cat(second))
    again = [b.numeric for b in Batches(log().train, 4, seed=3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_batches_resume_where_they_were():
    batches = Batches(log().train, 4)
    seen = iter(batches)
    next(seen), next(seen)
    state = batches.state_dict()
    rest = [b.numeric for b in seen]
    other = Batches(log().train, 4)
    other.load_state_dict(state)
    assert all(torch.equal(a, b.numeric) for a, b in zip(rest, other, strict=True))


def test_noise_fields_know_their_ceiling():
    small, large = noise_fields(4000, 0), noise_fields(4000, 20)
    assert torch.equal(small.train.ids, large.train.ids[:, :10])
    assert torch.equal(small.train.values, large.train.values)
    assert small.truth.bayes_auc == large.truth.bayes_auc > 0.75
    assert large.truth.signal.sum() == 10
    assert len(np.unique(small.truth.pairs, axis=0)) == 8
    flat = noise_fields(20_000, 0, strength=0.0)
    assert flat.truth.bayes_auc == pytest.approx(0.5)
    other = noise_fields(4000, 0, data_seed=1)
    assert not torch.equal(other.train.ids, small.train.ids)
    assert np.array_equal(other.truth.pairs, small.truth.pairs)


def test_criteo_shape():
    made = criteo_shaped(2000)
    assert len(made.schema.fields) == 39
    assert sum(f.size for f in made.schema.fields) == pytest.approx(1_090_000, rel=0.001)
    assert 0.15 < made.train.labels.mean() < 0.3
    assert made.truth.bayes_auc > 0.65
    top = torch.bincount(made.train.ids[:, 15]).max() / len(made.train)
    assert top > 20 / made.schema.fields[15].size  # far from uniform
