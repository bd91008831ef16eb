"""Tables of any ids: the sheet's worked numbers, a dictionary as slow version, merging, eviction."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.nn.id_maps import IdMap, decode, encode, mix, normal
from paperlab.nn.ragged import combine
from paperlab.nn.table_adam import TableAdam
from paperlab.nn.tables import BoundedTable, GrowingTable, HashedTable, Setting, Tables

ids = torch.tensor


def test_codes():
    assert encode(ids([5]), 3).item() == 5 + 3 * 2**52
    assert [t.item() for t in decode(encode(ids([5]), 3))] == [5, 3]
    assert encode(ids([2**52 + 7]), 1).item() == 7 + 2**52  # upper bits are lost
    with pytest.raises(ValueError, match=r"table must be in 0\.\.4095, got 4096"):
        encode(ids([5]), 4096)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 2**52 - 1), st.integers(0, 4095)), min_size=1, max_size=9))
def test_codes_are_one_to_one(pairs):
    i, t = torch.tensor(pairs).unbind(1)
    codes = encode(i, t)
    assert torch.equal(torch.stack(decode(codes), 1), torch.tensor(pairs))
    assert len(codes.unique()) == len(set(pairs))


def splitmix(x: int) -> int:
    """The published generator's output for a state before its increment."""
    full = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & full
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & full
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & full
    return x ^ (x >> 31)


@pytest.mark.parametrize("x", [0, 1, 5 + 3 * 2**52, 2**63 - 1, -1, -(2**63)])
def test_the_hash_is_splitmix64(x):
    assert mix(ids([x])).item() & (2**64 - 1) == splitmix(x & (2**64 - 1))
    assert splitmix(0) == 0xE220A8397B1DCDAF  # the first output for seed 0


def test_initial_values_are_standard_normal():
    z = normal(torch.arange(50_000), 2)
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02
    assert abs((z[:, 0] * z[:, 1]).mean()) < 0.02
    assert abs((z > 1.96).float().mean() - 0.025) < 0.003
    assert torch.equal(normal(ids([7]), 2), z[7:8])
    assert not torch.equal(normal(ids([7]), 2, seed=1), z[7:8])


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=400), max_size=5))
def test_a_map_is_a_dictionary(parts):
    known, index = {}, IdMap()
    for part in parts:
        new = sorted(set(part) - known.keys())
        rows = range(len(known), len(known) + len(new))
        index.insert(torch.tensor(new, dtype=torch.int64), torch.tensor(rows, dtype=torch.int64))
        known |= dict(zip(new, rows, strict=True))
        asked = [*part, 0, 1]
        assert index.find(torch.tensor(asked)).tolist() == [known.get(i, -1) for i in asked]
    assert index.size == len(known)


def test_a_map_grows():
    index, many = IdMap(), mix(torch.arange(5_000))
    for part in many.split(700):
        index.insert(part, torch.arange(index.size, index.size + len(part)))
    assert torch.equal(index.find(many), torch.arange(5_000))
    assert 2 * index.size <= len(index.keys)


def test_lookup():
    table = GrowingTable(4, std=1.0)
    rows = table(ids([1, 2, 1]))
    assert torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])
    assert len(table) == 2
    table.eval()
    assert torch.equal(table(ids([[1], [9]]))[1, 0], torch.zeros(4)) and len(table) == 2
    table.train()
    assert torch.equal(table(ids([9]), admit=False)[0], torch.zeros(4)) and len(table) == 2
    assert table.nbytes() == 2 * (8 + 3 * 4 * 4)


def test_rows_do_not_depend_on_the_order_of_ids():
    a, b = GrowingTable(3, std=1.0), GrowingTable(3, std=1.0)
    a(ids([1, 2])), a(ids([3])), b(ids([3, 2, 1]))
    assert torch.equal(a.eval()(ids([1, 2, 3])), b.eval()(ids([1, 2, 3])))


