"""AdamW on tables: the sheet's worked numbers, torch's own optimisers, untouched rows."""

import pytest
import torch
from paperlab.nn.table_adam import TableAdam, adamw
from paperlab.nn.tables import GrowingTable, HashedTable
from torch import nn

ids = torch.tensor


def one(w=0.0, m=0.0, v=0.0, g=1.0, t=1, **how):
    values = (torch.tensor([[x]], dtype=torch.float64) for x in (w, m, v, g))
    return [x.item() for x in adamw(*values, torch.tensor([[t]]), **({"lr": 0.001} | how))]


def test_first_step_by_hand():
    """-.001 (sqrt(.001) / .1) (.1 / (sqrt(.001) + 1e-8)): about -.001."""
    w, m, v = one()
    assert w == pytest.approx(-0.001 * 0.001**0.5 / (0.001**0.5 + 1e-8), abs=1e-15)
    assert (m, v) == pytest.approx((0.1, 0.001))


@pytest.mark.parametrize(("decay", "factor"), [("adamw", 0.99999), ("tf", 0.99)])
def test_decay(decay, factor):
    table = GrowingTable(1, std=1.0)
    before = table(ids([7]))
    (before * 0).sum().backward()
    TableAdam(table, lr=0.001, weight_decay=0.01, decay=decay).step()
    assert table.eval()(ids([7])).item() == pytest.approx(factor * before.item(), rel=1e-7)


@pytest.mark.parametrize(("t", "size"), [(1, 1.0), (100, 0.976), (1000, 2.515), (10_000, 3.162)])
def test_a_late_row_takes_larger_first_steps(t, size):
    """The global counter's correction is gone when a rare id arrives: 1 to 3.16 rates."""
    assert -one(t=t)[0] / 0.001 == pytest.approx(size, rel=1e-3)


def test_a_late_row_peaks_on_its_twelfth_touch():
    w = m = v = 0.0
    sizes = []
    for touch in range(30):
        before = w
        w, m, v = one(w, m, v, t=100_000 + touch)
        sizes.append((before - w) / 0.001)
    assert sizes.index(max(sizes)) == 11 and max(sizes) == pytest.approx(6.57, abs=0.01)


def trained(table, how, batches, lr=0.05):
    optimiser = TableAdam(table, lr=lr, **how)
    for batch in batches:
        optimiser.zero_grad()
        rows = table(batch)
        (rows.sin() + rows * batch[:, None]).mean().backward()
        optimiser.step()
    return table.eval()


def references(optimiser, batches, lr=0.05, **how):
    embedding = nn.Embedding(9, 2, sparse=optimiser is torch.optim.SparseAdam)
    nn.init.zeros_(embedding.weight)
    optimiser = optimiser(embedding.parameters(), lr=lr, **how)
    for batch in batches:
        optimiser.zero_grad()
        rows = embedding(batch)
        (rows.sin() + rows * batch[:, None]).mean().backward()
        optimiser.step()
    return embedding.weight.detach()


@pytest.fixture
def batches():
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(0, 9, (4,), generator=draw) for _ in range(40)]


def test_dense_is_torchs_adam(batches):
    got = trained(GrowingTable(2), {"lazy": False}, batches)(torch.arange(9))
    assert torch.allclose(got, references(torch.optim.Adam, batches, eps=1e-12), atol=1e-5)


def test_lazy_is_torchs_sparse_adam(batches):
    """Which has a global counter and epsilon outside the correction, too."""
    got = trained(GrowingTable(2), {}, batches)(torch.arange(9))
    assert torch.allclose(got, references(torch.optim.SparseAdam, batches), atol=1e-6)


def test_rules_agree_where_every_row_is_read_at_every_step():
    batches = [torch.arange(9)] * 5
    rules = [{}, {"lazy": False}, {"counter": "row"}, {"reduce": "mean"}]
    first, *others = (trained(GrowingTable(2), how, batches)(torch.arange(9)) for how in rules)
    for other in others:
        assert torch.allclose(first, other, atol=1e-7)


def test_a_row_counter_is_a_table_of_its_own(batches):
    """With each row's own steps, other ids do not matter: each row as if alone."""
    got = trained(GrowingTable(2), {"counter": "row", "reduce": "mean"}, batches)
    for i in range(9):
        alone = [ids([i] * 4) for b in batches if (b == i).any()]
        table = trained(GrowingTable(2), {"counter": "row", "reduce": "mean"}, alone)
        assert torch.allclose(got(ids([i])), table(ids([i])), atol=1e-6)


def test_untouched_rows_stay_bit_by_bit():
    for table in (GrowingTable(2, std=1.0), HashedTable(50, 2, std=1.0)):
        many = torch.arange(20)
        trained(table, {}, [many] * 2)
        before = {n: t.clone() for n, t in table.state_dict().items()}
        trained(table.train(), {}, [ids([3, 4, 3])])
        touched = table.place(ids([3, 4]), False)
        for name in ("weight", "exp_avg", "exp_avg_sq", "updates"):
            now = table.state_dict()[name]
            rest = torch.ones(len(now), dtype=torch.bool).index_fill(0, touched, False)
            assert torch.equal(now[rest], before[name][rest])
            assert (now[touched] != before[name][touched]).any()


def test_dense_updates_move_rows_by_momentum():
    lazy, dense = (GrowingTable(1) for _ in range(2))
    for table, how in ((lazy, {}), (dense, {"lazy": False})):
        optimiser = TableAdam(table, lr=0.1, **how)
        for batch in ([1, 2], [2], [2]):
            table(ids(batch)).sum().backward()
            optimiser.step()
    assert dense.eval()(ids([1])).item() < lazy.eval()(ids([1])).item() == pytest.approx(-0.1)


def test_gradients_of_a_batch_that_is_skipped_are_dropped():
    table = GrowingTable(1)
    optimiser = TableAdam(table)
    table(ids([1])).sum().backward()
    optimiser.zero_grad()
    table(ids([2])).sum().backward()
    optimiser.step()
    assert table.updates[:2].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"lr": 0}, "lr must be above 0"),
        ({"counter": "id"}, "counter must be one of global, row"),
        ({"decay": "l2"}, "decay must be one of adamw, tf"),
        ({"weight_decay": 1.0}, r"weight_decay must be in \[0, 1\)"),
        ({"counter": "row", "lazy": False}, "needs lazy updates"),
    ],
)
def test_bad_arguments(how, message):
    with pytest.raises(ValueError, match=message):
        TableAdam(GrowingTable(1), **how)
