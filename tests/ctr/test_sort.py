"""SORT: joint scoring, isolation, pruning, the window, padding, pre-training and frozen tables."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import loop
from paperlab.ctr import sort
from paperlab.ctr.sort import SORT, Generative, kept_queries, one_at_a_time, sampled_softmax
from paperlab.ctr.worlds.requests import requests
from torch.nn import functional as F

WORLD = requests("binding", 200, test=100, seed=0)
BATCH = WORLD.test.take(slice(8))
CPU = {"precision": "32-true", "accelerator": "cpu"}
VARIANTS = [
    {},
    {"window": 4, "last": 4, "layers": 2},
    {"special": False, "gate": False, "qk_norm": False},
    {"last": 0, "layers": 3, "special": False},
    {"match": False, "table": WORLD.latents, "freeze": True},
]
each = pytest.mark.parametrize("options", VARIANTS, ids=lambda o: ",".join(o) or "default")


def model(length: int = 16, **options) -> SORT:
    torch.manual_seed(0)
    made = SORT(WORLD.vocabulary, length, 16, **options).eval()
    for weight in made.parameters():
        if weight.ndim == 1:  # norms, biases
            torch.nn.init.normal_(weight, 0.5, 0.3)
    return made


def logits(made: SORT, batch):
    with torch.no_grad():
        return made(batch)


# requests ----------------------------------------------------------------------------------------


def test_tokens_by_hand():
    assert sort.token_ratio(16, 6) == 4.75  # 6 * 19 / 24
    assert sort.token_ratio(100, 1) == 1


@each
def test_a_request_equals_its_candidates_alone(options):
    made, alone = model(**options), one_at_a_time(BATCH)
    assert len(alone) == 8 * 6 and alone.labels.flatten().equal(BATCH.labels.flatten())
    assert alone.items[7].equal(BATCH.items[1])
    torch.testing.assert_close(logits(made, alone).view(8, 6), logits(made, BATCH))


@each
def test_no_candidate_changes_another_and_their_order_does_not_matter(options):
    made, before = model(**options), logits(model(**options), BATCH)
    moved = BATCH.candidates.clone()
    moved[:, 2] = moved[:, 2] % 400 + 1
    after = logits(made, replace(BATCH, candidates=moved))
    others = [0, 1, 3, 4, 5]
    torch.testing.assert_close(after[:, others], before[:, others])
    assert (after[:, 2] - before[:, 2]).abs().min() > 1e-6
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    turned = replace(BATCH, candidates=BATCH.candidates[:, order])
    torch.testing.assert_close(logits(made, turned), before[:, order])


@each
def test_left_padding_changes_nothing(options):
    made, wide = model(16, **options), model(24, **options)
    wide.load_state_dict(made.state_dict())
    padded = BATCH.with_history(F.pad(BATCH.items, (8, 0)), F.pad(BATCH.flags, (8, 0)))
    torch.testing.assert_close(logits(wide, padded), logits(made, BATCH), atol=2e-5, rtol=0)


def test_histories_of_many_lengths_share_a_batch():
    made = model(16, window=4, last=4, layers=3)
    lengths = torch.tensor([0, 1, 3, 4, 5, 9, 15, 16])
    there = torch.arange(16) >= 16 - lengths[:, None]
    mixed = logits(made, BATCH.with_history(BATCH.items * there, BATCH.flags * there))
    for row, n in enumerate(lengths.tolist()[2:], 2):
        short = model(n, window=4, last=min(n, 4), layers=3)
        one = BATCH.take(slice(row, row + 1))
        one = one.with_history(one.items[:, 16 - n :], one.flags[:, 16 - n :])
        torch.testing.assert_close(logits(short, one)[0], mixed[row], atol=2e-5, rtol=0)
    assert mixed.isfinite().all()


# windows and pruning -----------------------------------------------------------------------------


def test_a_wide_window_is_full_attention_and_a_window_of_one_is_not():
    full = logits(model(layers=2), BATCH)
    assert torch.equal(logits(model(layers=2, window=18), BATCH), full)
    assert (logits(model(layers=2, window=1), BATCH) - full).abs().max() > 1e-4


def test_one_layer_has_no_window():
    """Candidates read the events themselves, whose own reading is used a layer later."""
    full = logits(model(layers=1), BATCH)
    torch.testing.assert_close(logits(model(layers=1, window=1), BATCH), full)


def test_a_schedule_by_hand():
    assert kept_queries(torch.tensor(16), 3, 4).tolist() == [12, 8, 4]
    assert kept_queries(torch.tensor(16), 2, 16).tolist() == [16, 16]
    assert kept_queries(torch.tensor([16, 10, 3]), 2, 4).tolist() == [[10, 4], [7, 4], [3, 3]]
    assert kept_queries(torch.tensor(5), 2, None).tolist() == [5, 5]


@given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_a_schedule_falls_to_its_end_and_a_longer_history_keeps_no_less(n, layers, last):
    kept = kept_queries(torch.tensor([n, n + 1]), layers, last)
    assert kept[0, -1] == min(n, last)
    assert (kept.diff(dim=1) <= 0).all() and (kept[:, 0] <= torch.tensor([n, n + 1])).all()
    assert ((kept[1] - kept[0]) >= 0).all() and ((kept[1] - kept[0]) <= 1).all()


def test_pruning_that_keeps_all_is_none_and_pruned_events_are_read_no_more():
    full = logits(model(layers=2), BATCH)
    assert torch.equal(logits(model(layers=2, last=16), BATCH), full)
    made = model(layers=2, last=4, window=1)  # after the first layer, events 6 to 15 are left
    changed = BATCH.items.clone()
    changed[:, :4] = changed[:, :4] % 400 + 1
    inside = []
    with torch.no_grad():
        for items in (BATCH.items, changed):
            seen = []
            hook = made.blocks[1].register_forward_pre_hook(lambda _, x, s=seen: s.append(x[0]))
            made(BATCH.with_history(items, BATCH.flags))
            hook.remove()
            inside.append(seen[0])
    assert inside[0].shape[1] == 1 + 10 + 1 + 6  # BOS, events, SEP, candidates
    torch.testing.assert_close(inside[0][:, :11], inside[1][:, :11])  # what is left never read them
    assert (inside[0][:, 11:] - inside[1][:, 11:]).abs().max() > 1e-5  # SEP and candidates did


def test_a_pruned_history_is_shorter_in_each_layer():
    made, seen = model(layers=3, last=4), []
    for block in made.blocks:
        block.register_forward_hook(lambda _, __, out: seen.append(out[0].shape[1]))
    logits(made, BATCH)
    assert seen == [12 + 8, 8 + 8, 4 + 8]


# tables and training -----------------------------------------------------------------------------


def test_a_frozen_table_has_no_gradient_and_stays():
    for freeze in (True, False):
        made = model(table=WORLD.latents, freeze=freeze, lr=0.01)
        made.training_step(BATCH, 0).backward()
        assert (made.tokens.items.weight.grad is None) == freeze
        made.configure_optimizers().step()
        assert made.tokens.items.weight.equal(WORLD.latents) == freeze
    table = 401 * 8
    total = sum(p.numel() for p in made.parameters())
    assert made.count_parameters() == {"dense": total - table, "embedding": table}


def test_the_loss_is_the_cross_entropy_of_every_candidate():
    made = model()
    p, y = logits(made, BATCH).sigmoid().double(), BATCH.labels
    slow = -sum(
        math.log(p[r, n] if y[r, n] else 1 - p[r, n]) for r in range(8) for n in range(6)
    ) / (8 * 6)
    assert made.training_step(BATCH, 0).item() == pytest.approx(slow, rel=1e-5)


def test_sampled_softmax_by_hand_and_in_full():
    table = torch.tensor([[0.0], [math.log(2)], [math.log(3)]])
    state, target = torch.ones(1, 1), torch.tensor([1])
    some = sampled_softmax(state, table, target, torch.tensor([2, 1, 2]))  # 1 is the target
    assert some.item() == pytest.approx(math.log((2 + 3 + 3) / 2))
    states, rows = torch.randn(5, 4), torch.randn(7, 4)
    target = torch.tensor([1, 6, 2, 2, 3])
    whole = F.cross_entropy(states @ rows[1:].T, target - 1)
    assert torch.allclose(sampled_softmax(states, rows, target, torch.arange(1, 7)), whole)


def test_the_pre_training_model_does_not_see_the_future():
    torch.manual_seed(0)
    made = Generative(WORLD.vocabulary, 16, layers=2).eval()
    changed = BATCH.items.clone()
    changed[:, 9] = changed[:, 9] % 400 + 1
    with torch.no_grad():
        a, b = made.states(BATCH), made.states(BATCH.with_history(changed, BATCH.flags))
    assert torch.equal(a[:, :9], b[:, :9]) and not torch.allclose(a[:, 9:], b[:, 9:])


def test_pre_training_finds_the_clusters():
    world = requests("binding", 800, test=100, seed=0)
    torch.manual_seed(0)
    made = Generative(world.vocabulary, 16, lr=0.01)
    done = loop.fit(made, world, epochs=4, batch_size=16, **CPU)
    assert done.history[-1]["loss"] < done.history[0]["loss"]
    rows = F.normalize(made.tokens.items.weight.detach()[1:], dim=1)
    same = torch.arange(400)[:, None] // 20 == torch.arange(400) // 20
    near = rows @ rows.T
    assert near[same].mean() > near[~same].mean() + 0.2


def test_with_the_true_latents_it_learns_to_rank():
    world = requests("additive", 1_500, test=500, seed=0)
    torch.manual_seed(0)
    made = SORT(world.vocabulary, 16, table=world.latents, freeze=True)
    done = loop.fit(made, world, epochs=1, batch_size=24, **CPU)
    assert 0.85 < done.test["auc"] < world.bayes_auc
    assert done.parameters["embedding"] == world.latents.numel()
    again = made.evaluate(world)
    assert again == done.test


# faults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SORT(10, 8, last=9), r"last must be in \[0, 8\], got 9"),
        (lambda: SORT(10, 8, window=0), "window must be at least 1"),
        (lambda: SORT(10, 0), "length must be at least 1"),
        (lambda: SORT(10, 8, 30, heads=4), "dim must be a multiple of 8"),
        (lambda: SORT(10, 8, lr=0), "lr must be above 0"),
        (lambda: SORT(10, 8, table=torch.zeros(9, 4)), "table must have 10 rows, got 9"),
        (lambda: Generative(10, negatives=0), "negatives must be at least 1"),
        (lambda: kept_queries(torch.tensor(4), 0, None), "layers must be at least 1"),
        (lambda: model(8)(BATCH), "history must have 8 events, got 16"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_labels_that_are_not_clicks_are_refused():
    world = requests("binding", 20, test=5)
    world.train.labels[3, 1] = 0.5
    with pytest.raises(ValueError, match=r"binding.train: labels must be 0 or 1"):
        model().check(world)
