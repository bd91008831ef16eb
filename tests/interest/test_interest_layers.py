"""Positions, target attention, Dice, AUGRU and self-attention: worked numbers and slow versions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.interest.baselines.bst import sinusoids
from paperlab.interest.baselines.dien import AUGRU, padding_last
from paperlab.interest.baselines.din import ActivationUnit, Dice
from paperlab.interest.baselines.sasrec import Block
from paperlab.nn.attention import (
    MultiHeadAttention,
    TargetAttention,
    masked_mean,
    masked_softmax,
    pool,
)
from paperlab.nn.encodings import TemporalEncoding, positions


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def left_padded(*lengths):
    longest = max(*lengths, 1)
    return torch.arange(longest, 0, -1) <= torch.tensor(lengths)[:, None]


def close(found, want, tolerance=1e-5):
    torch.testing.assert_close(found, want, rtol=tolerance, atol=tolerance)


# positions ---------------------------------------------------------------------------------------


def test_positions_of_every_kind():
    mask = left_padded(7, 2)
    hours = torch.tensor([[5000.0, 63, 31, 3, 1, 0.5, 0], [0, 0, 0, 0, 0, 2.9, 3.1]])
    rank, target = positions("rank", mask)
    assert rank.tolist() == [[7, 6, 5, 4, 3, 2, 1], [0, 0, 0, 0, 0, 2, 1]]
    assert target.tolist() == [0, 0]
    back, target = positions("reversed", mask)
    assert back.tolist() == [[1, 2, 3, 4, 5, 6, 7], [0, 0, 0, 0, 0, 1, 2]]
    assert target.tolist() == [0, 0]
    place, target = positions("absolute", mask)
    assert place.tolist() == back.tolist() and target.tolist() == [8, 3]
    bucket, target = positions("interval", mask, hours)
    assert bucket.tolist() == [[13, 7, 6, 3, 2, 1, 1], [0, 0, 0, 0, 0, 2, 3]]
    assert target.tolist() == [0, 0]


def test_positions_above_the_table_are_clipped():
    assert positions("rank", left_padded(5), size=3)[0].tolist() == [[3, 3, 3, 2, 1]]
    assert positions("absolute", left_padded(5), size=3)[1].tolist() == [3]
    far = torch.full((1, 1), 1e30)
    assert positions("interval", left_padded(1), far, 32)[0].tolist() == [[32]]


def test_positions_faults():
    with pytest.raises(ValueError, match="encoding must be one of rank, interval"):
        positions("ranks", left_padded(2))
    with pytest.raises(ValueError, match="needs times"):
        positions("interval", left_padded(2))
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        TemporalEncoding("rank", 0, 4)
    with pytest.raises(ValueError, match="encoding must be one of"):
        TemporalEncoding("age", 3, 4)


def test_encoding_adds_one_row_of_one_table():
    layer, events, target = TemporalEncoding("rank", 3, 2), seeded(1, 4, 2), seeded(1, 2, seed=1)
    coded, at_target = layer(events, target, left_padded(4))
    table = layer.table.weight
    close(coded[0], events[0] + table[[3, 3, 2, 1]])
    close(at_target[0], target[0] + table[0])


# attention ---------------------------------------------------------------------------------------


def test_the_sheets_worked_example():
    target, events = torch.tensor([[2.0, -1.0]]), torch.tensor([[[1.0, 1.0], [0.0, 2.0]]])
    u, alpha = TargetAttention()(events, target, left_padded(2))
    assert alpha[0].tolist() == pytest.approx([0.8930, 0.1070], abs=5e-5)
    assert u[0].tolist() == pytest.approx([1.7859, -1.1070], abs=1e-4)
    raw = TargetAttention(scale=False)(events, target, left_padded(2))[1][0]
    assert raw.tolist() == pytest.approx([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(3))])


lengths = st.lists(st.integers(0, 6), min_size=1, max_size=5)


@settings(deadline=None, max_examples=30)
@given(lengths, st.booleans(), st.booleans(), st.integers(0, 1000))
def test_target_attention_is_the_sum_of_products(sizes, ta, tr, seed):
    """Event by event, row by row: softmax over what is there, then sum of alpha (e * v)."""
    mask = left_padded(*sizes)
    events, target = seeded(*mask.shape, 3, seed=seed), seeded(len(sizes), 3, seed=seed + 1)
    u, alpha = TargetAttention(ta, tr)(events, target, mask)
    for b, n in enumerate(sizes):
        real = events[b, mask.shape[1] - n :]
        weight = (real @ target[b] / 3**0.5).exp() if ta else torch.ones(n)
        want = torch.zeros(3)
        for w, e in zip(weight / weight.sum(), real, strict=True):
            want += w * (e * target[b] if tr else e)
        close(u[b], want)
        assert (alpha[b, : mask.shape[1] - n] == 0).all()
        assert alpha[b].sum().item() == pytest.approx(1.0 if n else 0.0, abs=1e-6)


def test_one_event_and_none():
    events, target = seeded(2, 3, 4), seeded(2, 4, seed=1)
    u, alpha = TargetAttention()(events, target, left_padded(1, 0, 3)[:2])
    assert alpha.tolist() == [[0, 0, 1], [0, 0, 0]]
    close(u[0], events[0, 2] * target[0])
    assert (u[1] == 0).all()


def test_masked_softmax_knows_no_overflow_and_passes_no_gradient_to_padding():
    scores = torch.tensor([[1e4, 3.0, 1.0], [-3e4, 5.0, 5.0]], requires_grad=True)
    mask = torch.tensor([[False, True, True], [True, False, False]])
    weights = masked_softmax(scores, mask)
    close(weights, torch.tensor([[0, 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))], [1, 0, 0]]))
    (weights * seeded(2, 3)).sum().backward()
    assert (scores.grad[~mask] == 0).all() and (scores.grad[0, 1:] != 0).all()


def test_pool_and_mean():
    events, mask = seeded(3, 4, 2), left_padded(4, 1, 0)
    mean = pool(masked_mean(mask), events)
    close(mean, torch.stack([events[0].mean(0), events[1, 3], torch.zeros(2)]))


def test_multi_head_attention_head_by_head():
    layer = MultiHeadAttention(6, 2, product=True)
    queries, keys, mask = seeded(2, 3, 6), seeded(2, 5, 6, seed=1), left_padded(5, 2)
    found, alpha = layer(queries, keys, mask[:, None])
    q, k, v = layer.query(queries), layer.key(keys), layer.value(keys)
    for b in range(2):
        for i in range(3):
            mixed = []
            for part in (slice(0, 3), slice(3, 6)):
                scores = (k[b, :, part] @ q[b, i, part] / 3**0.5)[mask[b]].softmax(0)
                values = (v[b, :, part] * q[b, i, part])[mask[b]]
                mixed.append((scores[:, None] * values).sum(0))
            close(found[b, i], layer.out(torch.cat(mixed)))
    close(alpha.sum(3), torch.ones(2, 2, 3))
    with pytest.raises(ValueError, match="heads must divide the width 6, got 4"):
        MultiHeadAttention(6, 4)


# DIN ---------------------------------------------------------------------------------------------


def test_dice_is_a_gate_between_x_and_beta_x():
    layer, x = Dice(3), seeded(50, 3)
    with torch.no_grad():
        layer.beta.copy_(torch.tensor([0.0, 0.25, 1.0]))
    p = ((x - x.mean(0)) / x.var(0, unbiased=False).sqrt()).sigmoid()
    close(layer(x), p * x + (1 - p) * layer.beta * x)
    close(layer(x)[:, 2], x[:, 2])


@pytest.mark.parametrize("sizes", [(4, 4, 4), (4, 1, 0), (0, 0, 0)])
def test_activation_unit_is_the_mlp_on_four_parts(sizes):
    mask = left_padded(*sizes)
    unit, events, target = ActivationUnit(3, (5, 4)), seeded(*mask.shape, 3), seeded(3, 3, seed=1)
    with torch.no_grad():
        unit.first.bias.copy_(seeded(5, seed=2))
    t = target[:, None].expand_as(events)
    parts = torch.cat([t, events, t - events, t * events], 2)
    if mask.any():  # in training, so that Dice's statistics count: those of real events only
        want = events.new_zeros(mask.shape)
        want[mask] = unit.rest(unit.first(parts[mask])).squeeze(1)
        close(unit(events, target, mask), want)
    else:
        assert (unit(events, target, mask) == 0).all()


# DIEN --------------------------------------------------------------------------------------------


def test_augru_with_weight_zero_keeps_its_state_and_with_one_is_a_gru():
    layer, x = AUGRU(3), seeded(2, 5, 3)
    assert (layer(x, torch.zeros(2, 5)) == 0).all()
    weights = torch.tensor([[0.0, 1, 1, 0, 1]]).expand(2, -1)
    close(layer(x, weights), layer(x[:, [1, 2, 4]], torch.ones(2, 3)))
    gru = torch.nn.GRU(
        3, 3, batch_first=True
    )  # its z keeps the old state: ours with the sign turned
    with torch.no_grad():
        for ours, theirs in (("inputs", "ih"), ("states", "hh")):
            for kind in ("weight", "bias"):
                source = getattr(getattr(layer, ours), kind)
                source.copy_(0.5 * seeded(*source.shape, seed=len(ours + kind)))
                z, r, n = source.chunk(3)
                getattr(gru, f"{kind}_{theirs}_l0").copy_(torch.cat([r, -z, n]))
    close(layer(x, torch.ones(2, 5)), gru(x)[1][0])


def test_padding_moves_behind():
    events, mask = seeded(2, 3, 1), left_padded(1, 3)
    moved, after = padding_last(events, mask)
    assert after.tolist() == [[True, False, False], [True, True, True]]
    assert moved[0, 0] == events[0, 2] and (moved[1] == events[1]).all()


# SASRec, BST -------------------------------------------------------------------------------------


def test_sasrec_block_is_causal_and_its_last_step_alone_is_the_same():
    block, x, mask = Block(4, 2, 0.0).eval(), seeded(2, 5, 4), left_padded(5, 3)
    y = block(x, mask)
    close(block(x, mask, queries=1), y[:, -1:])
    changed = x.clone()
    changed[:, 3] += 1
    close(block(changed, mask)[:, :3], y[:, :3])
    assert (block(changed, mask)[:, 3:] - y[:, 3:]).abs().amax() > 1e-3
    padded = x.clone()
    padded[1, :2] += 7
    close(block(padded, mask)[1, 2:], y[1, 2:])


def test_sinusoids():
    table = sinusoids(5, 4)
    for row in range(5):
        want = [math.sin(row), math.cos(row), math.sin(row / 100), math.cos(row / 100)]
        assert table[row].tolist() == pytest.approx(want, abs=1e-6)
