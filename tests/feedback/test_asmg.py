"""ASMG: the sheet's numbers, a slow scalar GRU, and what training may touch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.feedback import asmg, snapshots
from paperlab.feedback.asmg import ASMG, TABLES, Base, GRUGenerator, LinearGenerator, cell, freeze
from paperlab.feedback.prequential import test_then_train as walk
from paperlab.feedback.worlds.factor_stream import factor_stream


def paper_weights():
    """Embeddings of 8 for user, item and category; MLP 40-20-10-1."""
    tables = {n: torch.zeros(5, 8) for n in ("user", "item", "category")}
    shapes = [(20, 40), (20,), (10, 20), (10,), (1, 10), (1,)]
    return tables | {f"mlp.{i}": torch.zeros(s) for i, s in enumerate(shapes)}


def test_the_papers_count_of_weights():
    generator = GRUGenerator(paper_weights(), ("user", "item", "category"))
    assert generator.groups == 24 + 1041
    assert sum(p.numel() for p in generator.parameters()) == 69_225


def test_limits_of_the_cell():
    h, theta = torch.randn(2, 3, 4), torch.ones(2, 3)
    U, W = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4, 4)
    assert torch.allclose(cell(theta, h, U, W), h / 2)
    U[:, 0] = -100  # z = 0
    assert torch.allclose(cell(theta, h, U, W), h)


def slow(theta, h, U, W):
    """One coordinate, with loops, as the paper's equations."""
    sigmoid, n = lambda x: 1 / (1 + math.exp(-x)), len(h)

    def gate(a, s):
        return [theta * U[a][j] + sum(s[i] * W[a][i][j] for i in range(n)) for j in range(n)]

    z, r = ([sigmoid(x) for x in gate(a, h)] for a in (0, 1))
    g = [math.tanh(x) for x in gate(2, [a * b for a, b in zip(h, r, strict=True)])]
    return [(1 - z[j]) * h[j] + z[j] * g[j] for j in range(n)]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.floats(-3, 3))
def test_the_cell_is_the_slow_one(seed, theta):
    draw = torch.Generator().manual_seed(seed)
    h, U, W = (torch.randn(*s, generator=draw) for s in ((1, 1, 4), (1, 3, 4), (1, 3, 4, 4)))
    found = cell(torch.tensor([[theta]]), h, U, W).flatten().tolist()
    assert found == pytest.approx(
        slow(theta, h[0, 0].tolist(), U[0].tolist(), W[0].tolist()), abs=1e-5
    )


@pytest.fixture(scope="module")
def run():
    stream = factor_stream("trend", periods=9, rows=256, seed=1)
    torch.manual_seed(0)
    model = Base(stream.schema)
    return stream, model, freeze(model, stream, 2, epochs=2)


def test_steps_in_one_go_and_in_two(run):
    _, _, frozen = run
    generator = GRUGenerator(frozen[-1], [*TABLES])
    with torch.no_grad():
        generator.w.normal_()
    blocks = generator.blocks(frozen[1:6])
    served, states = generator(blocks, generator.zeros(blocks))

    def part(a, b):
        return {n: x[a:b] for n, x in blocks.items()}

    _, early = generator(part(0, 2), generator.zeros(blocks))
    late, _ = generator(part(2, 5), {n: h[-1] for n, h in early.items()})
    assert all(torch.allclose(served[n][2:], late[n], atol=1e-6) for n in served)
    assert states["user.weight"].shape == (5, 8, 201, 4)


def test_the_layout_is_undone(run):
    _, _, frozen = run
    generator = GRUGenerator(frozen[-1], [*TABLES])
    blocks = generator.blocks(frozen[2:5])
    for step in range(3):
        back = generator.weights(blocks, step)
        assert all(torch.equal(back[n], frozen[2 + step][n]) for n in frozen[-1])


def test_the_residual_starts_at_the_latest_snapshot_and_linear_at_the_mean(run):
    _, _, frozen = run
    for generator, expected in (
        (GRUGenerator(frozen[-1], [*TABLES]), frozen[4]),
        (LinearGenerator(frozen[-1], [*TABLES]), snapshots.window(frozen[2:5], 3)),
    ):
        blocks = generator.blocks(frozen[2:5])
        found = generator.weights(generator(blocks, generator.zeros(blocks))[0], -1)
        assert all(torch.allclose(found[n], expected[n], atol=1e-6) for n in expected)


