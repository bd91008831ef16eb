"""The baselines' identities and worked numbers, and slow versions of their fast lines."""

from itertools import combinations

import pytest
import torch
from helpers.tensors import close, seeded, stirred
from paperlab.ctr.baselines.autoint import AutoInt, InteractingLayer
from paperlab.ctr.baselines.dcnv2 import CrossNet, CrossNetMix, DCNv2
from paperlab.ctr.baselines.deepfm import DeepFM
from paperlab.ctr.baselines.fm import FM, pairwise
from paperlab.ctr.baselines.lr import LR
from paperlab.ctr.baselines.rankmixer import RankMixer, RankMixerBlock, mix
from paperlab.ctr.baselines.wukong import Wukong, WukongLayer, projected_pairs
from paperlab.data import Batch, Field, Schema
from torch.nn import functional as F

SCHEMA = Schema(
    (Field("a", size=5), Field("b", size=7), Field("c", size=3), Field("n", kind="numeric"))
)


def draw(rows=6):
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(0, f.size, (rows,), generator=generator) for f in SCHEMA.categorical]
    return Batch(torch.stack(ids, 1).int(), seeded(rows, 1), torch.ones(rows, 1))


def test_fm_pairs_worked_and_looped():
    assert pairwise(torch.tensor([[[1.0, 2.0], [3.0, -1.0]]])).tolist() == [1.0]
    e = seeded(5, 7, 4)
    close(pairwise(e), sum((e[:, i] * e[:, j]).sum(1) for i, j in combinations(range(7), 2)))


def test_lr_adds_one_weight_a_field():
    model, batch = stirred(LR(SCHEMA)), draw()
    table, starts = model.embed.table.weight[:, 0], (0, 5, 12)
    want = model.bias + sum(table[batch.ids[:, k].long() + s] for k, s in enumerate(starts))
    close(model(batch), want + batch.numeric[:, 0] * model.embed.numeric[0, 0])
    assert model.count_parameters() == {"dense": 1, "embedding": 15 + 1}


def test_fm_is_lr_plus_pairs():
    model, batch = stirred(FM(SCHEMA, 4)), draw()
    assert model.d_in == 16 and model.embed.dim == 5
    lr = LR(SCHEMA)
    with torch.no_grad():
        lr.bias.copy_(model.bias)
        lr.embed.table.weight.copy_(model.embed.table.weight[:, :1])
        lr.embed.numeric.copy_(model.embed.numeric[:, :1])
    close(model(batch), lr(batch) + pairwise(model.embed(batch)[:, :, 1:]))


def test_deepfm_without_its_network_is_fm():
    model, fm = stirred(DeepFM(SCHEMA, 4, widths=(8, 8))), FM(SCHEMA, 4)
    fm.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("mlp")})
    whole = model(draw())
    for p in model.mlp.parameters():
        p.data.zero_()
    close(model(draw()), fm(draw()))
    assert (whole - fm(draw())).abs().max() > 0.1


def test_crosses_at_zero_and_at_the_identity():
    x, cross = seeded(5, 6), CrossNet(6, 3)
    for layer in cross.layers:
        layer.weight.data.zero_()
    assert torch.equal(cross(x), x)
    one = CrossNet(6, 1)
    one.layers[0].weight.data.copy_(torch.eye(6))
    close(one(x), x + x**2)


def test_low_rank_crosses_equal_a_loop_over_experts():
    cross, x0 = stirred(CrossNetMix(6, 2, rank=3, experts=4)), seeded(5, 6)
    x = x0
    for V, C, U, b in zip(cross.V, cross.C, cross.U, cross.b, strict=True):
        pi = F.softmax(x @ cross.gate.weight.T, 1)
        experts = 0
        for k in range(4):
            h = torch.tanh(torch.tanh(x @ V[k].T) @ C[k].T)
            experts = experts + pi[:, k : k + 1] * (x0 * (h @ U[k] + b))
        x = experts + x
    close(cross(x0), x)
    # D r to enter and to leave and r^2 inside for each expert, a bias a layer, one gate for all
    count = sum(p.numel() for p in cross.parameters())
    assert count == 2 * (4 * (2 * 6 * 3 + 9) + 6) + 4 * 6


@pytest.mark.parametrize("rank", [None, 2])
def test_dcnv2_structures(rank):
    batch = draw()

    def model(structure):
        return stirred(DCNv2(SCHEMA, 4, structure=structure, widths=(8, 5), rank=rank))

    m = model("crossnet_only")
    x0 = m.embed(batch).flatten(1)
    close(m(batch), m.head(m.cross(x0)).squeeze(1))
    m = model("stacked")
    x0 = m.embed(batch).flatten(1)
    assert m.head[0].in_features == 16
    close(m(batch), m.head(m.cross(x0)).squeeze(1))
    m = model("parallel")
    x0 = m.embed(batch).flatten(1)
    close(m(batch), m.head(torch.cat([m.cross(x0), m.mlp(x0)], 1)).squeeze(1))


@pytest.mark.parametrize("scale", [False, True])
def test_interacting_layer_equals_a_loop_over_heads(scale):
    layer, x = InteractingLayer(4, 6, heads=2, scale=scale), seeded(5, 3, 4)
    q, k, v, residual = (x @ w.T for w in layer.project)
    heads = []
    for h in (slice(0, 3), slice(3, 6)):
        scores = q[:, :, h] @ k[:, :, h].transpose(1, 2)
        heads.append(F.softmax(scores / (3**0.5 if scale else 1), 2) @ v[:, :, h])
    close(layer(x), F.relu(torch.cat(heads, 2) + residual))
    for w in InteractingLayer(300, 200, 2, False).project:  # each Glorot, not the four as one
        assert w.std().item() == pytest.approx((2 / 500) ** 0.5, rel=0.03)


