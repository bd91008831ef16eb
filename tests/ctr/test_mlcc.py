"""MLCC: the sheet's worked numbers and counts, its identities, and a slow version of every step."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.ctr.baselines.dnn import DNN
from paperlab.ctr.mlcc import MLCC, MLCCBlock, SqueezeExcite, cross
from paperlab.data import Batch, Field, Schema
from paperlab.nn.budget import flops
from torch.nn import functional as F

HEAD = (256, 128, 64, 32)
CRITEO = Schema(tuple(Field(f"f{k}", size=2) for k in range(39)))


def seeded(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def block(fields=4, emb=3, **options) -> MLCCBlock:
    torch.manual_seed(0)
    return MLCCBlock(fields, emb, **{"heads": 2, "dims": (3, 2), "emb_out": 5} | options).double()


# The crossing ------------------------------------------------------------------------------------

X = torch.tensor([[1.0, 2], [3, -1]])[None, None]  # one channel, one sample, two fields of two
THETAS = [
    torch.tensor([[1.0, 2], [3, -1]])[None, None, None],
    torch.tensor([[1.0], [2]])[None, None, None],
]


@pytest.mark.parametrize("phi", [None, lambda u: u])
def test_worked_numbers(phi):
    assert cross(X, THETAS[:1], phi=phi)[0, 0].tolist() == [[7, 0], [0, 7]]
    assert cross(X, THETAS, phi=phi)[0, 0].tolist() == [[7], [14]]
    assert cross(X, THETAS, keep=[1], phi=phi)[0, 0].tolist() == [[7, 0, 7], [0, 7, 14]]


def slow_cross(x, thetas, keep, phi):
    """Channel by channel, sample by sample, head by head; columns level by level, then by head."""
    heads = thetas[0].shape[2]
    whole = []
    for c in range(len(x)):
        for b in range(x.shape[1]):
            by_level = []
            for h in range(heads):
                u, mine = x[c, b], []
                for j, theta in enumerate(thetas):
                    u = torch.stack(
                        [sum(r[i] * theta[c, b, h, i] for i in range(len(r))) for r in u]
                    )
                    u = phi(u) if j < len(thetas) - 1 else u
                    if j + 1 in keep or j == len(thetas) - 1:
                        mine.append(u)
                by_level.append(mine)
            levels = zip(*by_level, strict=True)
            whole.append(torch.cat([u for level in levels for u in level], 1))
    return torch.stack(whole).unflatten(0, x.shape[:2])


@settings(deadline=None, max_examples=15)
@given(
    st.tuples(*[st.integers(1, 3)] * 5),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.sampled_from(["identity", "relu", "tanh", "sigmoid"]),
    st.data(),
)
def test_it_equals_the_slow_version(sizes, dims, phi, data):
    C, B, H, fields, E = sizes
    keep = data.draw(
        st.lists(st.integers(1, 9), unique=True).map(lambda k: [j for j in k if j < len(dims)])
    )
    widths = [E, *dims]
    thetas = [seeded(C, B, H, a, b, seed=a) for a, b in pairwise(widths)]
    x = seeded(C, B, fields, E, seed=9)
    function = {"identity": lambda u: u, "relu": torch.relu, "tanh": torch.tanh}.get(
        phi, torch.sigmoid
    )
    fast = cross(x, thetas, keep, None if phi == "identity" else function)
    torch.testing.assert_close(fast, slow_cross(x, thetas, keep, function), rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_block_equals_the_papers_einsums(channels):
    made = block(emb=2, channels=channels, keep=(1,), se=False)
    x = seeded(7, 4, 2 * channels)
    parts = []
    for c in range(channels):
        own = x[:, :, 2 * c : 2 * c + 2]
        g = torch.einsum("bi,io->bo", own.flatten(1), made.W1[c])
        first, second = g[:, :12].view(7, 2, 3, 2).mT, g[:, 12:].view(7, 2, 2, 3).mT
        u1 = torch.einsum("bfi,bhio->bhfo", own, first)
        u2 = torch.einsum("bhfi,bhio->bhfo", u1, second)
        parts += [u.permute(0, 2, 1, 3).flatten(2) for u in (u1, u2)]
    z = torch.cat([*parts, x], 2)
    assert z.shape[2] == made.d_cross + 2 * channels == channels * 2 * 5 + 2 * channels
    torch.testing.assert_close(made(x), torch.einsum("bfk,fke->bfe", z, made.W2))


def test_levels_are_homogeneous_of_degree_two_three_and_four():
    made = block(dims=(3, 2, 2), keep=(1, 2), raw=False, se=False)
    x = seeded(1, 6, 4, 3)
    once, twice = (cross(v, made.generate(v), (1, 2)) for v in (x, 2 * x))
    factors = torch.tensor([4.0] * 6 + [8.0] * 4 + [16.0] * 4, dtype=torch.float64)
    torch.testing.assert_close(twice, once * factors)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_with_a_linear_head_the_orders_end_at_depth_plus_one(depth):
    """Mixed differences of the logit over k fields vanish for k > D + 1, and not at D + 1."""
    schema = Schema(tuple(Field(f"f{k}", size=3) for k in range(5)))
    torch.manual_seed(0)
    model = MLCC(schema, 4, dims=(3,) * depth, keep=range(1, depth), se=False, widths=()).double()
    torch.nn.init.normal_(model.embed.table.weight)
    for k in range(2, 6):
        corners = torch.cartesian_prod(*[torch.tensor([1, 2])] * k).view(-1, k)
        ids = torch.ones(len(corners), 5, dtype=torch.int32)
        ids[:, :k] = corners
        empty = torch.empty(len(ids), 0)
        logits = model(Batch(ids, empty, torch.zeros(len(ids), 1), None))
        mixed = (logits * (-1.0) ** (corners - 1).sum(1)).sum().abs()
        assert mixed < 1e-10 if k > depth + 1 else mixed > 1e-4, (depth, k)


# Channels, heads, the local compressor -----------------------------------------------------------


def test_zeroed_channels_leave_the_one_channel_model():
    many, one = block(channels=3), block(channels=1)
    with torch.no_grad():
        one.W1.copy_(many.W1[:1])
        for other, mine in zip(many.excite.parameters(), one.excite.parameters(), strict=True):
            mine.copy_(other)
        many.W1[1:] = 0
        rows = torch.zeros(many.W2.shape[1], dtype=torch.bool)
        rows[: one.d_cross] = True  # of the first channel's crosses
        rows[many.d_cross : many.d_cross + 3] = True  # and of its raw embedding
        one.W2.copy_(many.W2[:, rows])
        many.W2[:, ~rows] = 0
    x = seeded(6, 4, 9)
    torch.testing.assert_close(many(x), one(x[:, :, :3]))


def test_one_channel_is_mlcc_weight_for_weight():
    """The whole model against one that knows no channels, written out from its weights."""
    torch.manual_seed(0)
    model = MLCC(CRITEO, 16, channels=1).double().eval()
    torch.nn.init.normal_(model.embed.table.weight)
    w = model.state_dict()
    ids = torch.randint(2, (8, 39)).int()
    x = w["embed.table.weight"][(ids + 2 * torch.arange(39)).long()]
    g = x.flatten(1) @ w["blocks.0.W1"][0]
    u1 = torch.einsum("bfi,bhio->bfho", x, g[:, :256].view(8, 4, 4, 16).mT)
    u2 = torch.einsum("bfhi,bhio->bfho", u1, g[:, 256:].view(8, 4, 1, 4).mT)
    z = torch.cat([u1.flatten(2), u2.flatten(2), x], 2)
    r = torch.einsum("bfk,fke->bfe", z, w["blocks.0.W2"])
    a = F.linear(r.mean(2), w["blocks.0.excite.squeeze.weight"], w["blocks.0.excite.squeeze.bias"])
    a = F.layer_norm(a.relu(), (19,))
    a = F.linear(a, w["blocks.0.excite.excite.weight"], w["blocks.0.excite.excite.bias"])
    y = (r * a.sigmoid()[:, :, None]).flatten(1)
    for k in (0, 3, 6, 9):  # Linear, ReLU, Dropout
        y = F.linear(y, w[f"head.{k}.weight"], w[f"head.{k}.bias"]).relu()
    y = F.linear(y, w["head.12.weight"], w["head.12.bias"]).squeeze(1)
    torch.testing.assert_close(model(Batch(ids, torch.empty(8, 0), torch.zeros(8, 1), None)), y)


def test_identical_heads_and_permuted_heads():
    made = block(heads=3, dims=(2, 1), se=False)
    x = seeded(6, 4, 3)
    with torch.no_grad():
        first, second = made.W1.split([3 * 6, 3 * 2], 2)
        before = made(x)
        order = torch.tensor([2, 0, 1])
        shuffled = [w.unflatten(2, (3, -1))[:, :, order].flatten(2) for w in (first, second)]
        z = torch.arange(made.d_cross)  # level 1: heads of 2; level 2: heads of 1
        rows = torch.cat([z[:6].view(3, 2)[order].flatten(), z[6:][order], 9 + torch.arange(3)])
        made.W1.copy_(torch.cat(shuffled, 2))
        made.W2.copy_(made.W2[:, rows])
        torch.testing.assert_close(made(x), before)
        same = [
            w.unflatten(2, (3, -1))[:, :, :1].expand(-1, -1, 3, -1).flatten(2) for w in shuffled
        ]
        made.W1.copy_(torch.cat(same, 2))
        u = cross(x[None], made.generate(x[None]), (1,))
        torch.testing.assert_close(u[..., :2], u[..., 2:4])
        torch.testing.assert_close(u[..., 6], u[..., 8])


def test_the_local_compressor_is_of_one_field():
    made, x = block(se=False), seeded(6, 4, 3)
    before = made(x).detach()
    with torch.no_grad():
        made.W2[2] += 1
    changed = (made(x) - before).abs().amax((0, 2)) > 1e-9
    assert changed.tolist() == [False, False, True, False]
    shared = block(se=False, shared=True)
    assert shared.W2.shape == (1, *made.W2.shape[1:])
    with torch.no_grad():
        made.W1.copy_(shared.W1), made.W2.copy_(shared.W2.expand_as(made.W2))
    torch.testing.assert_close(shared(x), made(x))


def test_without_generated_weights_only_the_raw_embeddings_are_left():
    x = seeded(6, 4, 3)
    made = block(se=False)
    with torch.no_grad():
        made.W1.zero_()
    torch.testing.assert_close(made(x), torch.einsum("bfk,fke->bfe", x, made.W2[:, -3:]))
    bare = block(raw=False)
    with torch.no_grad():
        bare.W1.zero_()
    assert not bare(x).any()


def test_the_global_compressor_couples_fields():
    x = seeded(1, 4, 3).requires_grad_()
    coupled = torch.autograd.grad(block(se=False)(x)[0, 1].sum(), x)[0][0].abs().sum(1)
    assert (coupled > 0).all()
    constant = torch.autograd.grad(block(se=False, static=True)(x)[0, 1].sum(), x)[0][0]
    assert constant.abs().sum(1).gt(0).tolist() == [False, True, False, False]


def test_static_weights_cross_nothing():
    made, x = block(static=True, se=False, channels=2), seeded(2, 6, 4, 6)
    torch.testing.assert_close(made(x[0] + 3 * x[1]), made(x[0]) + 3 * made(x[1]))
    assert made.W1 is None


def test_normalised_inputs_write_weights_of_any_scale_alike():
    made, x = block(norm=True), seeded(1, 6, 4, 3)
    for small, large in zip(made.generate(x), made.generate(50 * x), strict=True):
        torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-3)  # LayerNorm's eps
    reference = torch.bmm(F.layer_norm(x, (3,)).flatten(2), made.W1)
    torch.testing.assert_close(made.generate(x)[0].mT.flatten(2), reference[..., :18])


def test_squeeze_and_excitation_by_hand():
    torch.manual_seed(0)
    se, r = SqueezeExcite(6).double(), seeded(5, 6, 2)
    with torch.no_grad():
        for p in se.parameters():
            p.normal_()
    hidden = (r.mean(2) @ se.squeeze.weight.T + se.squeeze.bias).clamp(min=0)
    centred = hidden - hidden.mean(1, keepdim=True)
    hidden = centred / (hidden.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    gate = 1 / (1 + (-(hidden @ se.excite.weight.T + se.excite.bias)).exp())
    torch.testing.assert_close(se(r), gate[:, :, None] * r)
    assert se.squeeze.weight.shape == (3, 6)


@pytest.mark.parametrize("options", [{}, {"phi": "tanh", "norm": True}, {"static": True}])
def test_gradcheck(options):
    made = block(fields=3, emb=2, channels=2, **options)
    assert torch.autograd.gradcheck(made, seeded(2, 3, 4).requires_grad_())


# The model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "dense"),
    [
        (lambda: MLCC(CRITEO, 16), 305_893),
        (lambda: MLCC(CRITEO, 64, channels=4), 848_773),
        (lambda: MLCC(CRITEO, 64), 2_746_981),
        (lambda: DNN(CRITEO, 16, widths=HEAD), 203_265),
        (lambda: DNN(CRITEO, 64, widths=HEAD), 682_497),
    ],
)
def test_golden_counts_on_criteos_shape(model, dense):
    with torch.device("meta"):
        assert model().count_parameters()["dense"] == dense


def test_golden_shapes_and_start_on_criteos_shape():
    torch.manual_seed(0)
    made = MLCCBlock(39, 16, channels=4)
    assert made.W1.shape == (4, 624, 272) and made.W1.numel() == 678_912
    assert made.W2.shape == (39, 144, 8) and made.W2.numel() == 44_928
    assert sum(p.numel() for p in made.excite.parameters()) == 1540
    assert made(torch.randn(3, 39, 64)).shape == (3, 39, 8)
    assert made.W1.std().item() == pytest.approx((2 / (624 + 272)) ** 0.5, rel=0.02)
    assert made.W2.std().item() == pytest.approx((2 / (144 + 8)) ** 0.5, rel=0.02)


def test_flops_of_the_four_products():
    """GC, crossing, LC and head on Criteo's shape; Theta_1 Theta_2 instead of going by level."""
    batch = Batch(torch.zeros(4, 39).int(), torch.empty(4, 0), torch.zeros(4, 1), None)
    gc, composed, crossing, lc = 624 * 272, 4 * 16 * 4, 39 * 16 * 20, 39 * 36 * 8
    se = 39 * 19 * 2
    head = 312 * 256 + 256 * 128 + 128 * 64 + 64 * 32 + 32
    assert flops(MLCC(CRITEO), batch) == 2 * (gc + composed + crossing + lc + se + head)


