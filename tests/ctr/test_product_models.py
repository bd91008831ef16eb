"""NFM, FwFM, PNN, FiBiNET, AFN, EDCN: worked numbers, limits, slow versions."""

from itertools import combinations

import pytest
import torch
from helpers.tensors import close, seeded, stirred
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.ctr.baselines.afn import AFN, LEAST, magnitudes, products
from paperlab.ctr.baselines.dcn import DCN
from paperlab.ctr.baselines.edcn import EDCN, Regulation
from paperlab.ctr.baselines.fibinet import SENET, BilinearInteraction, FiBiNET
from paperlab.ctr.baselines.fm import FM, pairwise
from paperlab.ctr.baselines.fwfm import FwFM, weighted_pairs
from paperlab.ctr.baselines.nfm import NFM, bi_interaction
from paperlab.ctr.baselines.pnn import PNN, inner_products, outer_product
from paperlab.data import Batch, Field, Schema
from torch.nn import functional as F

SCHEMA = Schema(
    (Field("a", size=5), Field("b", size=7), Field("c", size=3), Field("n", kind="numeric"))
)
ONE = Schema((Field("a", size=5),))
WORKED = torch.tensor([[[1.0, 2.0], [3.0, -1.0], [0.0, 4.0]]])  # products by hand, below


def draw(rows=6):
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(0, f.size, (rows,), generator=generator) for f in SCHEMA.categorical]
    labels = torch.randint(0, 2, (rows, 1), generator=generator).float()
    return Batch(torch.stack(ids, 1).int(), seeded(rows, 1), labels)


# NFM ---------------------------------------------------------------------------------------------


def test_pooled_pairs_worked_by_hand():
    # (1, 2)(3, -1) + (1, 2)(0, 4) + (3, -1)(0, 4) = (3, -2) + (0, 8) + (0, -4)
    assert bi_interaction(WORKED).tolist() == [[3.0, 2.0]]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 9))
def test_pooled_pairs_equal_the_loop_and_sum_to_fms(fields, dim, seed):
    e = seeded(4, fields, dim, seed=seed, dtype=torch.float64)
    slow = sum((e[:, i] * e[:, j] for i, j in combinations(range(fields), 2)), 0 * e[:, 0])
    torch.testing.assert_close(bi_interaction(e), slow)
    torch.testing.assert_close(bi_interaction(e).sum(1), pairwise(e))


def test_nfm_whose_network_sums_is_fm():
    model, batch = stirred(NFM(SCHEMA, 4, widths=())), draw()
    plain = FM(SCHEMA, 4)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k in plain.state_dict()})
    model.mlp[0].weight.data.fill_(1.0)
    model.mlp[0].bias.data.zero_()
    close(model(batch), plain(batch))


def test_nfm_drops_and_norms_the_pooled_pairs_too():
    model = NFM(SCHEMA, 4, widths=(), dropout=0.5, batch_norm=True)
    assert [type(m).__name__ for m in model.pooled] == ["BatchNorm1d", "Dropout"]
    assert len(NFM(SCHEMA, 4).pooled) == 0


# FwFM --------------------------------------------------------------------------------------------


def test_weighted_pairs_worked_by_hand():
    # dot products 01: 1, 02: 8, 12: -4
    assert weighted_pairs(WORKED, torch.tensor([2.0, 0.5, 3.0])).tolist() == [2.0 + 4.0 - 12.0]


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 9))
def test_weighted_pairs_equal_the_loop(fields, dim, seed):
    e = seeded(3, fields, dim, seed=seed, dtype=torch.float64)
    pairs = [*combinations(range(fields), 2)]
    r = seeded(len(pairs), seed=seed + 1, dtype=torch.float64).requires_grad_()
    slow = sum(r[k] * (e[:, i] * e[:, j]).sum(1) for k, (i, j) in enumerate(pairs))
    torch.testing.assert_close(weighted_pairs(e, r), slow)
    torch.testing.assert_close(weighted_pairs(e, torch.ones_like(r)), pairwise(e))
    (grad,) = torch.autograd.grad(weighted_pairs(e, r).sum(), r)
    torch.testing.assert_close(grad, inner_products(e).sum(0))


