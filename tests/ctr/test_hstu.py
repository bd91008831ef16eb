"""HSTU's layer and loss: worked numbers, a slow version, what counts and what cannot, M-FALCON."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.ctr.hstu import (
    HSTULayer,
    TargetReader,
    mean_length,
    positions_apart,
    sampled_softmax,
    time_bucket,
)
from paperlab.nn.transformer import attention_weights, causal_mask
from torch.nn import functional as F


def layer(seed: int = 0, **options) -> HSTULayer:
    """A layer of width 8 with weights large enough that every term shows."""
    torch.manual_seed(seed)
    made = HSTULayer(8, 2, 6, **options)
    for p in made.parameters():
        torch.nn.init.normal_(p, 0, 0.7)
    return made


def run(made: HSTULayer, x: torch.Tensor, mask: torch.Tensor | None = None, **options):
    t = x.shape[1]
    mask = causal_mask(t)[None] if mask is None else mask
    return made(x, mask, torch.arange(t), **options)[0]


def test_silu_by_hand():
    x = torch.tensor([1.0, 2.0, -1.0])
    assert F.silu(x).tolist() == pytest.approx([0.731059, 1.761594, -0.268941], abs=1e-6)
    a = attention_weights(torch.ones(1, 1, 2, 2), causal_mask(2)[None, None], "silu", length=2)
    assert a[0, 0].flatten().tolist() == pytest.approx([0.36553, 0, 0.36553, 0.36553], abs=1e-5)


def test_time_buckets():
    seconds = torch.tensor([0, 1, 2, 60, 3600, 86_400, 604_800, 31_536_000, -3600, 2**62])
    assert time_bucket(seconds).tolist() == [0, 0, 2, 13, 27, 37, 44, 57, 27, 128]


def test_position_bias_is_toeplitz():
    index = positions_apart(torch.arange(4), 4, 4)
    assert index.tolist() == [[3, 4, 5, 6], [2, 3, 4, 5], [1, 2, 3, 4], [0, 1, 2, 3]]
    assert positions_apart(torch.tensor([0, 1, 2, 2]), 2, 4).tolist() == [[1, 2, 3, 3]] * 2


@pytest.mark.parametrize("kind", ["silu", "softmax", "sink"])
@pytest.mark.parametrize("switches", [{}, {"norm": False, "gate": False, "divisor": 3}])
def test_it_is_what_a_loop_computes(kind, switches):
    made = layer(kind=kind, d_qk=3, d_v=5, time=True, **switches)
    x, times = torch.randn(1, 6, 8), torch.randint(0, 10_000, (1, 6)).sort()[0]
    asked = times + 50
    got = run(made, x, times=(asked, times))[0]
    normed = (x[0] - x[0].mean(1, keepdim=True)) / (x[0].var(1, False, True) + 1e-6).sqrt()
    parts = normed @ made.uvqk
    parts = parts * parts.sigmoid()
    u, v, q, k = parts.split([10 if made.sizes[0] else 0, 10, 6, 6], 1)
    for i in range(6):
        heads = []
        for h in range(2):
            scores = []
            for j in range(i + 1):
                gap = max(abs(int(asked[0, i] - times[0, j])), 1)
                r = made.position[j - i + 5] + made.time[int(math.log(gap) / 0.301)]
                dot = q[i, 3 * h : 3 * h + 3] @ k[j, 3 * h : 3 * h + 3]
                scores.append((dot if kind == "silu" else dot / 3**0.5) + r)
            s = torch.stack(scores)
            if kind == "silu":
                a = s * s.sigmoid() / switches.get("divisor", 6)
            else:
                extra = made.sink[h].exp() if kind == "sink" else 0.0
                a = s.exp() / (s.exp().sum() + extra)
            heads.append(sum(a[j] * v[j, 5 * h : 5 * h + 5] for j in range(i + 1)))
        y = torch.cat(heads)
        if made.norm:
            y = (y - y.mean()) / (y.var(correction=0) + 1e-6).sqrt()
        y = y * u[i] if made.sizes[0] else y
        want = x[0, i] + made.out.weight @ y + made.out.bias
        assert torch.allclose(got[i], want, atol=1e-4)


@given(seed=st.integers(0, 1000), at=st.integers(1, 5), kind=st.sampled_from(["silu", "softmax"]))
@settings(max_examples=20, deadline=None)
def test_causality(seed, at, kind):
    made, x = layer(seed, kind=kind), torch.randn(2, 6, 8)
    other = x.clone()
    other[:, at] += 1.0
    before, after = run(made, x), run(made, other)
    assert torch.equal(before[:, :at], after[:, :at])
    assert not torch.allclose(before[:, at], after[:, at])


@pytest.mark.parametrize("kind", ["silu", "softmax", "sink"])
def test_padded_keys_and_their_content_do_not_count(kind):
    made, x = layer(kind=kind), torch.randn(1, 6, 8)
    there = torch.tensor([[False, False, True, True, True, True]])
    mask = causal_mask(6) & there[:, None]
    other = x.clone()
    other[:, :2] = 9.0
    assert torch.equal(run(made, x, mask)[:, 2:], run(made, other, mask)[:, 2:])
    assert torch.allclose(run(made, x, mask)[:, 2:], run(made, x[:, 2:]), atol=1e-5)


def test_zero_output_weights_make_the_identity():
    made, x = layer(), torch.randn(2, 6, 8)
    torch.nn.init.zeros_(made.out.weight)
    torch.nn.init.zeros_(made.out.bias)
    assert torch.equal(run(made, x), x)


def summed(copies: int, kind: str, norm: bool) -> torch.Tensor:
    """A query's aggregated values over ``copies`` of one key, without its own."""
    made = layer(kind=kind, norm=norm, gate=False, position=False)
    x = torch.cat([torch.ones(1, copies, 8).cumsum(2), torch.ones(1, 1, 8).cumsum(2).flip(2)], 1)
    mask = torch.ones(1, 1, copies + 1, dtype=torch.bool)
    mask[..., -1] = False
    return run(made, x, mask)[0, 0] - x[0, -1] - made.out.bias


