"""FinalMLP: the sheet's worked numbers, its limits, slow versions, and the gate that cannot learn."""

import pytest
import torch
from helpers.tensors import stirred
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.ctr.finalmlp import (
    BilinearFusion,
    DualMLP,
    FeatureGate,
    FinalMLP,
    TwoMLPs,
    bilinear,
)
from paperlab.data import Batch, Field, Schema
from paperlab.nn.embedding import FeatureEmbedding
from paperlab.nn.optim import RowAdam

O1, O2 = torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([[1.0, 0, -1, 2]])
SCHEMA = Schema(
    (
        Field("user", size=9),
        Field("item", size=7),
        Field("hour", size=5),
        Field("price", kind="numeric"),
    )
)
SIZE = {"dim": 4, "widths": ((8, 6), (9,)), "gate_hidden": 5, "heads": 3}
CONTEXTS = (("user",), ("item", "price"))


def draw(rows: int = 32, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randint(n, (rows,), generator=generator) for n in (9, 7, 5)], 1)
    price = torch.randn(rows, 1, generator=generator)
    return Batch(ids.int(), price, ((ids[:, :1] % 2 + price) > 0.5).float())


def train(model, steps: int = 15):
    optimiser = model.configure_optimizers()
    for step in range(steps):
        optimiser.zero_grad()
        model.loss(draw(seed=step)).backward()
        optimiser.step()
    return model


# Fusion ------------------------------------------------------------------------------------------


def test_worked_numbers():
    W = torch.tensor([[[1.0, 0], [0, 1]], [[0, 1], [1, 0]]])
    assert bilinear(O1, O2, W).item() == 3
    assert bilinear(O1, O2, torch.block_diag(*W)[None]).item() == 3
    assert bilinear(O1, O2, torch.tensor([0.5, 1, -1, 2]).view(4, 1, 1)).item() == 19.5
    i, j = torch.arange(4)[:, None], torch.arange(4)
    assert bilinear(O1, O2, (4 * i + j)[None] / 10).item() == pytest.approx(20.0)


sizes = st.integers(1, 4)


@settings(deadline=None, max_examples=30)
@given(sizes, sizes, sizes, st.integers(0, 10**6))
def test_it_is_the_double_sum_of_the_sheet(k, h1, h2, seed):
    generator = torch.Generator().manual_seed(seed)
    o1, o2, W = (
        torch.randn(s, generator=generator, dtype=torch.float64)
        for s in ((3, k * h1), (3, k * h2), (k, h1, h2))
    )
    want = torch.zeros(3, dtype=torch.float64)
    for b in range(3):
        for j in range(k):
            for p in range(h1):
                for q in range(h2):
                    want[b] += o1[b, j * h1 + p] * W[j, p, q] * o2[b, j * h2 + q]
    torch.testing.assert_close(bilinear(o1, o2, W), want)
    full = torch.block_diag(*W)[None]  # k heads are one full form whose other blocks are zero
    torch.testing.assert_close(bilinear(o1, o2, full), want)
    torch.testing.assert_close(bilinear(o2, o1, W.transpose(1, 2)), want)  # streams swapped


def test_gradient_of_the_logit_is_the_weights_plus_the_other_stream_through_W():
    fusion = stirred(BilinearFusion(6, 4, 2))
    o1, o2 = torch.randn(5, 6, requires_grad=True), torch.randn(5, 4)
    fusion(o1, o2).sum().backward()
    through = torch.cat([o2[:, :2] @ fusion.W[0].T, o2[:, 2:] @ fusion.W[1].T], 1)
    torch.testing.assert_close(o1.grad, fusion.w1.weight + through)


def test_terms_are_the_summands_and_each_stream_has_a_bias():
    fusion = stirred(BilinearFusion(4, 4, 2))
    terms = fusion.terms(O1, O2)[0]
    torch.testing.assert_close(terms[0], (fusion.w1.weight @ O1[0] + fusion.w1.bias)[0])
    torch.testing.assert_close(terms[1], (fusion.w2.weight @ O2[0] + fusion.w2.bias)[0])
    torch.testing.assert_close(terms[2:], bilinear(O1, O2, fusion.W))
    torch.testing.assert_close(fusion(O1, O2)[0], terms.sum())
    assert BilinearFusion(4, 4, 0).terms(O1, O2).shape == (1, 2)