def test_collisions_of_a_hashed_table():
    """n ids in M rows leave a share (1 - 1/M)^n of them empty."""
    rows = HashedTable(1000, 1).place(torch.arange(1000), True)
    assert 0.33 < 1 - len(rows.unique()) / 1000 < 0.41  # .368
    other = HashedTable(1000, 1, hash_seed=1).place(torch.arange(1000), True)
    assert (rows == other).float().mean() < 0.01


def test_a_bounded_table_shares_one_row():
    table = BoundedTable(ids([5, 6]), 2)
    assert table.place(ids([6, 7, 5, 8]), True).tolist() == [2, 0, 1, 0]
    assert len(table) == 3
    with pytest.raises(ValueError, match="ids must differ"):
        BoundedTable(ids([5, 5]), 2)


def test_duplicates_are_summed_or_averaged():
    table = GrowingTable(2)
    g = torch.tensor([0.5, -1.0])
    for reduce, times in (("sum", 3), ("mean", 1)):
        (table(ids([4, 4, 4])) * g).sum().backward()
        rows, gradient = table.gradients(reduce)
        assert rows.tolist() == [0] and torch.equal(gradient[0], times * g)
    assert len(table.gradients()[0]) == 0  # used once
    with pytest.raises(ValueError, match="reduce must be one of sum, mean"):
        table.gradients("id")


def test_two_passes_accumulate():
    table = HashedTable(2, 1)
    for value in (1.0, 2.0):
        (table(ids([1, 2, 3])) * value).sum().backward()
    rows, gradient = table.gradients()
    assert rows.tolist() == sorted({*table.place(ids([1, 2, 3]), True).tolist()})
    assert gradient.sum().item() == 9
    table(ids([1]))  # looked up, no backward pass: nothing to use
    assert len(table.gradients()[0]) == 0


def slow_combine(rows, offsets, how, weights, tile):
    out = []
    for a, b in pairwise(offsets):
        part, w = rows[a:b], weights[a:b]
        if how == "tile":
            part = [*part[:tile], *[torch.zeros(rows.shape[1])] * (tile - (b - a))]
            out.append(torch.cat(part))
            continue
        total = sum((x * y for x, y in zip(part, w, strict=True)), torch.zeros(rows.shape[1]))
        out.append(total / sum(w) if how == "mean" and len(w) else total)
    return torch.stack(out)


@pytest.mark.parametrize("how", ["sum", "mean", "tile"])
@pytest.mark.parametrize("offsets", [[0, 3, 5, 7], [0, 0, 7, 7]])
def test_combine_is_what_a_loop_computes(how, offsets):
    rows = torch.arange(1.0, 8.0)[:, None] * torch.tensor([1.0, -2.0])
    for weights in (None, torch.linspace(0.5, 2, 7)):
        if how == "tile" and weights is not None:
            continue
        w = torch.ones(7) if weights is None else weights
        got = combine(rows, ids(offsets), how, weights=weights, tile=2)
        assert torch.allclose(got, slow_combine(rows, offsets, how, w, 2))


def test_combine_by_hand():
    rows, offsets = torch.arange(1.0, 8.0)[:, None], ids([0, 3, 5, 7])
    assert combine(rows, offsets).flatten().tolist() == [6, 9, 13]
    assert combine(rows, offsets, "mean").flatten().tolist() == [2, 4.5, 6.5]
    assert combine(rows, offsets, "tile", tile=2).tolist() == [[1, 2], [4, 5], [6, 7]]
    with pytest.raises(ValueError, match="offsets must rise from 0 to 7"):
        combine(rows, ids([0, 3, 5]))
    with pytest.raises(ValueError, match="how must be one of"):
        combine(rows, offsets, "max")
    with pytest.raises(ValueError, match="weights have no meaning for tile"):
        combine(rows, offsets, "tile", weights=torch.ones(7))


