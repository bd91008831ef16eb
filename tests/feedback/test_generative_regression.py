"""GR: worked numbers, a slow second version of each step, the identities of two passes, refusals."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import data, loop
from paperlab.feedback import generative_regression as gr
from paperlab.feedback.amount_contenders import contenders
from paperlab.feedback.decoder_layer import DecoderLayer
from paperlab.feedback.worlds.watch_time import watch_time

SCHEMA = data.Schema((data.Field("user", size=7), data.Field("item", size=5)), labels=("seconds",))
VALUES = (20, 8, 5, 1)


def model(seed=0, **options):
    torch.manual_seed(seed)
    return gr.GenerativeRegression(
        SCHEMA, VALUES, **{"longest": 8, "dropout": 0.0, **options}
    ).eval()


def batch(rows=12, seed=0):
    draw = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randint(n, (rows,), generator=draw) for n in (7, 5)], 1).int()
    amounts = torch.randint(60, (rows, 1), generator=draw) / 10
    return data.Batch(ids, torch.zeros(rows, 0), amounts)


def amounts_of(tokens, values=VALUES):
    worth = torch.tensor([0, 0, 0, *values])
    return worth[tokens].sum(1)


# 1, 2: vocabulary and labels ----------------------------------------------------------------------


def test_worked_sequence():
    assert gr.tokens_of(torch.tensor([37, 0]), VALUES).tolist() == [
        [3, 4, 4, 6, 2],
        [2, 0, 0, 0, 0],
    ]


def slow_tokens(y, values):
    row = []
    for k, v in enumerate(values):
        while y >= v:
            y, row = y - v, [*row, k + 3]
    return [*row, 2]


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    st.sets(st.integers(2, 60), max_size=6), st.lists(st.integers(0, 300), min_size=1, max_size=9)
)
def test_every_amount_has_the_greedy_falling_sequence(more, amounts):
    values = sorted({1, *more}, reverse=True)
    tokens = gr.tokens_of(torch.tensor(amounts), values)
    assert amounts_of(tokens, values).tolist() == amounts
    for row, y in zip(tokens.tolist(), amounts, strict=True):
        kept = [t for t in row if t]
        assert kept == slow_tokens(y, values) and row == kept + [0] * (len(row) - len(kept))
        assert kept[:-1] == sorted(kept[:-1])  # tokens are ordered by falling values


def test_worked_vocabulary():
    """The released code gives 19, 7, 4, 2, and no sequence for 3."""
    y = np.array([3, 5, 8, 20])
    values = gr.vocabulary(y)
    assert values[0] == 19 and values[-1] == 1 and values == tuple(sorted({*values}, reverse=True))
    assert amounts_of(gr.tokens_of(torch.from_numpy(y), values), values).tolist() == y.tolist()


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(0, 999), st.floats(0.5, 0.9999), st.floats(0.3, 0.999))
def test_vocabulary_falls_to_one_within_the_amounts(seed, end, decay):
    y = np.random.default_rng(seed).lognormal(3, 1.2, 200).astype(int) + 1
    values = gr.vocabulary(y, end=end, decay=decay)
    assert values[-1] == 1 and values[0] <= y.max()
    assert all(a > b for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("y", [[], [0, 0], [-1, 2], [0.5, 2]])
def test_amounts_that_give_no_vocabulary_are_refused(y):
    with pytest.raises(ValueError, match="whole numbers of at least 0"):
        gr.vocabulary(np.array(y))


# 5: value -------------------------------------------------------------------------------------------

WORTH = torch.tensor([0.0, 0.0, 0.0, 20.0, 8.0, 5.0, 1.0])


def test_one_hot_reads_its_value_in_every_way():
    p = torch.eye(7)
    for how in gr.READS:
        for window in (1, 4, 20):
            assert gr.read(p, WORTH, window, how).tolist() == WORTH.tolist()


def test_wide_window_is_the_expectation_and_uniform_reads_its_share():
    p = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)).softmax(-1)
    torch.testing.assert_close(gr.read(p, WORTH, 20), p @ WORTH)
    p = torch.full((7,), 1 / 7)
    p[4] += 1e-6  # the likeliest token is the 8
    assert gr.read(p, WORTH, 2).item() == pytest.approx((20 + 8 + 5) / 7, abs=1e-4)
    assert gr.read(p, WORTH, 2, "renormalised").item() == pytest.approx(11, abs=1e-4)
    assert gr.read(p, WORTH, 2, "token").item() == 8


def test_window_reads_eos_beside_the_largest_values():
    p = torch.tensor([0.0, 0.0, 0.6, 0.4, 0.0, 0.0, 0.0])
    assert gr.read(p, WORTH, 2).item() == pytest.approx(8)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 99))
def test_read_is_what_a_loop_computes(size, window, seed):
    draw = torch.Generator().manual_seed(seed)
    p = torch.rand(size, generator=draw, dtype=torch.float64)
    worth = torch.rand(size, generator=draw, dtype=torch.float64)
    p /= p.sum()
    best = max(range(size), key=lambda j: p[j].item())
    near = [j for j in range(size) if best - window // 2 <= j <= best + window // 2]
    total = sum(p[j].item() * worth[j].item() for j in near)
    assert gr.read(p, worth, window).item() == pytest.approx(total)
    share = sum(p[j].item() for j in near)
    assert gr.read(p, worth, window, "renormalised").item() == pytest.approx(total / share)


# 3, 4: decoder and passes ---------------------------------------------------------------------------


def test_first_input_is_gold_and_one_hot_mixup_is_the_hard_token():
    draw = torch.Generator().manual_seed(0)
    gold, table = torch.randn(2, 4, 3, generator=draw), torch.randn(7, 3, generator=draw)
    token = torch.randint(7, (2, 4), generator=draw)
    logits = 1e4 * torch.nn.functional.one_hot(token, 7).float()
    never = torch.zeros(4, dtype=torch.bool)
    mixed, hard = (gr.mixed_inputs(gold, logits, table, never, t) for t in ("mixup", "hard"))
    torch.testing.assert_close(mixed, hard)
    torch.testing.assert_close(mixed[:, 0], gold[:, 0])
    torch.testing.assert_close(mixed[:, 1:], table[token[:, :-1]])
    torch.testing.assert_close(gr.mixed_inputs(gold, logits, table, ~never), gold)


def test_rho_one_is_teacher_forcing_and_mixup_passes_gradients_that_hard_tokens_stop():
    rows, memory = batch(), None
    for teacher in gr.TEACHERS:
        net = model(teacher=teacher)
        memory = net.encode(rows)
        gold = net.targets(rows)
        one = net.forced(memory, gold)
        x = net.tokens(torch.cat([torch.ones_like(gold[:, :1]), gold[:, :-1]], 1))
        torch.testing.assert_close(one, net.decode(x, memory))
        if teacher != "gold":
            assert not torch.allclose(net.forced(memory, gold, 0.0)[:, 2:], one[:, 2:], atol=1e-3)
        torch.testing.assert_close(net.forced(memory, gold, 0.0)[:, 0], one[:, 0])
    draw = torch.Generator().manual_seed(0)
    for teacher, passes in (("mixup", True), ("hard", False)):
        logits = torch.randn(2, 4, 7, generator=draw, requires_grad=True)
        never = torch.zeros(4, dtype=torch.bool)
        gold, table = torch.zeros(2, 4, 3), torch.randn(7, 3, generator=draw, requires_grad=True)
        gr.mixed_inputs(gold, logits, table, never, teacher).sum().backward()
        assert (logits.grad is not None) == passes


def test_positions_do_not_see_later_ones():
    net, rows = model(layers=2), batch()
    memory, gold = net.encode(rows), net.targets(rows)
    other = gold.clone()
    other[:, 2:] = 5
    for rho in (1.0, 0.0):
        a, b = net.forced(memory, gold, rho), net.forced(memory, other, rho)
        torch.testing.assert_close(a[:, :3], b[:, :3])


def test_attention_to_one_memory_vector_is_a_linear_map():
    torch.manual_seed(0)
    layer = DecoderLayer(8, 6, heads=2, dropout=0.0)
    cross = torch.nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True)
    x, memory = torch.randn(3, 5, 8), torch.randn(3, 6)
    seen, weights = cross(x, memory[:, None], memory[:, None])
    assert (weights == 1).all()
    w_out, w_value = cross.out_proj.weight, cross.v_proj_weight
    layer.memory.weight.data = w_out @ w_value
    layer.memory.bias.data = w_out @ cross.in_proj_bias[16:] + cross.out_proj.bias
    torch.testing.assert_close(layer.memory(memory)[:, None].expand(-1, 5, -1), seen)
    out, _ = layer(x, memory)
    attended = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    attended.in_proj_weight.data, attended.in_proj_bias.data = (
        layer.qkv.weight.data,
        layer.qkv.bias.data,
    )
    attended.out_proj.load_state_dict(layer.out.state_dict())
    later = torch.ones(5, 5).triu(1).bool()
    h = layer.norms[0](x + attended(x, x, x, attn_mask=later, need_weights=False)[0])
    h = layer.norms[1](h + seen)
    torch.testing.assert_close(out, layer.norms[2](h + layer.feed(h)))


@pytest.mark.parametrize("soft", [True, False])
def test_free_running_is_the_whole_prefix_again_at_every_position(soft):
    net, rows = model(layers=2, longest=5), batch()
    memory = net.encode(rows)
    p, running, tokens = net.run_free(memory, soft)
    x = net.tokens(torch.ones(12, 1, dtype=torch.long))
    for i in range(p.shape[1]):
        now = net.decode(x, memory)[:, -1].softmax(-1)
        torch.testing.assert_close(now, p[:, i], atol=1e-5, rtol=1e-4)
        assert (now.argmax(-1) == tokens[:, i]).all()
        fed = now @ net.tokens.weight if soft else net.tokens(tokens[:, i])
        x = torch.cat([x, fed[:, None]], 1)
    for row, there in zip(tokens.tolist(), running.tolist(), strict=True):
        stop = row.index(2) if 2 in row else len(row)
        assert there == [i <= stop for i in range(len(row))]


def test_after_eos_nothing_counts():
    net, rows = model(), batch()
    torch.nn.init.zeros_(net.logits.weight)
    net.logits.bias.data = torch.tensor([-99.0, -99, 50, 0, 0, 0, 0])
    assert net(rows).abs().max() < 1e-6
    assert (net.sample(log_of(rows), 3) == 0).all()


def log_of(rows):
    return data.store.Split(rows.ids, rows.labels, 0)


def test_samples_follow_the_distribution_of_the_first_token():
    net, rows = model(longest=1), batch()
    net.logits.bias.data = torch.tensor([-99.0, -99, 1, 2, 1, 0, 0])
    p, _, _ = net.run_free(net.encode(rows), False)
    drawn = net.sample(log_of(rows), 4000)
    assert drawn.shape == (12, 4000)
    expected = p[:, 0] @ net.seconds
    torch.testing.assert_close(drawn.mean(1), expected, atol=0.06, rtol=0)
    assert (net.sample(log_of(rows), 5, seed=1) == net.sample(log_of(rows), 5, seed=1)).all()


# 6: loss and training -------------------------------------------------------------------------------


def test_loss_is_the_sum_over_positions_that_a_loop_computes():
    net, rows = model(huber=0.1), batch()
    logits = net.forced(net.encode(rows), net.targets(rows)).log_softmax(-1)
    total = 0.0
    for i, y in enumerate((rows.labels[:, 0] * 10).round().int().tolist()):
        row, value = slow_tokens(y, VALUES), 0.0
        for t, token in enumerate(row):
            total -= logits[i, t, token].item()
            value += gr.read(logits[i, t].exp(), net.seconds).item()
        off = abs(value - y / 10)
        total += 0.1 * (0.5 * off**2 if off < 1 else off - 0.5)
    assert net.loss(rows).item() == pytest.approx(total / 12, rel=1e-4)


def test_every_weight_gets_a_gradient():
    for teacher in gr.TEACHERS:
        net = model(teacher=teacher)
        net.loss(batch(64), rho=0.5).backward()
        assert not [n for n, p in net.named_parameters() if p.grad is None]


def test_rho_falls_to_zero_and_training_beats_the_constant():
    log = watch_time(1_500, test=500)
    torch.manual_seed(0)
    net = contenders(log, dropout=0.0)["GR"](log.schema, 8)
    seen = []
    step = net.loss
    net.loss = lambda rows, rho=1.0: seen.append(rho) or step(rows, rho)
    done = loop.fit(net, log, epochs=6, batch_size=128, precision="32-true", accelerator="cpu")
    assert seen[0] == 1 and seen[-1] == 0 and all(a >= b for a, b in itertools.pairwise(seen))
    assert sum(r > 0 for r in seen) == pytest.approx(0.8 * len(seen), abs=1)
    y = log.test.labels[:, 0]
    constant = (y - log.train.labels[:, 0].median()).abs().mean().item()
    assert done.test["mae"] < 0.95 * constant and done.test["xauc"] > 0.55


def test_contenders_have_one_encoder_and_reach_one_size():
    from paperlab.nn.budget import width_for

    log = watch_time(1_500, test=500)
    build = contenders(log)
    target = build["GR"](log.schema, 8).count_parameters()
    for make in build.values():
        width = width_for(lambda w, make=make: make(log.schema, w), target["dense"])
        size = make(log.schema, width).count_parameters()
        assert abs(size["dense"] / target["dense"] - 1) < 0.05
        assert size["embedding"] == target["embedding"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"longest": 0},
        {"teacher": "none"},
        {"curriculum": 0.0},
        {"huber": -1.0},
        {"tick": 0.0},
        {"window": 0},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        model(**wrong)


@pytest.mark.parametrize("values", [(), (5, 8, 1), (8, 5), (8, 8, 1)])
def test_a_vocabulary_must_fall_to_one(values):
    with pytest.raises(ValueError, match="fall and end in 1"):
        gr.GenerativeRegression(SCHEMA, values)