@pytest.mark.parametrize(("heads", "form"), [(1, 400_000), (10, 40_000), (200, 2_000), (0, 0)])
def test_parameters_and_initial_scale(heads, form):
    torch.manual_seed(0)
    fusion = BilinearFusion(400, 1000, heads)
    assert sum(p.numel() for p in fusion.parameters()) == 400 + 1000 + 2 + form
    if heads:
        assert fusion.W.std().item() == pytest.approx((2 / (1 + form)) ** 0.5, rel=0.05)


# Gates -------------------------------------------------------------------------------------------


def test_a_gate_reads_its_own_tables_at_its_own_fields():
    gate = stirred(FeatureGate(SCHEMA, ("item", "price"), 4, 10, hidden=5))
    batch = draw()
    item, price = gate.embed.table.weight[batch.ids[:, 1]], batch.numeric * gate.embed.numeric
    first, last = gate.mlp[0], gate.mlp[2]
    hidden = (torch.cat([item, price], 1) @ first.weight.T + first.bias).relu()
    want = 2 / (1 + (-(hidden @ last.weight.T + last.bias)).exp())
    torch.testing.assert_close(gate(batch), want)
    assert want.min() > 0 and want.max() < 2 and len(gate.mlp) == 3
    other = batch._replace(ids=batch.ids.clone())
    other.ids[:, 0] = 0
    other.ids[:, 2] = 0
    assert torch.equal(gate(other), gate(batch))


@pytest.mark.parametrize("fields", [(), ("price",), ("user", "price")])
def test_a_gate_with_zero_weights_lets_everything_through(fields):
    gate = FeatureGate(SCHEMA, fields, 4, 10, hidden=5)
    with torch.no_grad():
        for p in gate.parameters():
            p.zero_()
    assert torch.equal(gate(draw()).expand(32, 10), torch.ones(32, 10))


def test_a_new_context_free_gate_is_one_learned_vector():
    gate = FeatureGate(SCHEMA, (), 4, 10)
    assert [p.shape for p in gate.parameters()] == [(1, 10)]
    assert torch.equal(gate(draw()), torch.ones(1, 10))


def released(std: float) -> FinalMLP:
    """A model with the released code's context-free gates; std = 0 is how they start there."""
    torch.manual_seed(0)
    model = FinalMLP(SCHEMA, **SIZE, init_ctx_std=1.0)
    with torch.no_grad():
        for gate in model.gates:
            gate.context.mul_(std)
    return model


def test_the_released_context_free_gate_is_dead_but_for_its_last_bias():
    dead, start = train(released(0.0)), released(0.0)
    for gate, before in zip(dead.gates, start.gates, strict=True):
        for name, p in gate.named_parameters():
            same = torch.equal(p, dict(before.named_parameters())[name])
            assert same == (name != "mlp.2.bias"), name
    live = train(released(1.0))
    for gate, before in zip(live.gates, released(1.0).gates, strict=True):
        for name, p in gate.named_parameters():
            assert not torch.equal(p, dict(before.named_parameters())[name]), name


def test_the_static_gate_is_what_the_dead_one_comes_to():
    dead = released(0.0)
    static = FinalMLP(SCHEMA, **SIZE)
    shared = {k: v for k, v in dead.state_dict().items() if not k.startswith("gates")}
    static.load_state_dict(shared, strict=False)
    train(dead), train(static)
    for a, b in zip(dead.gates, static.gates, strict=True):
        torch.testing.assert_close(a.mlp[2].bias, b.bias[0], rtol=1e-4, atol=1e-6)
        assert b.bias.abs().mean() > 1e-3
    dead.eval(), static.eval()
    torch.testing.assert_close(dead(draw()), static(draw()), rtol=1e-4, atol=1e-5)


# The model ---------------------------------------------------------------------------------------


def test_with_open_gates_and_no_form_it_is_dual_mlp():
    model, dual = (
        FinalMLP(SCHEMA, **SIZE, contexts=CONTEXTS),
        DualMLP(SCHEMA, 4, widths=SIZE["widths"]),
    )
    stirred(model)
    shared = dual.state_dict().keys()
    dual.load_state_dict({k: v for k, v in model.state_dict().items() if k in shared})
    model.eval(), dual.eval()
    assert not torch.allclose(model(draw()), dual(draw()))
    with torch.no_grad():
        for p in [*model.gates.parameters(), model.fusion.W]:
            p.zero_()
    torch.testing.assert_close(model(draw()), dual(draw()))


