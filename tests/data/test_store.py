"""Schema, column store, batches, and the two generators."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.bench.criteo_shaped import criteo_shaped
from paperlab.ctr.worlds.noise_fields import noise_fields
from paperlab.data import Batches, Field, Log, Schema, from_arrays, open_store, save

SCHEMA = Schema(
    (
        Field("n", "numeric"),
        Field("h", "sequence", length=3, shares="i"),
        Field("g", "sequence", length=3, size=4),
        Field("u", size=5),
        Field("i", size=9),
    ),
    ("click",),
    user="u",
)


def log(rows: int = 50, **extra) -> Log:
    draw = np.random.default_rng(0)
    ids = np.stack([draw.integers(0, 5, rows), draw.integers(0, 9, rows)], 1)
    values = np.stack([draw.random(rows), draw.integers(0, 2, rows)], 1)
    events = draw.integers(1, 4, (40, 2)), np.sort(draw.integers(0, 10**6, 40))
    start = draw.integers(0, 40, rows)
    spans = np.stack([start, np.minimum(40, start + draw.integers(0, 7, rows))], 1)
    columns = {"spans": spans, "events": events, "times": draw.integers(10**6, 10**7, rows)}
    return from_arrays("x", SCHEMA, ids, values, np.arange(rows) % 3, **columns | extra)


def two(ids=((1,), (1,), (1,)), values=((0, 1), (0, 1), (0, 1)), part=(0, 1, 2)) -> Log:
    """A row a part, of one field of 5 ids and one number."""
    schema = Schema((Field("a", size=5), Field("n", "numeric")))
    return from_arrays("two", schema, np.array(ids), np.array(values), np.array(part))


def slow_take(split, index):
    """History and hours of each row, one event after another."""
    spans = [split.spans[i].tolist() for i in index]
    used = [list(range(max(a, b - split.length), b)) for a, b in spans]
    longest = max(1, *map(len, used))
    history = torch.zeros(len(used), longest, split.events.ids.shape[1], dtype=torch.int32)
    hours = torch.zeros(len(used), longest)
    for row, places in enumerate(used):
        for back, event in enumerate(reversed(places), 1):
            history[row, -back] = split.events.ids[event]
            seconds = int(split.times[index[row]] - split.events.times[event])
            hours[row, -back] = seconds / 3600
    return history, hours


def test_fields_stand_in_the_order_of_the_matrix():
    assert [f.name for f in SCHEMA.fields] == ["u", "i", "n", "h", "g"]
    assert (SCHEMA.user_column, SCHEMA.length) == (0, 3)
    assert Schema.from_json(SCHEMA.to_json()) == SCHEMA


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 16), min_size=1, max_size=12))
def test_histories_are_gathered_as_a_loop_would(index):
    split = log().train
    batch = split.take(torch.tensor(index))
    history, hours = slow_take(split, index)
    assert torch.equal(batch.history, history)
    torch.testing.assert_close(batch.elapsed, hours)
    assert batch.elapsed.dtype == torch.float32
    assert batch.history.dtype == torch.int32


def test_a_slice_takes_the_rows_of_the_index_and_lengths_are_capped():
    split = log().train
    by_slice, by_index = split.take(slice(2, 9)), split.take(torch.arange(2, 9))
    assert all(torch.equal(a, b) for a, b in zip(by_slice, by_index, strict=True))
    real = split.take(slice(None)).history[..., 0] > 0
    assert torch.equal(real.sum(1), split.lengths)
    assert split.lengths.max() == 3


def test_some_rows_of_a_split_are_a_split_with_all_their_columns():
    split = log(users=np.arange(50)).train
    few = torch.tensor([5, 0, 5])
    some = split.rows(few)
    assert some.users.tolist() == split.users[few].tolist()
    batches = some.take(slice(None)), split.take(few)
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))
    assert len(split.rows(slice(3))) == 3


def test_empty_histories_and_logs_without_times():
    none = np.zeros((50, 2), np.int64)
    batch = log(spans=none).train.take(slice(0, 4))
    assert batch.history.tolist() == [[[0, 0]]] * 4
    assert batch.elapsed.tolist() == [[0.0]] * 4
    assert log(times=None).train.take(slice(0, 4)).elapsed is None
    ordered = log(events=(np.ones((40, 2)), None))
    assert ordered.train.take(slice(0, 4)).elapsed is None
    assert ordered.events.times is None


def test_user_keys_need_not_be_a_field():
    keys = np.arange(50)
    plain = Schema(SCHEMA.fields, ("click",))
    made = log(users=keys)
    outside = from_arrays(
        "x", plain, np.zeros((50, 2)), np.zeros((50, 2)), keys % 3, users=keys,
        spans=np.zeros((50, 2)), events=(np.ones((1, 2)), None),
    )  # fmt: skip
    assert outside.user("valid").tolist() == keys[1::3].tolist()
    assert made.user("train").tolist() == keys[::3].tolist()  # the users' own keys go first
    assert torch.equal(log().user("train"), log().train.ids[:, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Field("a", "words"), "not 'words'"),
        (lambda: Field("a"), "size >= 1"),
        (lambda: Field("a", "sequence", size=3), "length >= 1"),
        (
            lambda: Schema(
                (Field("a", "sequence", size=3, length=1), Field("b", "sequence", size=3, length=2))
            ),
            "one length",
        ),
        (lambda: log(spans=np.full((50, 2), 41)), "stop <= 40 events"),
        (lambda: log(spans=np.array([[2, 1]] * 50)), "start <= stop"),
        (lambda: log(spans=None), "spans of shape"),
        (lambda: log(spans=np.full((50, 2), 0.5)), "spans must be whole numbers"),
        (lambda: log(spans=np.zeros((49, 2))), "spans has 49 rows, part has 50"),
        (lambda: log(users=np.full(50, np.nan)), "users must be whole numbers"),
        (lambda: log(users=np.array(["a"] * 50)), "users must be whole numbers"),
        (lambda: log(times=np.full(50, np.inf)), "times must be whole numbers"),
        (lambda: log(events=(np.full((40, 2), 1.5), None)), "event ids must be whole numbers"),
        (lambda: log(events=(np.full((40, 2), np.nan), None)), "event ids must be whole numbers"),
        (lambda: log(events=(np.full((40, 2), 9), None)), r"events: h must lie in 0\.\.8, got 9"),
        (lambda: log(events=(np.full((40, 2), 4), None)), r"events: g must lie in 0\.\.3, got 4"),
        (lambda: log(events=(np.full((40, 2), -1), None)), "events: h must lie in"),
        (lambda: log(events=(np.ones(40), None)), "event ids must have 2 dimensions, got 1"),
        (lambda: log(events=(np.ones((40, 2)), np.ones(39))), "39 event times for 40 events"),
        (lambda: log(times=np.ones((50, 1))), "times must have 1 dimensions, got 2"),
        (lambda: log(users=np.ones((50, 1))), "users must have 1 dimensions, got 2"),
        (lambda: two(ids=None), "ids has no rows, part has 3"),
        (lambda: two(values=[[[0], [1]]] * 3), "values must have 2 dimensions, got 3"),
        (lambda: two(ids=[[5]] * 3), r"two.train: a must lie in 0\.\.4, got 5\.\.5"),
        (lambda: two(ids=[[-1]] * 3), r"two.train: a must lie in 0\.\.4, got -1"),
        (lambda: two(ids=[[1], [1], [2**32]]), r"two: ids must lie in -2147483648\.\.2147483647"),
        (lambda: two(ids=[[1.5]] * 3), "two: ids must be whole numbers"),
        (lambda: two(ids=[[np.nan]] * 3), "two: ids must be whole numbers"),
        (lambda: two(ids=[["1"]] * 3), "two: ids must be whole numbers"),
        (lambda: two(values=[[0.0, 1], [np.nan, 1], [0, 1]]), "two.valid: n must be finite"),
        (lambda: two(values=[[0.0, 1], [0, 1], [0, np.inf]]), "two.test: label must be finite"),
        (lambda: two(part=[0, 1, 3]), "part must hold 0"),
        (lambda: two(part=[0, 1, -1]), "part must hold 0"),
        (lambda: two(part=[0, 1, 0.5]), "part must hold 0"),
        (lambda: two(part=[0, 1, 1]), "two.test is empty"),
        (lambda: two(part=[2, 1, 1]), "two.train is empty"),
        (lambda: two(values=[[0, 1], [0, 1]]), "values has 2 rows, part has 3"),
        (lambda: log(events=(np.ones((40, 1)), None)), "event columns"),
        (lambda: Schema((Field("a", size=2), Field("a", size=2))), "twice"),
        (lambda: Schema((Field("a", size=2),), user="b"), "not a categorical field"),
        (lambda: Schema(()), "at least one field"),
        (
            lambda: from_arrays("x", SCHEMA, np.zeros((3, 2)), np.zeros((3, 2)), np.zeros(3)),
            "the schema needs",
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


def test_a_log_that_is_put_together_by_hand_is_checked_too():
    good = two()
    for change, message in (
        ({"ids": torch.tensor([[7]])}, "two.valid: a must lie in"),
        ({"ids": torch.tensor([[1.0]])}, "ids must be integers, got torch.float32"),
        ({"values": torch.full((1, 2), torch.nan)}, "two.valid: n, label must be finite"),
        ({"users": torch.arange(2)}, "users has 2 rows, ids has 1"),
        ({"users": torch.ones(1)}, "users must be integers, got torch.float32"),
        ({"times": torch.tensor([torch.nan])}, "times must be integers, got torch.float32"),
        ({"n_numeric": 0}, "must be the schema's 1 and 0, got 0 and 0"),
        ({"length": 2}, "must be the schema's 1 and 0, got 1 and 2"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(good, valid=replace(good.valid, **change))


def test_columns_may_be_lists_or_tensors():
    arrays = {
        "users": np.arange(50),
        "times": np.arange(50),
        "spans": np.stack([np.zeros(50, int), np.arange(50) % 5], 1),
    }
    made = log(**arrays)
    for other in (
        log(**{n: a.tolist() for n, a in arrays.items()}),
        log(**{n: torch.from_numpy(a) for n, a in arrays.items()}),
    ):
        for n in arrays:
            assert torch.equal(getattr(other.train, n), getattr(made.train, n))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-2, 6), min_size=3, max_size=9))
def test_a_log_is_made_exactly_when_all_ids_are_in_their_field(ids):
    schema = Schema((Field("a", size=5),))
    rows = np.array(ids)[:, None], np.zeros((len(ids), 1)), np.arange(len(ids)) % 3
    if min(ids) >= 0 and max(ids) < 5:
        assert from_arrays("x", schema, *rows).train.ids[:, 0].tolist() == ids[::3]
    else:
        with pytest.raises(ValueError, match="a must lie in 0..4"):
            from_arrays("x", schema, *rows)


def test_a_log_survives_the_disk_and_is_mapped(tmp_path):
    made = log()
    save(made, tmp_path / "x")
    found = open_store(tmp_path / "x")
    assert found.schema == SCHEMA
    for part in ("train", "valid", "test"):
        torch.testing.assert_close(getattr(found, part).ids, getattr(made, part).ids)
        torch.testing.assert_close(getattr(found, part).values, getattr(made, part).values)
        whole = [getattr(x, part).take(slice(None)) for x in (found, made)]
        assert all(torch.equal(a, b) for a, b in zip(*whole, strict=True))
    assert found.train.events is found.test.events
    for gone in (r"valid\.spans", r"events\.ids", r"test\.ids"):
        (tmp_path / f"x/{gone.replace(chr(92), '')}.npy").unlink()
        with pytest.raises(FileNotFoundError, match=rf"{gone}\.npy"):
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


def test_rows_of_like_length_go_together_and_none_is_lost():
    draw = np.random.default_rng(1)
    made = log(3000, spans=np.stack([np.zeros(3000, int), draw.integers(0, 4, 3000)], 1))
    made = replace(made.train, values=torch.arange(1000.0)[:, None].expand(1000, 2))
    padded = {}
    for bucket in (True, False):
        batches = Batches(made, 16, seed=3, bucket=bucket)
        first, second = (list(batches) for _ in range(2))
        for epoch in (first, second):
            rows = torch.cat([b.labels[:, 0] for b in epoch])
            assert rows.sort().values.tolist() == list(range(1000))
        assert [len(b.labels) for b in first] == [16] * 62 + [8]
        padded[bucket] = sum(float((b.history[..., 0] == 0).sum()) for b in first)
        lengths = [b.history.shape[1] for b in first]
        assert not bucket or lengths != sorted(lengths)
        again = Batches(made, 16, seed=3, bucket=bucket)
        assert all(torch.equal(a.labels, b.labels) for a, b in zip(first, again, strict=True))
    assert padded[True] < 0.35 * padded[False]


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_share_the_batches_that_one_would_see(rank, monkeypatch):
    whole = [b.labels for b in Batches(log(300).train, 8)][:12]
    monkeypatch.setattr(Batches, "_processes", staticmethod(lambda: (rank, 2)))
    mine = [b.labels for b in Batches(log(300).train, 8)]
    assert len(mine) == 12
    assert all(torch.equal(a[rank::2], b) for a, b in zip(whole, mine, strict=True))


def test_batches_resume_where_they_were():
    batches = Batches(log().train, 4)
    seen = iter(batches)
    next(seen), next(seen)
    state = batches.state_dict()
    rest = [b.numeric for b in seen]
    other = Batches(log().train, 4)
    other.load_state_dict(state)
    assert all(torch.equal(a, b.numeric) for a, b in zip(rest, other, strict=True))


def test_bytes_are_those_of_all_tensors():
    split = noise_fields(100, 3).train  # 80 rows of 13 ids and a label, 4 bytes each
    assert split.nbytes == 80 * (13 + 1) * 4


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
