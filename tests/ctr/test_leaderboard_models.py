"""DCN, Wide&Deep, xDeepFM, MaskNet, GDCN, FINAL, DLRM: worked numbers, limits, slow versions."""

import json
from itertools import combinations

import pytest
import torch
from helpers.tensors import close, seeded, stirred
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.ctr.baselines.dcn import DCN, VectorCrossNet
from paperlab.ctr.baselines.dcnv2 import CrossNet
from paperlab.ctr.baselines.deepfm import DeepFM
from paperlab.ctr.baselines.dlrm import DLRM, upper_dots
from paperlab.ctr.baselines.final import FINAL, FactorizedInteraction, FieldGate, distilled_loss
from paperlab.ctr.baselines.gdcn import GDCN, GatedCrossNet
from paperlab.ctr.baselines.lr import LR
from paperlab.ctr.baselines.masknet import MaskBlock, MaskNet
from paperlab.ctr.baselines.wide_and_deep import WideAndDeep
from paperlab.ctr.baselines.xdeepfm import CIN, XDeepFM
from paperlab.data import Batch, Field, Schema
from paperlab.records import project_root
from torch.nn import functional as F

SCHEMA = Schema(
    (Field("a", size=5), Field("b", size=7), Field("c", size=3), Field("n", kind="numeric"))
)


def draw(rows=6):
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(0, f.size, (rows,), generator=generator) for f in SCHEMA.categorical]
    labels = torch.randint(0, 2, (rows, 1), generator=generator).float()
    return Batch(torch.stack(ids, 1).int(), seeded(rows, 1), labels)


# DCN ---------------------------------------------------------------------------------------------


def test_one_vector_cross_worked_by_hand():
    cross = VectorCrossNet(2, 2)
    cross.w.data = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    cross.b.data = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    # x_0 = (1, 2): x_0 3 + (1, 0) + x_0 = (5, 8); then x_0 5 + (0, 2) + (5, 8) = (10, 20)
    assert cross(torch.tensor([[1.0, 2.0]])).tolist() == [[10.0, 20.0]]


def test_vector_crosses_at_zero_are_the_identity():
    cross, x = VectorCrossNet(6, 3), seeded(5, 6)
    cross.w.data.zero_()
    assert torch.equal(cross(x), x)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 9))
def test_vector_crosses_equal_the_papers_recursion(layers, width, seed):
    cross, x0 = stirred(VectorCrossNet(width, layers), seed).double(), seeded(4, width, seed=seed)
    x0 = x = x0.double()
    for w, b in zip(cross.w, cross.b, strict=True):
        x = x0 * (x @ w)[:, None] + b + x
    torch.testing.assert_close(cross(x0), x, rtol=1e-9, atol=1e-9)


def test_vector_crosses_start_xavier_layer_by_layer():
    torch.manual_seed(0)
    cross = VectorCrossNet(4000, 2)
    for row in cross.w:
        assert row.std().item() == pytest.approx((2 / 4001) ** 0.5, rel=0.05)


def test_dcn_reads_crosses_and_network_side_by_side():
    model, batch = stirred(DCN(SCHEMA, 4, widths=(8, 5))), draw()
    x0 = model.embed(batch).flatten(1)
    close(model(batch), model.head(torch.cat([model.cross(x0), model.mlp(x0)], 1)).squeeze(1))
    dense = 3 * 2 * 16 + (16 * 8 + 8) + (8 * 5 + 5) + (16 + 5 + 1)
    assert model.count_parameters() == {"dense": dense, "embedding": (15 + 1) * 4}


# Wide & Deep, xDeepFM -----------------------------------------------------------------------------


def test_wide_and_deep_without_its_network_is_lr():
    model, batch = stirred(WideAndDeep(SCHEMA, 4, widths=(8,))), draw()
    lr = LR(SCHEMA)
    with torch.no_grad():
        lr.bias.copy_(model.bias)
        lr.embed.table.weight.copy_(model.embed.table.weight[:, :1])
        lr.embed.numeric.copy_(model.embed.numeric[:, :1])
    e = model.embed(batch)[:, :, 1:].flatten(1)
    close(model(batch), lr(batch) + model.mlp(e).squeeze(1))
    for p in model.mlp.parameters():
        p.data.zero_()
    close(model(batch), lr(batch))