def test_it_equals_its_equations():
    model = stirred(FinalMLP(SCHEMA, **SIZE, contexts=CONTEXTS)).eval()
    batch = draw()
    e, outputs = model.embed(batch).flatten(1), []
    for gate, stream in zip(model.gates, model.streams, strict=True):
        h = gate(batch) * e
        for layer in stream:
            if isinstance(layer, torch.nn.BatchNorm1d):
                h = (h - layer.running_mean) / (layer.running_var + layer.eps).sqrt()
                h = h * layer.weight + layer.bias
            else:
                h = (
                    layer.weight @ h.T + layer.bias[:, None]
                    if hasattr(layer, "weight")
                    else h.T.relu()
                )
                h = h.T
        outputs.append(h)
    o1, o2 = outputs
    assert o1.min() >= 0 and o2.min() >= 0  # ReLU also after the last layer
    fusion = model.fusion
    want = (
        (o1 @ fusion.w1.weight.T + o2 @ fusion.w2.weight.T)[:, 0] + fusion.w1.bias + fusion.w2.bias
    )
    want = want + ((o1 @ torch.block_diag(*fusion.W)) * o2).sum(1)
    torch.testing.assert_close(model(batch), want, rtol=1e-5, atol=1e-5)


def test_streams_can_be_swapped():
    model = stirred(FinalMLP(SCHEMA, **SIZE, contexts=CONTEXTS)).eval()
    swapped = FinalMLP(
        SCHEMA, **SIZE | {"widths": SIZE["widths"][::-1]}, contexts=CONTEXTS[::-1]
    ).eval()
    with torch.no_grad():
        swapped.embed.load_state_dict(model.embed.state_dict())
        for k in (0, 1):
            swapped.streams[k].load_state_dict(model.streams[1 - k].state_dict())
            swapped.gates[k].load_state_dict(model.gates[1 - k].state_dict())
        swapped.fusion.w1.load_state_dict(model.fusion.w2.state_dict())
        swapped.fusion.w2.load_state_dict(model.fusion.w1.state_dict())
        swapped.fusion.W.copy_(model.fusion.W.transpose(1, 2))
    torch.testing.assert_close(swapped(draw()), model(draw()))


def test_gates_have_tables_of_their_own_that_count_as_embedding():
    plain = FinalMLP(SCHEMA, **SIZE, gates=False).count_parameters()
    gated = FinalMLP(SCHEMA, **SIZE, contexts=CONTEXTS).count_parameters()
    assert plain["embedding"] == 4 * (9 + 7 + 5 + 1)
    assert gated["embedding"] - plain["embedding"] == 4 * 9 + 4 * (7 + 1)
    gates = sum(d * 5 + 5 + 5 * 16 + 16 for d in (4, 8))  # MLPs from 4 and 8 to 4 fields x 4
    assert gated["dense"] - plain["dense"] == gates
    static = FinalMLP(SCHEMA, **SIZE).count_parameters()
    assert static["dense"] - plain["dense"] == 2 * 16


def test_two_mlps_share_nothing():
    """Each stream's gradients are those of its own cross-entropy; the logit is the mean of theirs."""
    model, batch = stirred(TwoMLPs(SCHEMA, 4, widths=SIZE["widths"])).eval(), draw()
    logits = model.fusion.terms(*model.outputs(batch))
    torch.testing.assert_close(model(batch), (logits[:, 0] + logits[:, 1]) / 2)
    own = [
        (model.embed, model.streams[0], model.fusion.w1),
        (model.other, model.streams[1], model.fusion.w2),
    ]
    for s, modules in enumerate(own):
        weights = [p for m in modules for p in m.parameters()]
        alone = torch.nn.functional.binary_cross_entropy_with_logits(
            model.fusion.terms(*model.outputs(batch))[:, s], batch.labels[:, 0]
        )
        slow = torch.autograd.grad(alone, weights)
        for one, two in zip(torch.autograd.grad(model.loss(batch), weights), slow, strict=True):
            torch.testing.assert_close(*(g.to_dense() for g in (one, two)))
    both = sum(p.numel() for m in (model.embed, model.other) for p in m.parameters())
    assert model.count_parameters()["embedding"] == both


