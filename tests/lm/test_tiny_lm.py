"""The small language model: causal, padding-proof, the cache changes nothing, an independent block."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.lm.tiny_lm import Cache, TinyLM, rotate


def model(**options) -> TinyLM:
    torch.manual_seed(0)
    made = TinyLM(**{"vocabulary": 11, "dim": 16, "layers": 2, "heads": 2, **options}).double()
    for p in made.parameters():  # larger than at the start, so that differences would show
        torch.nn.init.normal_(p, std=0.3)
    return made.eval()


def ids(*shape, seed=0):
    return torch.randint(11, shape, generator=torch.Generator().manual_seed(seed))


def test_shapes_and_parameters():
    lm = TinyLM(256, dim=32, layers=3, heads=4)
    out = lm(torch.zeros(2, 7, dtype=torch.long))
    assert out.logits.shape == (2, 7, 256) and out.hidden.shape == (2, 7, 32)
    inner = 8 * 32 // 3
    block = 4 * 32 * 32 + 3 * 32 * inner + 2 * 32
    assert sum(p.numel() for p in lm.parameters()) == 256 * 32 + 3 * block + 32
    assert abs(out.logits.log_softmax(-1).mean().item() + math.log(256)) < 0.1  # near uniform


def test_it_never_looks_ahead():
    lm, x = model(), ids(2, 9)
    y = x.clone()
    y[:, 5:] = (y[:, 5:] + 1) % 11
    before, after = lm(x).logits, lm(y).logits
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert (before[:, 5:] - after[:, 5:]).abs().amax(2).min() > 1e-3


@pytest.mark.parametrize(("left", "right"), [(0, 3), (3, 0), (2, 2)])
def test_padding_on_either_side_changes_nothing(left, right):
    lm, x = model(), ids(3, 6)
    wide = torch.nn.functional.pad(x, (left, right), value=7)
    mask = torch.nn.functional.pad(torch.ones_like(x, dtype=torch.bool), (left, right))
    out = lm(wide, mask)
    torch.testing.assert_close(out.logits[:, left : left + 6], lm(x).logits)
    assert out.logits.isfinite().all()
    if not left:  # padding on the right needs no mask
        torch.testing.assert_close(lm(wide).logits[:, :6], lm(x).logits)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 99))
def test_reading_in_pieces_with_the_cache_is_reading_at_once(pieces, seed):
    lm, x = model(), ids(2, sum(pieces), seed=seed)
    cache = Cache(2)
    parts = [lm(part, cache=cache).logits for part in x.split(pieces, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), lm(x).logits, rtol=1e-9, atol=1e-9)
    assert len(cache) == sum(pieces)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_sampling_with_the_cache_is_sampling_without(temperature):
    lm, x = model(), ids(5, 4)
    draws = [
        lm.sample(x, 12, temperature, generator=torch.Generator().manual_seed(3), cached=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*draws) and draws[0].shape == (5, 12)


@pytest.mark.parametrize("temperature", [1e-45, 1e-300])
def test_a_temperature_near_0_is_greedy(temperature):
    lm = model()
    greedy = lm.sample(ids(3, 4), 5, temperature=0.0)
    assert lm.sample(ids(3, 4), 5, temperature=temperature).tolist() == greedy.tolist()


def test_a_row_ends_with_its_stop():
    lm, x = model(), ids(64, 3)
    out = lm.sample(x, 20, stop=4, generator=torch.Generator().manual_seed(1))
    ended = (out == 4).cumsum(1) > 0
    assert (out[ended] == 4).all() and 0 < ended[:, -1].float().mean() <= 1


def test_samples_follow_the_distribution():
    lm = model()
    x = ids(1, 4).expand(20_000, 4)
    first = lm.sample(x, 1, temperature=2.0, generator=torch.Generator().manual_seed(2))
    share = torch.bincount(first[:, 0], minlength=11) / 20_000
    expected = (lm(x[:1]).logits[0, -1] / 2).softmax(0)
    assert (share - expected).abs().max() < 0.015


def test_checkpointing_gives_the_same_gradients():
    x, gradients = ids(2, 5), []
    for on in (False, True):
        lm = model().train()
        lm.checkpointing = on
        lm(x).logits.square().mean().backward()
        gradients.append([p.grad for p in lm.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_one_block_written_out_by_hand():
    lm, x = model(layers=1, heads=1), ids(1, 5)
    block, h = lm.blocks[0], lm.embed(x)[0]

    def norm(v, weight):
        return v / (v.square().mean(-1, keepdim=True) + torch.finfo(v.dtype).eps).sqrt() * weight

    q, k, v = (norm(h, block.norm1.weight) @ block.qkv.weight.T).chunk(3, 1)
    place = torch.arange(5.0, dtype=torch.float64)[:, None]
    angle = place * 10_000.0 ** (-torch.arange(8, dtype=torch.float64) / 8)
    turned = []
    for t in (q, k):
        even, odd = t[:, ::2], t[:, 1::2]
        pair = (even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos())
        turned.append(torch.stack(pair, 2).flatten(1))
    score = turned[0] @ turned[1].T / 4
    score = score.masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
    h = h + score.softmax(1) @ v @ block.out.weight.T
    gate, up = (norm(h, block.norm2.weight) @ block.gate_up.weight.T).chunk(2, 1)
    h = h + (gate * gate.sigmoid() * up) @ block.down.weight.T
    # Angles are float32 inside the model: positions are counted in it.
    torch.testing.assert_close(lm(x).hidden[0], norm(h, lm.norm.weight), rtol=1e-5, atol=1e-5)


def test_rotation_keeps_lengths_and_knows_distances_only():
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))

    def turn(p):
        angle = torch.tensor(float(p)) * torch.tensor([1.0, 0.3, 0.1, 0.01])
        return torch.polar(torch.ones(4), angle).view(1, 1, 1, 4)

    torch.testing.assert_close(rotate(q, turn(7)).norm(), q.norm())
    near = (rotate(q, turn(5)) * rotate(k, turn(3))).sum()
    torch.testing.assert_close(near, (rotate(q, turn(12)) * rotate(k, turn(10))).sum())
    assert abs(near - (q * k).sum()) > 1e-2


def test_faults():
    with pytest.raises(ValueError, match="dim a multiple of 2 \\* heads"):
        TinyLM(10, dim=18, heads=4)
    lm = model()
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        lm.sample(ids(1, 2), 0)
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be at least 0 and finite"):
            lm.sample(ids(1, 2), 3, temperature=wrong)
    with pytest.raises(ValueError, match="at least one token a row"):
        lm.sample(ids(1, 0), 3)
    cache = Cache(2)
    lm(ids(1, 2), cache=cache)
    with pytest.raises(ValueError, match="do not go together"):
        lm(ids(1, 2), torch.ones(1, 2, dtype=torch.bool), cache)