def test_fwfm_starts_as_fm():
    model, plain = FwFM(SCHEMA, 4, std=0.3), FM(SCHEMA, 4)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != "r"})
    close(model(draw()), plain(draw()))


def test_fwfms_linear_part_by_field():
    model = stirred(FwFM(SCHEMA, 4, linear="field"))
    e = model.embed(draw())
    linear = sum(e[:, f] @ model.v[f] for f in range(4))
    close(model(draw()), model.bias + linear + weighted_pairs(e, model.r))


# PNN ---------------------------------------------------------------------------------------------


def test_products_worked_by_hand():
    assert inner_products(WORKED).tolist() == [[1.0, 8.0, -4.0]]
    # s = (4, 5)
    assert outer_product(WORKED).tolist() == [[16.0, 20.0, 20.0, 25.0]]


def test_the_outer_product_is_the_sum_over_all_pairs():
    e = seeded(5, 4, 3)
    slow = sum(e[:, i, :, None] * e[:, j, None, :] for i in range(4) for j in range(4))
    close(outer_product(e), slow.flatten(1))


@pytest.mark.parametrize(("product", "extra"), [("inner", 6), ("outer", 16), ("both", 22)])
def test_pnn_reads_fields_then_products(product, extra):
    model = stirred(PNN(SCHEMA, 4, product=product, widths=(8,)))
    e = model.embed(draw())
    parts = {"inner": [inner_products(e)], "outer": [outer_product(e)]}
    parts["both"] = parts["inner"] + parts["outer"]
    close(model(draw()), model.mlp(torch.cat([e.flatten(1), *parts[product]], 1)).squeeze(1))
    assert model.mlp[0].in_features == 16 + extra


# FiBiNET -----------------------------------------------------------------------------------------


def test_senet_worked_by_hand():
    senet = SENET(3, 2)  # 3 // 2 = 1 hidden unit
    senet.W1.weight.data = torch.tensor([[1.0, 0.0, 1.0]])
    senet.W2.weight.data = torch.tensor([[2.0], [-1.0], [0.5]])
    # means 1.5, 1, 2: hidden 3.5; importances 7, 0 (ReLU of -3.5), 1.75
    assert senet(WORKED).tolist() == [[[7.0, 14.0], [0.0, -0.0], [0.0, 7.0]]]
    assert SENET(2, 5).W1.out_features == 1


@pytest.mark.parametrize(("kind", "matrices"), [("all", 1), ("each", 3), ("interaction", 6)])
def test_bilinear_pairs_equal_the_loop(kind, matrices):
    layer, e = stirred(BilinearInteraction(4, 3, kind)), seeded(5, 4, 3)
    assert layer.weight.shape == (matrices, 3, 3)
    pairs = [*combinations(range(4), 2)]
    at = {"all": lambda k, i: 0, "each": lambda k, i: i, "interaction": lambda k, i: k}[kind]
    slow = [(e[:, i] @ layer.weight[at(k, i)]) * e[:, j] for k, (i, j) in enumerate(pairs)]
    close(layer(e), torch.stack(slow, 1))


def test_bilinear_pairs_with_the_identity_are_fms_products():
    layer = BilinearInteraction(3, 2, "all")
    layer.weight.data[0] = torch.eye(2)
    assert layer(WORKED).tolist() == [[[3.0, -2.0], [0.0, 8.0], [0.0, -4.0]]]


def test_fibinet_reads_plain_and_weighed_pairs():
    model = stirred(FiBiNET(SCHEMA, 4, reduction=1, widths=(8,)))
    rows = model.embed(draw())
    w, e = rows[:, :, 0].sum(1), rows[:, :, 1:]
    both = torch.cat([model.plain(e), model.weighed(model.senet(e))], 1).flatten(1)
    close(model(draw()), model.bias + w + model.mlp(both).squeeze(1))
    assert not torch.equal(model.plain.weight, model.weighed.weight)


# AFN ---------------------------------------------------------------------------------------------


def test_whole_exponents_give_products_of_fields():
    e = torch.tensor([[[2.0, 0.5], [-3.0, 4.0], [5.0, 1.0]]])
    w = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0], [1.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    want = [[[6.0, 2.0], [25.0, 1.0], [0.4, 0.5], [1.0, 1.0]]]  # |e0 e1|, e2^2, |e0 / e2|, 1
    close(products(magnitudes(e), w), torch.tensor(want))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 9))