def test_cin_worked_by_hand():
    cin = CIN(2, (1,))
    cin.weight[0].data = torch.tensor([[1.0, 3.0], [2.0, 4.0]])  # column: i, row: j
    cin.bias[0].data.fill_(0.5)
    e = torch.tensor([[[1.0, 2.0], [3.0, -1.0]]])
    # coordinate 0: 1*1 + (2 + 3) 1*3 + 4 * 9 = 52; coordinate 1: 4 - 5 * 2 + 4 = -2; a bias for each
    assert cin(e).tolist() == [[52 - 2 + 2 * 0.5]]


def test_cin_equals_the_convolution_over_all_products():
    cin, e = stirred(CIN(5, (3, 4, 2))), seeded(6, 5, 7)
    x, sums, before = e, [], 5
    for weight, bias, h in zip(cin.weight, cin.bias, (3, 4, 2), strict=True):
        kernel = weight.view(before, 5, h).permute(2, 1, 0)  # h, i, j
        maps = []
        for k in range(h):
            total = bias[k]
            for i in range(5):
                for j in range(before):
                    total = total + kernel[k, i, j] * e[:, i] * x[:, j]
            maps.append(total)
        x, before = torch.stack(maps, 1), h
        sums.append(x.sum(2))
    torch.testing.assert_close(cin(e), torch.cat(sums, 1), rtol=1e-5, atol=1e-4)


def test_xdeepfm_without_its_maps_is_wide_and_deep():
    model, batch = stirred(XDeepFM(SCHEMA, 4, widths=(8,), maps=(3, 2))), draw()
    plain = WideAndDeep(SCHEMA, 4, widths=(8,))
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k in plain.state_dict()})
    e = model.embed(batch)[:, :, 1:]
    close(model(batch), plain(batch) + model.head(model.cin(e)).squeeze(1))


# MaskNet -----------------------------------------------------------------------------------------


def test_a_mask_of_ones_leaves_a_layer_normed_network():
    block, e, v = stirred(MaskBlock(6, 4, 3, 2.0, 0.0)), seeded(5, 6), seeded(5, 4, seed=1)
    assert block.mask[0].out_features == 8 and block.W.bias is None
    masked = F.relu(F.layer_norm((block.mask(e) * v) @ block.W.weight.T, (3,)) * block.norm.weight
                    + block.norm.bias)  # fmt: skip
    close(block(e, v), masked)
    block.mask[2].weight.data.zero_()
    block.mask[2].bias.data.fill_(1.0)
    close(block(e, v), F.relu(block.norm(v @ block.W.weight.T)))


@pytest.mark.parametrize("kind", ["serial", "parallel"])
def test_masknet_chains_or_joins_its_blocks(kind):
    model = stirred(MaskNet(SCHEMA, 4, kind=kind, widths=(8, 6), blocks=2, block_width=5))
    batch = draw()
    fields = model.embed(batch)
    e = fields.flatten(1)
    v = torch.cat(
        [
            F.layer_norm(fields[:, f], (4,)) * model.norm.weight[f] + model.norm.bias[f]
            for f in range(4)
        ],
        1,
    )
    if kind == "serial":
        want = model.head(model.blocks[1](e, model.blocks[0](e, v)))
    else:
        want = model.head(torch.cat([model.blocks[0](e, v), model.blocks[1](e, v)], 1))
    close(model(batch), want.squeeze(1))


def test_masknet_drops_only_while_it_trains():
    torch.manual_seed(0)
    model, batch = MaskNet(SCHEMA, 4, widths=(64,), dropout=0.5), draw()
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    assert torch.equal(model(batch), model(batch))


# GDCN --------------------------------------------------------------------------------------------


