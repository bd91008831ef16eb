"""Next-item models: ranks by a loop, what training sees, equal sizes, learning on a repeating stream."""

import math
from dataclasses import replace

import pytest
import torch
from paperlab import loop
from paperlab.ctr.baselines.sasrec import SASRecLayer
from paperlab.ctr.hstu import HSTULayer
from paperlab.ctr.next_item import NextItem, SequenceParts, Sequences, hit, ndcg, ranks
from paperlab.data.in_order import InOrder
from paperlab.nn.transformer import causal_mask

FIT = {"precision": "32-true", "accelerator": "cpu"}


def model(kind: str = "silu", vocabulary: int = 9, **options) -> NextItem:
    torch.manual_seed(0)
    return NextItem(vocabulary, 5, 8, [HSTULayer(8, 2, 5, kind=kind, time=True)], **options)


def sequences(rows: int = 4) -> Sequences:
    draw = torch.Generator().manual_seed(0)
    items = torch.randint(1, 9, (rows, 6), generator=draw)
    items[0, :2] = 0
    times = torch.randint(0, 99_999, (rows, 6), generator=draw).sort(1)[0]
    return Sequences(items[:, :-1], items[:, 1:] * (items[:, :-1] > 0), times[:, :-1], times[:, 1:])


def test_ranks_and_their_metrics():
    scores = torch.tensor([[0.5, 0.1, 0.9, 0.5], [0.0, 3.0, 2.0, 1.0]])
    assert ranks(scores, torch.tensor([0, 1])).tolist() == [2, 0]  # a tie counts against the target
    found = torch.tensor([0, 2, 9, 10])
    assert hit(found).tolist() == [1, 1, 1, 0]
    assert ndcg(found).tolist() == pytest.approx([1, 0.5, 1 / math.log2(11), 0])


def test_ranks_of_a_model_by_a_loop():
    made, part = model().eval(), sequences()
    met = torch.zeros(4, 9, dtype=torch.bool)
    met[:, [0, 3, 4]] = True
    for chosen in (part, replace(part, met=met)):
        got, states, want = made.ranks(chosen, rows=3), made(part), []
        for b, t in chosen.target.nonzero().tolist():
            own = chosen.target[b, t].item()
            left = [i for i in range(1, 9) if i == own or chosen.met is None or not met[b, i]]
            score = {
                i: torch.cosine_similarity(states[b, t], made.items.weight[i], 0) for i in left
            }
            want.append(sum(s >= score[own] for s in score.values()).item() - 1)
        assert got.tolist() == want


def test_padding_does_not_count():
    made, part = model().eval(), sequences()
    last = made(part)[0, -1]
    changed = replace(part, times=part.times.clone())
    changed.times[0, :2] = 0
    assert torch.equal(made(changed)[0, -1], last)
    made.items.weight.data[0] = 7.0
    assert torch.equal(made(part)[0, -1], last)


def test_request_time_is_the_target_s():
    part = sequences()
    later = replace(part, asked=part.asked + 10**6)
    for request_time in (True, False):
        made = model(request_time=request_time).eval()
        torch.nn.init.normal_(made.layers[0].time)
        assert torch.equal(made(part), made(later)) is not request_time


def test_sasrec_by_a_loop():
    torch.manual_seed(0)
    made, x = SASRecLayer(8, 2, inner=12, hidden=4), torch.randn(1, 4, 8)
    got, _ = made(x, causal_mask(4)[None], torch.arange(4))
    q, k, v = made.qkv(made.norms[0](x[0])).split(12, 1)
    for i in range(4):
        mixed = []
        for h in (slice(0, 6), slice(6, 12)):
            a = (q[i, h] @ k[: i + 1, h].T / 6**0.5).softmax(0)
            mixed.append(a @ v[: i + 1, h])
        y = x[0, i] + made.out(torch.cat(mixed))
        assert torch.allclose(got[0, i], y + made.feed(made.norms[1](y)), atol=1e-5)


def test_equal_sizes():
    """All three layers have 5 dim^2 weights in their matrices."""
    layers = [
        HSTULayer(16, 2, 9),
        SASRecLayer(16, 2, hidden=8),
        SASRecLayer(16, 2, inner=20),
    ]
    assert {sum(p.numel() for p in m.parameters() if p.ndim > 1) for m in layers} == {5 * 16**2}


@pytest.mark.parametrize("kind", ["silu", "softmax"])
def test_it_learns_what_follows(kind):
    """Item i + 1 follows item i; three batches in the order of the stream."""
    start = torch.randint(0, 8, (64, 1), generator=torch.Generator().manual_seed(1))
    items = (start + torch.arange(6)) % 8 + 1
    part = Sequences(items[:, :-1], items[:, 1:])
    data = SequenceParts("circle", 9, part, part, part, ordered=True)
    made = NextItem(9, 5, 8, [HSTULayer(8, 2, 5, kind=kind)], negatives=8, lr=0.02)
    before = made.ranks(part).float().mean()
    done = loop.fit(made, data, epochs=40, batch_size=32, **FIT)
    assert done.steps == 80 and before > 2 and made.ranks(part).float().mean() < 0.2
    assert done.parameters["embedding"] == 72


def test_in_order():
    feed = InOrder(sequences(5), 2)
    assert [len(b) for b in feed] == [2, 2, 1]
    feed.load_state_dict({"epoch": 3, "start": 2})
    assert [len(b) for b in feed] == [1] and len(feed) == 3
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        InOrder(sequences(5), 0)


def test_data_of_another_shape_are_refused():
    part = sequences()
    data = SequenceParts("other", 12, part, part, part)
    with pytest.raises(ValueError, match="vocabulary must be at least 12, as of other"):
        loop.fit(model(), data, **FIT)
    short = replace(data, vocabulary=9, train=part.take(slice(None)))
    short = replace(short, train=Sequences(part.items[:, 1:], part.target[:, 1:]))
    with pytest.raises(ValueError, match="length must be 4, as of other, not 5"):
        loop.fit(model(), short, **FIT)
    with pytest.raises(ValueError, match="negatives must be at least 1, got 0"):
        model(negatives=0)