@pytest.mark.parametrize(
    ("kind", "norm", "factor"),
    [("silu", False, 2), ("silu", True, 1), ("softmax", False, 1), ("softmax", True, 1)],
)
def test_only_a_sum_without_norm_doubles_with_its_tokens(kind, norm, factor):
    once, twice = summed(2, kind, norm), summed(4, kind, norm)
    assert torch.allclose(twice, factor * once, atol=1e-3) and once.norm() > 0.1


def reader(**options) -> TargetReader:
    torch.manual_seed(1)
    layers = [HSTULayer(8, 2, 7, **options) for _ in range(2)]
    made = TargetReader(12, 8, layers, own=options.get("kind") != "softmax")
    for p in made.layers.parameters():
        torch.nn.init.normal_(p, 0, 0.5)
    return made


@pytest.mark.parametrize("kind", ["silu", "softmax", "sink"])
def test_m_falcon_equals_single_passes(kind):
    made = reader(kind=kind)
    history = torch.tensor([[0, 0, 3, 4, 3, 5], [1, 2, 3, 4, 5, 6]])
    candidates = torch.arange(1, 11).expand(2, -1)
    single = torch.cat([made(history, candidates[:, k : k + 1]) for k in range(10)], 1)
    assert single.std() > 0.05
    assert torch.allclose(made(history, candidates), single, atol=1e-5)
    for at_once in (1, 4, 10):
        assert torch.allclose(made.in_microbatches(history, candidates, at_once), single, atol=1e-5)


def test_loss_by_hand():
    states, table = torch.eye(3)[None, :1], torch.eye(3)
    target, none = torch.tensor([[0]]), torch.zeros(1, 0, dtype=torch.long)
    with_target = F.pad(table, (0, 0, 1, 0))  # row 0 is padding
    assert sampled_softmax(states, with_target, target + 1, none).item() == 0.0
    orthogonal = torch.tensor([[2, 3, 2]])
    want = math.log(1 + 3 * math.exp(-20))
    double = (states.double(), with_target.double())
    assert sampled_softmax(*double, target + 1, orthogonal).item() == pytest.approx(want, rel=1e-9)


def test_collisions_and_missing_targets_are_left_out():
    torch.manual_seed(0)
    states, table = torch.randn(2, 3, 4), torch.randn(9, 4)
    target = torch.tensor([[0, 5, 2], [0, 0, 7]])
    drawn = torch.tensor([[5, 3, 2], [7, 7, 7]])
    cosine = F.normalize(states, dim=2) @ F.normalize(table, dim=1).T / 0.05
    terms = []
    for b, t in ((0, 1), (0, 2), (1, 2)):
        own = cosine[b, t, target[b, t]]
        others = [cosine[b, t, i] for i in drawn[b] if i != target[b, t]]
        terms.append(torch.stack([own, *others]).logsumexp(0) - own)
    got = sampled_softmax(states, table, target, drawn)
    assert got.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)


def test_stochastic_length():
    assert abs(4096**0.8 - 776.05) < 0.01
    assert abs(4096**-0.4 - 0.0359) < 1e-4
    assert 1 - mean_length(4096, 4096, 1.6) / 4096 == pytest.approx(0.781, abs=1e-3)
    assert mean_length(700, 4096, 1.6) == 700 and mean_length(4096, 4096, 2) == 4096


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kind": "linear"}, "kind must be one of silu, softmax, sink, not 'linear'"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"divisor": 0}, "divisor must be at least 1, got 0"),
    ],
)
def test_bad_arguments(wrong, words):
    with pytest.raises(ValueError, match=words):
        HSTULayer(**{"dim": 8, "heads": 2, "length": 6} | wrong)
    with pytest.raises(ValueError, match=r"alpha must be in \(1, 2\]"):
        mean_length(5, 9, 1)