def test_a_gate_at_zero_halves_dcnv2s_increment():
    gated, plain, x = stirred(GatedCrossNet(6, 1)), CrossNet(6, 1), seeded(5, 6)
    gated.project[0].data[6:] = 0
    plain.layers[0].weight.data.copy_(gated.project[0].data[:6])
    plain.layers[0].bias.data.copy_(gated.b[0])
    close(gated(x) - x, (plain(x) - x) / 2)


def test_gated_crosses_step_by_step():
    cross, x0 = stirred(GatedCrossNet(4, 2)), seeded(5, 4)
    x = x0
    for weight, b in zip(cross.project, cross.b, strict=True):
        x = x0 * (x @ weight[:4].T + b) * torch.sigmoid(x @ weight[4:].T) + x
    close(cross(x0), x)
    torch.manual_seed(0)
    for half in GatedCrossNet(300, 1).project[0].chunk(2):  # each Xavier, not the two as one
        assert half.std().item() == pytest.approx((2 / 600) ** 0.5, rel=0.03)


def test_gdcn_structures():
    batch = draw()
    model = stirred(GDCN(SCHEMA, 4, structure="stacked", widths=(8,)))
    x0 = model.embed(batch).flatten(1)
    close(model(batch), model.mlp(model.cross(x0)).squeeze(1))
    model = stirred(GDCN(SCHEMA, 4, widths=(8,)))
    x0 = model.embed(batch).flatten(1)
    close(model(batch), model.head(torch.cat([model.cross(x0), model.mlp(x0)], 1)).squeeze(1))


# FINAL -------------------------------------------------------------------------------------------


def test_factorised_interaction_worked_and_linear_where_h1_is_zero():
    layer = FactorizedInteraction(2, 2, "concat")
    layer.project.weight.data = torch.tensor([[1.0, 1.0], [2.0, -1.0]])
    layer.project.bias.data = torch.tensor([0.0, 1.0])
    assert layer(torch.tensor([[3.0, 1.0]])).tolist() == [[4.0, 6.0 * 4.0]]
    layer, x = stirred(FactorizedInteraction(4, 3, "sum")), seeded(5, 4)
    h2, h1 = layer.project(x)[:, :3], layer.project(x)[:, 3:]
    close(layer(x), h2 + h1 * h2)
    layer.project.weight.data[3:] = 0
    layer.project.bias.data[3:] = 0
    close(layer(x), F.linear(x, layer.project.weight[:3], layer.project.bias[:3]))


def test_a_field_gate_starts_as_a_copy():
    gate, e = FieldGate(3), seeded(5, 3, 4)
    assert torch.equal(gate(e), torch.cat([e, e], 1))
    stirred(gate)
    scale = torch.einsum("gf,bfd->bgd", gate.over_fields.weight, e)
    close(gate(e), torch.cat([e, e * (scale + gate.over_fields.bias[:, None])], 1))


def test_distillation_worked():
    logits, labels = torch.tensor([[2.0, 0.0]]), torch.tensor([1.0])
    # y = 1, teacher sigma(1) = .73106: BCE(1, 1) = .31326;
    # BCE(2, teacher) = log(1 + e^2) - 2 * .73106 = .66481; BCE(0, teacher) = log 2 = .69315
    assert distilled_loss(logits, labels).item() == pytest.approx(1.67122, abs=2e-5)
    alone = distilled_loss(logits[:, :1], labels).item()
    assert alone == pytest.approx(0.12693, abs=1e-5)


def test_blocks_learn_from_the_ensemble_and_not_the_other_way():
    logits = seeded(7, 2, dtype=torch.float64).requires_grad_()
    labels = (seeded(7, seed=1) > 0).double()
    distilled_loss(logits, labels, "sum").backward()
    with torch.no_grad():
        y = logits.mean(1, keepdim=True).sigmoid()
        # d BCE(y, t) / dy_k = (sigma(y) - t) / 2; d BCE(y_k, sg) / dy_k = sigma(y_k) - sg, no more
        want = (y - labels[:, None]) / 2 + logits.sigmoid() - y
    torch.testing.assert_close(logits.grad, want)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_distilled_loss_reduces_as_it_says(reduction):
    logits, labels = seeded(7, 2), (seeded(7, seed=1) > 0).float()
    whole = distilled_loss(logits, labels, "none")
    assert whole.shape == (7,)
    want = {"mean": whole.mean(), "sum": whole.sum(), "none": whole}[reduction]
    close(distilled_loss(logits, labels, reduction), want)