def test_without_memory_each_snapshot_is_read_alone(run):
    _, _, frozen = run
    free = GRUGenerator(frozen[-1], [*TABLES], memory=False)
    with torch.no_grad():
        free.w.normal_()
    bound = GRUGenerator(frozen[-1], [*TABLES])
    bound.load_state_dict(free.state_dict())
    whole, alone = free.blocks(frozen[2:5]), free.blocks(frozen[4:5])
    state = free.zeros(whole)
    last = {n: x[-1] for n, x in free(whole, state)[0].items()}
    assert all(torch.equal(last[n], x[0]) for n, x in bound(alone, state)[0].items())
    assert any(not torch.allclose(last[n], x[-1]) for n, x in bound(whole, state)[0].items())


def test_rows_of_a_table_are_alike(run):
    _, _, frozen = run
    generator, order = GRUGenerator(frozen[-1], [*TABLES], residual=False), torch.randperm(201)
    blocks = generator.blocks(frozen[2:5])
    state = generator.zeros(blocks)
    moved = blocks | {"user.weight": blocks["user.weight"][..., order]}
    a, b = generator(blocks, state)[0], generator(moved, state)[0]
    assert torch.allclose(a["user.weight"][..., order], b["user.weight"], atol=1e-6)


def test_shares_by_hand():
    assert asmg.period_shares(3, "linear").tolist() == pytest.approx([1 / 6, 1 / 3, 1 / 2])
    assert asmg.period_shares(3, "single").tolist() == [0, 0, 1]
    assert asmg.period_shares(2, "uniform").tolist() == [0.5, 0.5]


def test_the_loss_on_used_rows_is_the_loss_on_all_and_reaches_the_generator_alone(run):
    stream, model, frozen = run
    model.zero_grad(set_to_none=True)
    generator = GRUGenerator(frozen[-1], [*TABLES], residual=False)
    method = ASMG(model, frozen, generator)
    blocks = generator.blocks(frozen[2:5])
    state = {n: torch.randn_like(h) for n, h in generator.zeros(blocks).items()}
    batches = [stream.periods[t].take(slice(0, 20)) for t in (3, 4, 5)]
    served, _ = generator(blocks, state)
    expected = 0
    for j, share in enumerate((1 / 6, 1 / 3, 1 / 2)):
        logits = snapshots.predict(model, generator.weights(served, j), batches[j])
        labels = batches[j].labels[:, 0]
        expected += share * torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    loss = method.loss(blocks, state, batches)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    loss.backward()
    assert all(p.grad is not None for p in generator.parameters())
    assert all(p.grad is None for p in model.parameters())


def test_windows_and_carried_states(run):
    """Training at period t reads the snapshots that served its last k tests, and no later one."""
    stream, model, frozen = run
    generator = GRUGenerator(frozen[-1], [*TABLES])
    method, seen = ASMG(model, frozen, generator, batch_size=300), []
    inner = method.loss
    method.loss = lambda blocks, state, batches: (
        seen.append((blocks["user.weight"][0].T, state["user.weight"]))
        or inner(blocks, state, batches)
    )
    [*walk(method, stream, 2)]
    assert [len(seen)] == [4]  # updates with 5, 6, 7 and 8 periods
    for t, (oldest, _) in enumerate(seen):
        assert torch.equal(oldest, frozen[1 + t]["user.weight"])
    assert not seen[0][1].any() and seen[1][1].any()


def test_later_labels_change_no_earlier_score(run):
    stream, model, frozen = run
    found = []
    for flip in (False, True):
        torch.manual_seed(1)
        method = ASMG(model, frozen, GRUGenerator(frozen[-1], [*TABLES]))
        periods = [*stream.periods]
        if flip:
            periods[6] = periods[6].__class__(periods[6].ids, 1 - periods[6].values, 0)
        other = stream.__class__("s", stream.schema, tuple(periods))
        found.append([x for _, x in walk(method, other, 2)])
    same = [torch.equal(a, b) for a, b in zip(*found, strict=True)]
    assert same == [True] * 5 + [False] * 2


def test_faults_are_refused(run):
    stream, model, frozen = run
    weights = frozen[-1]
    for call in (
        lambda: GRUGenerator(weights, ["none"]),
        lambda: GRUGenerator(weights, [*TABLES], hidden=0),
        lambda: LinearGenerator(weights, [*TABLES], k=0),
        lambda: asmg.period_shares(3, "cubic"),
        lambda: ASMG(model, frozen, GRUGenerator(weights, [*TABLES]), k=0),
        lambda: ASMG(model, frozen, GRUGenerator(weights, [*TABLES]), lr=0),
        lambda: Base(stream.schema, dim=0),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()