def test_autoint_plus_adds_the_logit_of_a_network():
    model, batch = stirred(AutoInt(SCHEMA, 4, attention_dim=6, layers=2, widths=(8,))), draw()
    plain = AutoInt(SCHEMA, 4, attention_dim=6, layers=2)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "mlp" not in k})
    e = model.embed(batch)
    assert plain.mlp is None
    close(model(batch), plain(batch) + model.mlp(e.flatten(1)).squeeze(1))
    close(plain(batch), plain.head(plain.layers(e).flatten(1)).squeeze(1))


def test_wukong_pairs_are_the_gram_matrix_when_nothing_is_projected():
    x = seeded(5, 4, 3)
    close(projected_pairs(x, torch.eye(4)), x @ x.transpose(1, 2))
    y = seeded(4, 2, seed=1)
    close(projected_pairs(x, y), torch.stack([(xb @ xb.T) @ y for xb in x]))


@pytest.mark.parametrize("n", [4, 5])  # 5 embeddings become 2 + 3: the residual is the identity
def test_wukong_layer_step_by_step(n):
    layer, x = (
        stirred(WukongLayer(n, 3, n_lcb=3, n_fmb=2, rank=2, fmb_widths=(7,))),
        seeded(6, n, 3),
    )
    assert (layer.W_res is None) == (n == 5)
    rows = []
    for xb in x:
        pairs = F.layer_norm(
            (xb @ xb.T @ layer.Y).flatten(),
            (2 * n,),
            layer.norm_pairs.weight,
            layer.norm_pairs.bias,
        )
        hidden = F.relu(layer.mlp[0](pairs))
        fmb = F.relu(layer.mlp[2](hidden)).view(2, 3)
        residual = xb if n == 5 else layer.W_res @ xb
        rows.append(layer.norm(torch.cat([fmb, layer.W_lcb @ xb]) + residual))
    close(layer(x), torch.stack(rows))


def test_wukongs_first_pairs_do_not_grow_with_the_number_of_fields():
    torch.manual_seed(0)
    layer = WukongLayer(400, 4, 2, 2, rank=100, fmb_widths=())
    assert layer.Y.std().item() == pytest.approx(1 / 20, rel=0.03)


def test_mixing_is_a_known_permutation_and_its_own_inverse():
    letters = torch.tensor([[[1, 2, 3, 4], [5, 6, 7, 8]]])
    assert mix(letters).tolist() == [[[1, 2, 5, 6], [3, 4, 7, 8]]]
    x = seeded(3, 4, 12)
    assert torch.equal(mix(mix(x)), x) and not torch.equal(mix(x), x)
    assert torch.equal(mix(x).flatten().sort().values, x.flatten().sort().values)


def test_rankmixer_block_gives_each_token_its_own_network():
    block, x = stirred(RankMixerBlock(4, 8, expansion=2)), seeded(5, 4, 8)
    s = block.norm_mix(mix(x) + x)
    tokens = []
    for t in range(4):
        hidden = F.gelu(s[:, t] @ block.up.weight[t] + block.up.bias[t])
        tokens.append(hidden @ block.down.weight[t] + block.down.bias[t])
    close(block(x), block.norm_ffn(torch.stack(tokens, 1) + s))
    assert block.up.weight.shape == (4, 8, 16)


def test_rankmixer_cuts_padded_fields_into_tokens():
    model, batch = stirred(RankMixer(SCHEMA, 5, tokens=3, width=6, layers=2)), draw()
    e = model.embed(batch).flatten(1)  # 4 fields of 5 = 20 numbers: 3 chunks of 7, the last padded
    e = torch.cat([e, torch.zeros(6, 1)], 1)
    tokens = [
        e[:, 7 * t : 7 * t + 7] @ model.tokenize.weight[t] + model.tokenize.bias[t]
        for t in range(3)
    ]
    x = model.blocks[1](model.blocks[0](torch.stack(tokens, 1)))
    close(model(batch), model.head(x.mean(1)).squeeze(1))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: DCNv2(SCHEMA, structure="both"), "crossnet_only, stacked, parallel, not 'both'"),
        (lambda: DCNv2(SCHEMA, crosses=0), "crosses must be at least 1"),
        (lambda: DCNv2(SCHEMA, rank=0), "rank must be at least 1"),
        (
            lambda: AutoInt(SCHEMA, attention_dim=7, heads=2),
            "attention_dim must be a multiple of 2, got 7",
        ),
        (lambda: AutoInt(SCHEMA, layers=0), "layers must be at least 1"),
        (lambda: Wukong(SCHEMA, n_lcb=0), "n_lcb must be at least 1"),
        (
            lambda: RankMixer(SCHEMA, tokens=16, width=100),
            "width must be a multiple of 16, got 100",
        ),
        (lambda: RankMixer(SCHEMA, expansion=0), "expansion must be at least 1"),
    ],
)
def test_bad_options_say_what_is_right(build, says):
    with pytest.raises(ValueError, match=says) as error:
        build()
    assert "\n" not in str(error.value)