def test_merged_tables_equal_separate_ones():
    """Vectors, gradients and weights after three steps, for features of two widths."""
    features = {f"f{k}": Setting(dim=4 if k % 3 else 2, std=0.1) for k in range(7)}
    draw = torch.Generator().manual_seed(0)
    both = [Tables(features, merged) for merged in (True, False)]
    assert [len(t.tables) for t in both] == [2, 7]
    optimisers = [TableAdam(t, lr=0.1, weight_decay=0.01) for t in both]
    for _ in range(3):
        batch = {
            n: torch.randint(0, 9, (5, 1 + k % 2), generator=draw) for k, n in enumerate(features)
        }
        seen = []
        for tables, optimiser in zip(both, optimisers, strict=True):
            vectors = tables(batch)
            sum((v.sin() * v).sum() for v in vectors.values()).backward()
            read = [(t.ids[r.rows], r.weight.grad) for t in tables.tables for r in t.reads]
            optimiser.step()
            by_code = {
                int(i): g for codes, grads in read for i, g in zip(codes, grads, strict=True)
            }
            after = tables.eval()(batch)
            tables.train()
            seen.append((vectors, by_code, after))
        (a, grads_a, after_a), (b, grads_b, after_b) = seen
        assert grads_a.keys() == grads_b.keys()
        for x, y in ((a, b), (grads_a, grads_b), (after_a, after_b)):
            assert max((x[k] - y[k]).abs().max().item() for k in x) < 1e-6
        assert min((after_a[n] - a[n]).abs().max().item() for n in a) > 1e-3  # it trains


def test_equal_ids_of_two_features_differ():
    tables = Tables({"a": Setting(8, 1.0), "b": Setting(8, 1.0)})
    vectors = tables({"a": ids([3]), "b": ids([3])})
    assert (vectors["a"] - vectors["b"]).abs().min() > 1e-4 and len(tables.tables[0]) == 2


def test_eviction():
    """Ids not seen for more than two steps go, and start anew when they return."""
    table = GrowingTable(1, filter_step=2)
    optimiser = TableAdam(table, lr=0.1)

    def step(*seen):
        table(ids(seen)).sum().backward()
        optimiser.step()
        return sorted(table.ids.tolist())

    assert step(1, 2) == [1, 2]
    kept = table.eval()(ids([2])).item()
    table.train()
    assert step(2) == [1, 2] and step(2) == [2]
    assert table.eval()(ids([2])).item() < kept < 0
    assert table(ids([1])).item() == 0  # it had moved
    table.train()
    table(ids([1]))
    row = table.index.find(ids([1]))
    for slot in ("weight", "exp_avg", "exp_avg_sq", "updates"):
        assert not getattr(table, slot)[row].any()


@settings(deadline=None, max_examples=20, derandomize=True)
@given(
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=6), min_size=1, max_size=15),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_eviction_is_what_a_loop_does(batches, filter_step, interval):
    table = GrowingTable(1, filter_step=filter_step, filter_interval=interval)
    last = {}
    for step, batch in enumerate(batches):
        table(ids(batch))
        table.advance()
        last |= dict.fromkeys(batch, step)
        if (step + 1) % interval == 0:
            last = {i: s for i, s in last.items() if step + 1 - s <= filter_step}
        assert sorted(table.ids.tolist()) == sorted(last)
        assert torch.equal(table.index.find(table.ids), torch.arange(len(table)))


def test_state_dict_round_trip():
    table = GrowingTable(3, std=1.0)
    many = mix(torch.arange(3_000))
    table(many).square().sum().backward()
    TableAdam(table).step()
    saved = {k: v.clone() for k, v in table.state_dict().items()}
    assert saved["weight"].shape == (3_000, 3)
    other = GrowingTable(3)
    other(ids([1, 2]))
    other.load_state_dict(saved)
    assert torch.equal(other.eval()(many), table.eval()(many))
    assert all(torch.equal(v, saved[k]) for k, v in other.state_dict().items())
    other.train()(ids([3]))
    assert len(other) == 3_001


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GrowingTable(0), "dim must be at least 1"),
        (lambda: GrowingTable(1, std=-1), "std must be at least 0"),
        (lambda: GrowingTable(1, filter_step=0), "filter_step must be at least 1"),
        (lambda: HashedTable(0, 1), "capacity must be at least 1"),
        (lambda: Tables({}), r"features must be 1\.\.4096, got 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