def test_final_blocks_are_averaged_and_the_gate_serves_the_first():
    model = stirred(FINAL(SCHEMA, 4, blocks=((8, 6), (10,)), gate=True))
    batch = draw()
    e = model.embed(batch)
    first, second = model.blocks
    want = [first(model.gate(e).flatten(1)), second(e.flatten(1))]
    close(model.logits(batch), torch.cat(want, 1))
    close(model(batch), (want[0] + want[1])[:, 0] / 2)
    close(model.loss(batch), distilled_loss(model.logits(batch), batch.labels[:, 0]))
    plain = model.loss(batch)
    model.embedding_l2 = 0.1
    close(model.loss(batch), plain + 0.05 * model.embed.table.weight.square().sum())


def test_one_block_of_final_trains_on_the_plain_loss():
    model, batch = stirred(FINAL(SCHEMA, 4, blocks=((8,),), kind="sum")), draw()
    close(model.loss(batch), F.binary_cross_entropy_with_logits(model(batch), batch.labels[:, 0]))
    assert model.blocks[0][0].project.out_features == 16


# DLRM --------------------------------------------------------------------------------------------


def test_upper_dots_are_all_pairs_in_order():
    x = seeded(5, 6, 3)
    want = torch.stack([(x[:, i] * x[:, j]).sum(1) for i, j in combinations(range(6), 2)], 1)
    assert want.shape == (5, 15)
    close(upper_dots(x), want)


def test_dlrm_with_and_without_numeric_fields():
    model, batch = stirred(DLRM(SCHEMA, 4, bottom_widths=(5,), widths=(8,))), draw()
    dense = F.relu(model.bottom[2](F.relu(model.bottom[0](batch.numeric))))
    rows = model.embed(batch)
    assert rows.shape == (6, 3, 4) and model.schema is SCHEMA
    dots = upper_dots(torch.cat([dense[:, None], rows], 1))
    close(model(batch), model.top(torch.cat([dense, dots], 1)).squeeze(1))
    plain = stirred(DLRM(Schema(SCHEMA.categorical), 4, widths=(8,)))
    assert plain.bottom is None and plain.top[0].in_features == 3
    batch = batch._replace(numeric=torch.zeros(6, 0))
    close(plain(batch), plain.top(upper_dots(plain.embed(batch))).squeeze(1))


# all of them -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: DCN(SCHEMA, crosses=0), "crosses must be at least 1"),
        (lambda: XDeepFM(SCHEMA, maps=()), "maps must be one or more whole numbers of at least 1"),
        (
            lambda: XDeepFM(SCHEMA, maps=(4, 0)),
            "maps must be one or more whole numbers of at least 1",
        ),
        (lambda: MaskNet(SCHEMA, kind="both"), "serial, parallel, not 'both'"),
        (lambda: MaskNet(SCHEMA, ratio=0), "ratio must be above 0"),
        (lambda: MaskNet(SCHEMA, widths=()), "widths must be one or more"),
        (lambda: MaskNet(SCHEMA, kind="parallel", blocks=0), "blocks must be at least 1"),
        (lambda: GDCN(SCHEMA, structure="crossnet_only"), "stacked, parallel, not"),
        (lambda: GDCN(SCHEMA, crosses=0), "crosses must be at least 1"),
        (lambda: FINAL(SCHEMA, kind="max"), "concat, sum, not 'max'"),
        (lambda: FINAL(SCHEMA, blocks=()), "widths of at least 1"),
        (lambda: FINAL(SCHEMA, blocks=((8,), ())), "widths of at least 1"),
        (lambda: FINAL(SCHEMA, blocks=((8, 7),)), "even widths where kind is 'concat'"),
        (lambda: DLRM(Schema((Field("a", size=5),))), "at least two vectors to pair, it gives 1"),
        (lambda: DLRM(Schema((Field("n", kind="numeric"),))), "it gives 1"),
    ],
)
def test_bad_options_say_what_is_right(build, says):
    with pytest.raises(ValueError, match=says) as error:
        build()
    assert "\n" not in str(error.value)