@pytest.mark.parametrize("kind", [FinalMLP, TwoMLPs])
def test_a_penalty_of_zero_is_none_and_one_counts_both_tables(kind):
    model, batch = stirred(kind(SCHEMA, 4, widths=((6,), (6,)), embedding_l2=0.1)), draw()
    tables = [m.table.weight for m in model.modules() if isinstance(m, FeatureEmbedding)]
    penalised, model.embedding_l2 = model.loss(batch), 0.0
    squares = sum((t.detach() ** 2).sum() for t in tables)
    torch.testing.assert_close(penalised, model.loss(batch) + 0.05 * squares)


def test_the_penalty_counts_every_table():
    model, batch = stirred(FinalMLP(SCHEMA, **SIZE, contexts=CONTEXTS, embedding_l2=0.1)), draw()
    tables = [m.table.weight for m in model.modules() if isinstance(m, FeatureEmbedding)]
    assert len(tables) == 3 and not any(
        m.sparse for m in model.modules() if isinstance(m, FeatureEmbedding)
    )
    penalised = model.loss(batch)
    model.embedding_l2 = 0.0
    squares = sum((t.detach() ** 2).sum() for t in tables)
    torch.testing.assert_close(penalised, model.loss(batch) + 0.05 * squares)


def test_row_adam_moves_several_tables_as_dense_adam_does():
    rows, dense = (FinalMLP(SCHEMA, **SIZE, contexts=CONTEXTS) for _ in range(2))
    dense.load_state_dict(rows.state_dict())
    for m in dense.modules():
        if isinstance(m, FeatureEmbedding):
            m.sparse = m.table.sparse = False
    tables = [m for m in rows.modules() if isinstance(m, FeatureEmbedding)]
    assert [m.sparse for m in tables] == [True] * 3
    optimisers = [RowAdam(rows, lr=0.01), torch.optim.Adam(dense.parameters(), lr=0.01)]
    for step in range(40):
        for model, optimiser in zip((rows, dense), optimisers, strict=True):
            optimiser.zero_grad()
            model.loss(draw(4, seed=step)).backward()  # few rows: most of a table sleeps
            optimiser.step()
    optimisers[0].settle()
    for a, b in zip(rows.modules(), dense.modules(), strict=True):
        if isinstance(a, FeatureEmbedding):
            assert (a.table.weight - b.table.weight).abs().mean() < 2e-4


def test_a_context_of_numbers_only_can_be_trained():
    torch.manual_seed(0)
    model = FinalMLP(SCHEMA, **SIZE, contexts=(("price",), ("user",)))
    before = model.gates[0].embed.numeric.clone()
    train(model)
    assert model.gates[0].embed.table.weight.numel() == 0
    assert not torch.equal(model.gates[0].embed.numeric, before)


def test_dropout_and_batch_statistics_belong_to_training():
    model = FinalMLP(SCHEMA, **SIZE, dropout=(0.4, 0.4))
    batch, norm = draw(), model.streams[0][1]
    before = norm.running_mean.clone()
    assert not torch.equal(model(batch), model(batch))
    assert not torch.equal(norm.running_mean, before)
    model.eval()
    before = norm.running_mean.clone()
    assert torch.equal(model(batch), model(batch)) and torch.equal(norm.running_mean, before)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"heads": 4}, "heads must be 0 or divide both widths, 6 and 9, got 4"),
        ({"heads": -1}, "heads must be at least 0"),
        ({"widths": ((8,), (9,), (8,))}, "widths and dropout must have two streams"),
        ({"widths": ((8,), ())}, "none empty"),
        ({"dropout": (0.1,)}, "widths and dropout must have two streams"),
        (
            {"contexts": (("user",), ("genre",))},
            "contexts: genre not among the single fields: user",
        ),
        ({"contexts": ((),)}, "contexts must be two lists"),
        ({"gates": False, "contexts": CONTEXTS}, "empty without gates"),
        ({"gates": False, "init_ctx_std": 0.1}, "init_ctx_std is for gates without context"),
        ({"contexts": CONTEXTS, "init_ctx_std": 0.1}, "init_ctx_std is for gates without context"),
        ({"init_ctx_std": -0.1}, "init_ctx_std must be 0, or above 0"),
    ],
)
def test_bad_options_say_what_is_right(options, says):
    with pytest.raises(ValueError, match=says) as error:
        FinalMLP(SCHEMA, **SIZE | options)
    assert "\n" not in str(error.value)


def test_a_history_cannot_be_a_context():
    seen = Field("seen", kind="sequence", length=3, shares="item")
    with pytest.raises(ValueError, match="seen not among the single fields"):
        FeatureGate(Schema((*SCHEMA.fields, seen)), ("seen",), 4, 10)