def test_products_equal_powers(fields, units, seed):
    e = seeded(3, fields, 2, seed=seed, dtype=torch.float64)
    w = seeded(units, fields, seed=seed + 1, dtype=torch.float64)
    slow = torch.stack([(e.abs() ** w[n][:, None]).prod(1) for n in range(units)], 1)
    torch.testing.assert_close(products(magnitudes(e), w), slow)


def test_logarithms_are_clamped():
    e = torch.tensor([0.0, 1e-9, -LEAST / 2, -1.0], requires_grad=True)
    logs = magnitudes(e)
    close(logs, torch.tensor([LEAST, LEAST, LEAST, 1.0]).log())
    logs.sum().backward()
    assert e.grad.tolist() == [0.0, 0.0, 0.0, -1.0]


def test_afn_plus_step_by_step():
    model, batch = stirred(AFN(SCHEMA, 4, units=5, widths=(8,))), draw(32)
    rows = model.embed(batch)
    assert rows.shape == (32, 4, 8)
    logs = rows[..., :4].abs().clamp(min=1e-5).log()

    def norm(x, layer):  # of a batch in training: over rows and d
        mean, var = x.mean((0, 2), keepdim=True), x.var((0, 2), unbiased=False, keepdim=True)
        return (x - mean) / (var + layer.eps).sqrt() * layer.weight[:, None] + layer.bias[:, None]

    crossed = torch.einsum("nf,bfd->bnd", model.w, norm(logs, model.log_norm)).exp()
    afn = model.mlp(norm(crossed, model.norm).flatten(1))
    dnn = model.dnn(rows[..., 4:].flatten(1))
    want = afn * model.join.weight[0, 0] + dnn * model.join.weight[0, 1] + model.join.bias
    torch.testing.assert_close(model(batch), want.squeeze(1), rtol=1e-4, atol=1e-4)
    alone = AFN(SCHEMA, 4, units=5, ensemble=False, widths=(8,))
    assert alone.dnn is None and alone.embed(batch).shape == (32, 4, 4)


# EDCN --------------------------------------------------------------------------------------------


def test_regulation_worked_by_hand():
    gates = Regulation(2, 1.0)
    x = torch.tensor([[2.0, 4.0, 6.0, 8.0]])
    assert [t.tolist() for t in gates(x)] == [[[1.0, 2.0, 3.0, 4.0]]] * 2
    gates.g.data = torch.tensor([[0.0, 0.0], [0.0, 3.0]]).log1p()  # softmax 1/2, 1/2 and 1/5, 4/5
    close(gates(x)[1], torch.tensor([[0.4, 0.8, 4.8, 6.4]]))
    sharp = Regulation(2, 0.5)
    sharp.g.data = gates.g.data  # squared odds: 1 to 16
    close(sharp(x)[1], torch.tensor([[2 / 17, 4 / 17, 6 * 16 / 17, 8 * 16 / 17]]))