def test_deepfm_and_wide_and_deep_differ_by_the_pairs():
    wide, fm = stirred(WideAndDeep(SCHEMA, 4, widths=(8,))), DeepFM(SCHEMA, 4, widths=(8,))
    fm.load_state_dict(wide.state_dict())
    e = wide.embed(draw())[:, :, 1:]
    pairs = sum((e[:, i] * e[:, j]).sum(1) for i, j in combinations(range(4), 2))
    close(fm(draw()) - wide(draw()), pairs)


@pytest.mark.parametrize(
    ("model", "dense"),
    [  # four fields of width 4, so 16 inputs; by hand from the sheet's equations
        (
            XDeepFM(SCHEMA, 4, maps=(3, 2), widths=(8,)),
            (3 * 4 * 4 + 3) + (2 * 4 * 3 + 2) + (5 + 1) + (16 * 8 + 8) + (8 + 1) + 1,
        ),
        (
            MaskNet(SCHEMA, 4, widths=(8, 5), ratio=0.5),
            2 * 16
            + (16 * 8 + 8 + 8 * 16 + 16 + 16 * 8 + 2 * 8)
            + (16 * 4 + 4 + 4 * 8 + 8 + 8 * 5 + 2 * 5)
            + (5 + 1),
        ),
        (GDCN(SCHEMA, 4, crosses=2, widths=(8,)), 2 * (2 * 16 * 16 + 16) + (16 * 8 + 8) + 25),
        (
            FINAL(SCHEMA, 4, blocks=((8, 6), (10,))),
            (16 * 8 + 8) + (8 * 6 + 6) + (6 + 1) + (16 * 10 + 10) + (10 + 1),
        ),
        # three categorical vectors and the bottom's: six pairs beside the bottom's four numbers
        (
            DLRM(SCHEMA, 4, bottom_widths=(3,), widths=(8,)),
            (3 + 3) + (3 * 4 + 4) + (10 * 8 + 8) + (8 + 1),
        ),
        (WideAndDeep(SCHEMA, 4, widths=(8,)), (16 * 8 + 8) + (8 + 1) + 1),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, torch.nn.Module) else "",
)
def test_dense_weights_are_those_of_the_equations(model, dense):
    assert model.count_parameters()["dense"] == dense


def test_the_published_table_is_whole():
    table = json.loads((project_root() / "data/reference/bars_published.json").read_text())
    rows = {(r["model"], r["log"]): r for r in table["rows"]}
    assert len(rows) == len(table["rows"]) == 96
    assert {log for _, log in rows} == set(table["rows_of_logs"])
    assert all(0.75 < r["auc"] < 1 and 0.1 < r["logloss"] < 0.5 for r in rows.values())
    wanted = {"LR": 0.9356, "FM": 0.9671, "DNN": 0.9833, "DeepFM": 0.9842, "DCNv2": 0.9845}
    wanted |= {"FinalMLP": 0.9861}
    assert {m: rows[m, "Frappe_x1"]["auc"] for m in wanted} == wanted
    sums = [sum(round(1e5 * r[k]) for r in rows.values()) for k in ("auc", "logloss")]
    assert sums == [8_221_220, 3_205_599]  # of the table as it was held against the sheet
    logs = {log for _, log in rows}
    for log in logs:  # on every log LR is the worst and a cross by vectors alone stays below DNN
        assert min((r["auc"], m) for (m, at), r in rows.items() if at == log)[1] == "LR"
        assert rows["CrossNet only", log]["auc"] < rows["DNN", log]["auc"]