def test_stacked_blocks_pass_their_output_on():
    torch.manual_seed(0)
    model = MLCC(CRITEO, 8, channels=2, layers=3).eval()
    assert [b.W2.shape[2] for b in model.blocks] == [8, 8, 8]
    assert [b.W2.shape[2] for b in MLCC(CRITEO, 8, emb_out=5, layers=2).blocks] == [8, 5]
    x = torch.randn(2, 39, 8)
    first, second, third = model.blocks
    torch.testing.assert_close(model.blocks(x), third(second(first(x))))


def test_small_products_survive_bf16_and_not_float16():
    """Embeddings as the released code starts them on a million rows: |e| <= 0.0025."""
    torch.manual_seed(0)
    made = MLCCBlock(39, 16, se=False)
    x = torch.rand(64, 39, 16) * 0.005 - 0.0025
    exact = cross(x[None], made.generate(x[None]))  # third order only
    with torch.autocast("cpu", torch.bfloat16):
        rounded = cross(x[None], made.generate(x[None])).float()
        whole = made(x).float()
    assert (rounded - exact).norm() / exact.norm() < 0.01
    assert (whole - made(x)).norm() / made(x).norm() < 0.01
    assert 0 < exact.abs().mean() < 6e-8  # below float16's smallest number


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_fields": 1}, "num_fields must be at least 2"),
        ({"emb": 0}, "emb must be at least 1"),
        ({"heads": 0}, "heads must be at least 1"),
        ({"emb_out": 0}, "emb_out must be at least 1"),
        ({"channels": 0}, "channels must be at least 1"),
        ({"dims": ()}, "dims must be one or more"),
        ({"dims": (4, 0)}, "dims must be one or more"),
        ({"keep": (2,)}, r"keep must name levels in 1..1"),
        ({"keep": (0,)}, r"keep must name levels in 1..1"),
        ({"keep": (1, 1)}, "each once"),
        ({"phi": "gelu"}, "phi must be one of identity, relu, tanh, sigmoid"),
    ],
)
def test_faults_of_the_block(change, message):
    with pytest.raises(ValueError, match=message):
        MLCCBlock(**{"num_fields": 4, "emb": 3} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers must be at least 1"),
        ({"channels": 3}, "channels must divide dim, got 3 channels of dim 16"),
        ({"channels": 0}, "channels must divide dim"),
    ],
)
def test_faults_of_the_model(change, message):
    with pytest.raises(ValueError, match=message):
        MLCC(CRITEO, **change)
