"""The transformer block: masks, RoPE, every option against a slow version, padding, and the cache."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.nn import transformer as T
from torch.nn import functional as F

OPTIONS = [
    {},
    {"rope": False},
    {"qk_norm": True},
    {"gate": "sigmoid"},
    {"gate": "silu"},
    {"out_norm": True},
    {"sink": True},
    {"kind": "silu", "length": 5},
    {"kind": "silu", "length": 7, "gate": "silu", "out_norm": True, "rope": False},  # HSTU
    {"qk_norm": True, "gate": "sigmoid", "sink": True},
]
named = pytest.mark.parametrize("options", OPTIONS, ids=str)


def attention(options: dict, dim: int = 8, heads: int = 2) -> T.Attention:
    torch.manual_seed(0)
    layer = T.Attention(dim, heads, **options).double()
    for weight in layer.parameters():  # no scale is left at 1, no sink at 0
        torch.nn.init.normal_(weight, 0.3, 0.5)
    return layer


# masks and positions ---------------------------------------------------------------------------


def test_a_causal_mask_by_hand():
    rows = ["1000", "1100", "1110", "1011"]  # window 2; token 0 is a sink, and 2 reads 1, 2
    wanted = torch.tensor([[c == "1" for c in row] for row in rows])
    assert T.causal_mask(4, 2, sinks=1).equal(wanted)
    assert T.causal_mask(4, 1).equal(torch.eye(4, dtype=torch.bool))


@given(st.integers(0, 9), st.integers(1, 12), st.integers(0, 10))
@settings(max_examples=40, deadline=None)
def test_a_causal_mask_pair_by_pair(n, window, sinks):
    mask = T.causal_mask(n, window, sinks)
    for i in range(n):
        for j in range(n):
            assert mask[i, j] == (j <= i and (i - j < window or j < sinks))
    if window >= n:
        assert mask.equal(T.causal_mask(n))


def test_candidates_read_the_context_and_themselves_and_nobody_reads_them():
    context = T.causal_mask(3, 2)
    apart, together = T.candidate_mask(context, 2), T.candidate_mask(context, 2, see=True)
    assert apart[:3].equal(F.pad(context, (0, 2))) and together[:3].equal(apart[:3])
    assert apart[3:].equal(torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 1]], dtype=torch.bool))
    assert together[3:].all()


def test_a_block_reads_itself_and_earlier_blocks():
    mask = T.block_causal_mask(torch.tensor([0, 0, 1, 2]))
    wanted = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert mask.equal(torch.tensor(wanted, dtype=torch.bool))
    assert T.block_causal_mask(torch.tensor([[0, 1], [1, 0]])).shape == (2, 2, 2)


def test_positions_skip_padding_and_candidates_share_the_next():
    present = torch.tensor([[False, False, True, True], [True, True, True, True]])
    at = T.present_positions(present)
    assert at.tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
    shared = T.share_position(at, present, 2)
    assert shared.tolist() == [[0, 0, 0, 1, 2, 2], [0, 1, 2, 3, 4, 4]]


# pure functions --------------------------------------------------------------------------------


def test_rope_turns_each_pair_by_its_own_angle():
    x = torch.tensor([1.0, 0.0, 0.0, 2.0]).view(1, 1, 1, 4)  # pairs (x0, x2), (x1, x3)
    turned = T.rotate(x, torch.tensor([[3]]), base=100.0).flatten()
    fast, slow = 3.0, 3.0 * 100.0**-0.5
    wanted = [math.cos(fast), -2 * math.sin(slow), math.sin(fast), 2 * math.cos(slow)]
    assert turned.tolist() == pytest.approx(wanted, abs=1e-6)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_rope_keeps_lengths_and_knows_differences_only(i, j, shift):
    draw = torch.Generator().manual_seed(i * 51 + j)
    q, k = torch.randn(2, 1, 1, 1, 6, generator=draw, dtype=torch.float64)

    def turn(x, at):
        return T.rotate(x, torch.tensor([[at]]))

    assert turn(q, i).norm().item() == pytest.approx(q.norm().item())
    near = (turn(q, i) * turn(k, j)).sum().item()
    assert (turn(q, i + shift) * turn(k, j + shift)).sum().item() == pytest.approx(near, abs=1e-4)


def test_weights_by_hand():
    scores = torch.tensor([[[[0.0, math.log(3), 9.0], [1.0, 2.0, 3.0]]]])
    mask = torch.tensor([[[[True, True, False], [False, False, False]]]])
    weights = T.attention_weights(scores, mask)
    assert weights[0, 0, 0].tolist() == pytest.approx([0.25, 0.75, 0])
    assert weights[0, 0, 1].tolist() == [0, 0, 0]  # reads nothing
    sunk = T.attention_weights(scores, mask, sink=torch.tensor([math.log(4)]))
    assert sunk[0, 0, 0].tolist() == pytest.approx([1 / 8, 3 / 8, 0])
    assert sunk[0, 0, 1].tolist() == [0, 0, 0]
    silu = T.attention_weights(scores, mask, "silu", length=2)
    assert silu[0, 0, 0].tolist() == pytest.approx([0, math.log(3) * 0.75 / 2, 0])


# the layer against a slow version ----------------------------------------------------------------


def prepared(v, norm, at, options: dict):
    """A query or key of one head: QK-norm, then RoPE pair by pair."""
    if options.get("qk_norm"):
        v = v / (v.square().mean() + torch.finfo(v.dtype).eps).sqrt() * norm.weight
    if not options.get("rope", True):
        return v
    turned, half = v.clone(), len(v) // 2
    for i in range(half):
        angle = float(at) * 10_000.0 ** (-i / half)
        c, s = math.cos(angle), math.sin(angle)
        turned[i], turned[i + half] = v[i] * c - v[i + half] * s, v[i] * s + v[i + half] * c
    return turned


def one_head(layer, h, x, at, query, keys, options: dict):
    """The mixed values of one query of one row."""
    width = len(x[0]) // layer.heads
    part = slice(h * width, (h + 1) * width)
    norms = layer.norms or (None, None)
    q = prepared((layer.query.weight @ x[query])[part], norms[0], at[query], options)
    total, below = torch.zeros(width, dtype=x.dtype), 0.0
    if options.get("sink"):
        below += math.exp(layer.sink[h].item())
    for j in keys:
        k = prepared((layer.key.weight @ x[j])[part], norms[1], at[j], options)
        score = (q @ k).item() / math.sqrt(width)
        silu = options.get("kind") == "silu"
        weight = score / (1 + math.exp(-score)) if silu else math.exp(score)
        total, below = total + weight * (layer.value.weight @ x[j])[part], below + weight
    if options.get("kind") == "silu":
        return total / options["length"]
    return total / below if keys else total


def slow(layer: T.Attention, x, positions, mask, options: dict):
    """One row, one query, one head, one key at a time."""
    out = torch.zeros_like(x)
    for b, query in product(range(x.shape[0]), range(x.shape[1])):
        keys = [j for j in range(x.shape[1]) if mask[b, query, j]]
        rows = (x[b], positions[b], query, keys, options)
        mixed = torch.cat([one_head(layer, h, *rows) for h in range(layer.heads)])
        if options.get("out_norm"):
            mixed = F.layer_norm(mixed, mixed.shape, layer.out_norm.weight, layer.out_norm.bias)
        if gate := options.get("gate"):
            z = layer.gate.weight @ x[b, query]
            mixed = mixed * (z.sigmoid() if gate == "sigmoid" else z * z.sigmoid())
        out[b, query] = layer.out.weight @ mixed
    return out


@named
def test_every_option_equals_the_slow_version(options):
    layer, draw = attention(options), torch.Generator().manual_seed(1)
    x = torch.randn(2, 5, 8, generator=draw, dtype=torch.float64)
    positions = torch.tensor([[0, 1, 2, 3, 4], [0, 0, 1, 2, 2]])
    mask = T.causal_mask(5, 3, sinks=1).repeat(2, 1, 1)
    mask[1, :, 0] = False  # the first token of row 1 is padding, and reads nothing
    with torch.no_grad():
        fast, _ = layer(x, positions, mask)
        # angles of RoPE are single precision
        torch.testing.assert_close(
            fast, slow(layer, x, positions, mask, options), atol=1e-5, rtol=0
        )


@named
def test_kept_queries_are_the_same_rows(options):
    layer = attention(options)
    x, at, mask = (
        torch.randn(2, 6, 8).double(),
        torch.arange(6).expand(2, -1),
        T.causal_mask(6)[None],
    )
    keep = torch.tensor([1, 4, 5])
    whole, some = layer(x, at, mask)[0], layer(x, at, mask[:, keep], keep)[0]
    torch.testing.assert_close(some, whole[:, keep])


def test_qk_norm_forgets_the_scale_of_the_query_weights():
    x, at, mask = torch.randn(1, 4, 8).double(), torch.arange(4)[None], T.causal_mask(4)[None]
    for options, same in (({"qk_norm": True}, True), ({}, False)):
        layer = attention(options)
        before = layer(x, at, mask)[0]
        layer.query.weight.data *= 3
        assert torch.allclose(layer(x, at, mask)[0], before, atol=1e-6) == same


# blocks --------------------------------------------------------------------------------------------


def blocks(options: dict, hidden: int, layers: int = 2) -> list[T.Block]:
    torch.manual_seed(0)
    return [T.Block(8, 2, hidden, **options).double() for _ in range(layers)]


def run(layers, x, present, candidates: int = 2):
    """Candidates after a windowed history: the whole stack."""
    n = present.shape[1]
    at = T.share_position(T.present_positions(present), present, candidates)
    mask = T.candidate_mask(T.causal_mask(n, 3), candidates)
    there = torch.cat([present, present.new_ones(len(x), candidates)], 1)
    for layer in layers:
        x, _ = layer(x, at, mask & there[:, None])
    return x


@named
@pytest.mark.parametrize("hidden", [0, 12])
def test_left_padding_changes_nothing(options, hidden):
    layers, x = blocks(options, hidden), torch.randn(2, 6, 8).double()
    present = torch.ones(2, 4, dtype=torch.bool)
    padded = torch.cat([torch.randn(2, 3, 8).double(), x], 1)
    alone, beside = run(layers, x, present), run(layers, padded, F.pad(present, (3, 0)))
    torch.testing.assert_close(beside[:, 3:], alone, atol=1e-6, rtol=0)


@named
def test_a_cache_in_pieces_equals_one_pass(options):
    layers, x = blocks(options, 12), torch.randn(2, 7, 8).double()
    at, mask = torch.arange(7).expand(2, -1), T.causal_mask(7, 4)[None]
    whole = x
    for layer in layers:
        whole, _ = layer(whole, at, mask)
    pieces, caches = [], [None] * len(layers)
    for start, end in ((0, 3), (3, 4), (4, 7)):
        piece = x[:, start:end]
        for k, layer in enumerate(layers):
            rows = mask[:, start:end, :end]
            piece, caches[k] = layer(piece, at[:, start:end], rows, None, caches[k])
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    assert caches[0][0].shape == (2, 2, 7, 4)


def test_a_window_reaches_one_window_further_with_each_layer():
    layers, x = blocks({}, 12, 3), torch.randn(1, 10, 8).double()
    at, mask = torch.arange(10)[None], T.causal_mask(10, 3)[None]

    def last(x):
        for layer in layers:
            x, _ = layer(x, at, mask)
        return x[:, -1]

    for t in range(10):  # token 9 hears of 9 - 3 * (3 - 1) = 3 and later
        moved = x.clone()
        moved[:, t] += 1
        assert torch.equal(last(moved), last(x)) == (t < 3)


def test_candidates_are_alone_and_keep_their_logits_in_any_order():
    layers, x = blocks({}, 12), torch.randn(2, 7, 8).double()
    present = torch.ones(2, 4, dtype=torch.bool)
    out, moved = run(layers, x, present, 3), x.clone()
    moved[:, 5] += 1
    assert torch.equal(run(layers, moved, present, 3)[:, [4, 6]], out[:, [4, 6]])
    turned = torch.tensor([0, 1, 2, 3, 6, 4, 5])
    torch.testing.assert_close(run(layers, x[:, turned], present, 3), out[:, turned])


def test_swiglu_and_the_head_by_hand():
    feed = T.SwiGLU(1, 1)
    feed.into.weight.data[:], feed.back.weight.data[:] = torch.tensor([[2.0], [3.0]]), 5.0
    assert feed(torch.ones(1, 1)).item() == pytest.approx(5 * 3 * 2 / (1 + math.exp(-2)))
    head = T.MatchHead(2, 1)
    for layer, value in ((head.layers[0], 0.5), (head.layers[2], 1.0)):
        layer.weight.data[:], layer.bias.data[:] = value, 0.0
    z, e = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    s = 0.5 * (1 + 2 + 3 - 1 + 3 - 2)
    assert head(z, e).item() == pytest.approx(s / (1 + math.exp(-s)))
    alone = T.MatchHead(2, 1, match=False)
    assert torch.equal(alone(z, e), alone(z, e + 1))


# faults ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: T.causal_mask(3, 0), "window must be at least 1, got 0"),
        (lambda: T.causal_mask(-1), "n must be at least 0"),
        (lambda: T.candidate_mask(T.causal_mask(2), -1), "candidates must be at least 0"),
        (lambda: T.rotate(torch.ones(1, 1, 1, 3), torch.zeros(1, 1)), "width must be a multiple"),
        (lambda: T.Attention(6, 2), "dim must be a multiple of 4"),
        (lambda: T.Attention(8, 2, kind="relu"), "kind must be one of softmax, silu"),
        (lambda: T.Attention(8, 2, gate="tanh"), "gate must be one of"),
        (lambda: T.Attention(8, 2, kind="silu", sink=True), "sink must be False"),
        (lambda: T.Attention(8, 2, length=0), "length must be at least 1"),
        (lambda: T.Block(8, 2, -1), "hidden must be at least 0"),
        (lambda: T.SwiGLU(8, 0), "hidden must be at least 1"),
        (lambda: T.MatchHead(0, 1), "dim must be at least 1"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