def test_edcn_without_bridge_and_regulation_is_dcn():
    model = stirred(EDCN(SCHEMA, 4, bridge=None, regulation=False, crosses=3))
    plain = DCN(SCHEMA, 4, crosses=3, widths=(16, 16, 16))
    plain.embed.load_state_dict(model.embed.state_dict())
    plain.head.load_state_dict(model.head.state_dict())
    with torch.no_grad():
        plain.cross.w.copy_(model.w)
        plain.cross.b.copy_(model.b)
    for mine, theirs in zip(model.deep, list(plain.mlp)[::2], strict=True):
        theirs.load_state_dict(mine[0].state_dict())
    torch.testing.assert_close(model(draw()), plain(draw()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("regulation", [True, False])
@pytest.mark.parametrize("bridge", ["hadamard", "addition", "concatenation"])
def test_edcn_step_by_step(bridge, regulation):
    model = stirred(EDCN(SCHEMA, 4, bridge=bridge, regulation=regulation, crosses=2))
    shared = model.embed(draw()).flatten(1)
    for layer in range(2):
        x = h = shared
        if regulation:
            gates = model.regulation[layer].g.softmax(1).repeat_interleave(4, 1)
            x, h = shared * gates[0], shared * gates[1]
        if layer == 0:
            x0 = x
        x = x0 * (x * model.w[layer]).sum(1, keepdim=True) + model.b[layer] + x
        h = F.relu(model.deep[layer][0](h))
        if bridge == "concatenation":
            shared = F.relu(model.joins[layer](torch.cat([x, h], 1)))
        else:
            shared = x * h if bridge == "hadamard" else x + h
    close(model(draw()), model.head(torch.cat([x, h, shared], 1)).squeeze(1))


# all of them -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: NFM(SCHEMA, dropout=1.0), r"dropout must be in \[0, 1\)"),
        (lambda: FwFM(SCHEMA, linear="none"), "one of weight, field, not 'none'"),
        (lambda: FwFM(ONE), "fields must be at least 2, got 1"),
        (lambda: PNN(SCHEMA, product="dot"), "one of inner, outer, both, not 'dot'"),
        (lambda: PNN(ONE), "fields must be at least 2, got 1"),
        (lambda: FiBiNET(SCHEMA, kind="none"), "one of all, each, interaction, not 'none'"),
        (lambda: FiBiNET(SCHEMA, reduction=0), "reduction must be at least 1, got 0"),
        (lambda: FiBiNET(ONE), "fields must be at least 2, got 1"),
        (lambda: AFN(SCHEMA, units=0), "units must be at least 1, got 0"),
        (lambda: EDCN(SCHEMA, bridge="max"), "hadamard, addition, concatenation, None, not 'max'"),
        (lambda: EDCN(SCHEMA, crosses=0), "crosses must be at least 1, got 0"),
        (lambda: EDCN(SCHEMA, hidden=0), "hidden must be at least 1, got 0"),
        (lambda: EDCN(SCHEMA, temperature=0), "temperature must be above 0"),
    ],
)
def test_bad_options_say_what_is_right(build, says):
    with pytest.raises(ValueError, match=says) as error:
        build()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "dense", "width"),
    [  # four fields of width 4, so 16 inputs and 6 pairs; width: of the table's rows
        (NFM(SCHEMA, 4, widths=(8,)), (4 * 8 + 8) + (8 + 1) + 1, 5),
        (NFM(SCHEMA, 4, widths=(8,), batch_norm=True), 50 + 2 * 4 + 2 * 8, 5),
        (FwFM(SCHEMA, 4), 6 + 1, 5),
        (FwFM(SCHEMA, 4, linear="field"), 6 + 16 + 1, 4),
        (PNN(SCHEMA, 4, widths=(8,)), ((16 + 6) * 8 + 8) + 9, 4),
        (PNN(SCHEMA, 4, product="outer", widths=(8,)), ((16 + 16) * 8 + 8) + 9, 4),
        (
            FiBiNET(SCHEMA, 4, reduction=2, widths=(8,)),
            2 * (4 * 2) + 2 * 6 * 16 + (48 * 8 + 8) + 9 + 1,
            5,
        ),
        (FiBiNET(SCHEMA, 4, kind="all", widths=(8,)), 2 * 4 + 2 * 16 + (48 * 8 + 8) + 9 + 1, 5),
        (
            AFN(SCHEMA, 4, units=3, widths=(8,)),
            3 * 4 + 2 * (4 + 3) + (12 * 8 + 8 + 9) + (16 * 8 + 8 + 9) + 3,
            8,
        ),
        (AFN(SCHEMA, 4, units=3, ensemble=False, widths=(8,)), 12 + 14 + (12 * 8 + 8 + 9), 4),
        (EDCN(SCHEMA, 4, crosses=2), 2 * (2 * 16 + (16 * 16 + 16) + 2 * 4) + (48 + 1), 4),
        (
            EDCN(SCHEMA, 4, bridge="concatenation", crosses=1, hidden=5),
            2 * 16 + (16 * 5 + 5 + 5 * 16 + 16) + 2 * 4 + (32 * 16 + 16) + 49,
            4,
        ),
        (EDCN(SCHEMA, 4, bridge=None, crosses=2), 2 * (32 + 272) + 8 + (32 + 1), 4),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, torch.nn.Module) else "",
)
def test_weights_are_those_of_the_equations(model, dense, width):
    assert model.count_parameters() == {"dense": dense, "embedding": (15 + 1) * width}
