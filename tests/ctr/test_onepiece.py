"""OnePiece: worked numbers, identities of its masks and steps, and a slow version of them."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import loop
from paperlab.ctr import onepiece
from paperlab.ctr.onepiece import OnePiece, Reasoner
from paperlab.ctr.worlds.groups import Groups, groups
from paperlab.nn.transformer import block_causal_mask
from torch import Tensor


def some(rows: int = 3, anchors: int = 2, candidates: int = 5, seed: int = 0) -> Groups:
    """Requests of random features, 3 tasks."""
    draw = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(rows, *shape, generator=draw)  # noqa: E731
    labels = (normal(candidates, 3) > 0).float()
    return Groups(
        normal(4, 6), normal(anchors, 3, 6), normal(2, 5), normal(candidates, 6), labels, labels
    )


def random_weights(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights that differ from the initial zeros and ones."""
    torch.manual_seed(seed)
    for p in model.parameters():
        torch.nn.init.normal_(p, 0, 0.4)
    return model.eval()


def slow_states(reasoner: Reasoner, x: Tensor, block: int) -> list[Tensor]:
    """Every step from all tokens anew, by one block-causal mask, without a cache."""
    n, states = x.shape[1] - block, [None]
    for k in range(reasoner.steps + 1):
        number = [0] * (n + block) + [j for j in range(1, k + 1) for _ in range(block)]
        mask = block_causal_mask(torch.tensor(number))
        if not reasoner.see:
            own = torch.cat([torch.full((n,), -1), torch.arange(block).repeat(k + 1)])
            mask = mask & ((own == -1)[None, :] | (own[None, :] == own[:, None]))
        y = x
        for layer in reasoner.layers:
            y, _ = layer(y, torch.zeros(1, y.shape[1], dtype=torch.long), mask[None])
        states[-1] = y[:, -block:]
        if k < reasoner.steps:
            x = torch.cat([x, states[-1] + reasoner.place[k]], 1)
            states.append(None)
    return states


# worked numbers --------------------------------------------------------------------------------


def test_attention_pairs_of_the_sheet():
    extra = onepiece.attention_pairs(100, 12, 3) - onepiece.attention_pairs(100, 12)
    assert extra == 12 * 112 + 12 * 124 + 12 * 136 == 4464
    assert onepiece.attention_pairs(100, 12) == 10_000
    assert onepiece.attention_pairs(22, 12, 1) == 484 + 12 * 34
    assert onepiece.attention_pairs(22, 12, layers=3) == 3 * 484


def test_losses_by_hand():
    scores, labels = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]])
    # the positive has 1 / 4 of the softmax; with temperature 1/2 it has 1 / 10
    assert onepiece.set_contrastive(scores, labels, 1.0).item() == pytest.approx(math.log(4))
    assert onepiece.set_contrastive(scores, labels, 0.5).item() == pytest.approx(math.log(10))
    bce = (math.log(2) + math.log(4)) / 2
    assert onepiece.ranking_loss(scores, labels, None).item() == pytest.approx(bce)
    assert onepiece.ranking_loss(scores, labels, 1.0).item() == pytest.approx(bce + math.log(4))


def test_retrieval_losses_by_hand():
    users = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    items = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 1.0]]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # user 0: positive 1, negative 0; user 1: positive 1, negative 0
    one = math.log(1 + math.exp(-1))
    assert onepiece.user_to_item(users, items, labels, 1.0).item() == pytest.approx(one)
    # item (1, 0) with users: 1 and 0; item (0, 1) with users 0 and 1
    assert onepiece.item_to_user(users, items, labels, 1.0).item() == pytest.approx(one)
    bce = (2 * one + 2 * math.log(2)) / 4
    total = onepiece.retrieval_loss(users, items, labels, 1.0)
    assert total.item() == pytest.approx(bce + 2 * one)


def test_losses_that_are_zero():
    alone, y = torch.tensor([[3.0], [-2.0]]), torch.ones(2, 1)
    assert onepiece.set_contrastive(alone, y, 0.1).item() == 0
    assert onepiece.set_contrastive(alone, 0 * y, 0.1).item() == 0
    users, items = torch.randn(1, 4), torch.randn(1, 3, 4)
    ones = torch.ones(1, 3)
    assert onepiece.item_to_user(users, items, ones, 0.1).abs().item() < 1e-6
    assert onepiece.user_to_item(users, items, ones, 0.1).item() == 0  # no negatives


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.05, 5), st.floats(-20, 20))
def test_set_contrastive_ignores_the_level_of_a_group(seed, temperature, level):
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(4, 6, generator=draw).double()
    labels = (torch.rand(4, 6, generator=draw) < 0.4).double()
    level = level * torch.randn(4, 1, generator=draw).double()
    one, two = (onepiece.set_contrastive(s, labels, temperature) for s in (scores, scores + level))
    assert torch.allclose(one, two, atol=1e-8)
    loop_sum, positives = 0.0, 0
    for s, y in zip(scores.tolist(), labels.tolist(), strict=True):
        for i in range(6):
            if y[i]:
                positives += 1
                loop_sum -= math.log(1 / sum(math.exp((v - s[i]) / temperature) for v in s))
    assert one.item() == pytest.approx(loop_sum / max(positives, 1), rel=1e-6, abs=1e-9)


# masks and steps -------------------------------------------------------------------------------


def test_masks_by_hand():
    assert onepiece.base_mask(2, 3, see=True).all()
    hidden = onepiece.base_mask(1, 2, see=False)
    assert hidden.int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
    step = onepiece.step_mask(1, 2, 2, see=False)
    assert step.int().tolist() == [[1, 1, 0, 1, 0], [1, 0, 1, 0, 1]]
    assert onepiece.step_mask(1, 2, 3, see=True).shape == (2, 7)


@pytest.mark.parametrize("see", [True, False])
@pytest.mark.parametrize("layers, block", [(1, 4), (2, 4), (2, 2)])
def test_cached_steps_equal_full_recomputation(see, layers, block):
    reasoner = random_weights(Reasoner(8, 2, layers, 3, see=see))
    x = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(1))
    fast, slow = reasoner(x, block), slow_states(reasoner, x, block)
    assert len(fast) == len(slow) == 4
    for a, b in zip(fast, slow, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert (fast[1] - fast[2]).abs().max() > 1e-3


def test_base_outputs_do_not_depend_on_the_steps():
    reasoner, none = Reasoner(8, 2, 2, 2), Reasoner(8, 2, 2, 0)
    random_weights(reasoner)
    none.load_state_dict(reasoner.state_dict() | {"place": torch.empty(0, 8)})
    x = torch.randn(2, 7, 8)
    states = reasoner(x, 3)
    assert torch.equal(states[0], none(x, 3)[0])
    reasoner.place.data += 1
    assert torch.equal(states[0], reasoner(x, 3)[0])
    assert not torch.allclose(states[1], reasoner(x, 3)[1])


def test_plain_loop_runs_the_backbone_without_earlier_blocks():
    reasoner = random_weights(Reasoner(8, 2, 1, 2, plain=True))
    x = torch.randn(2, 6, 8)
    states, (layer,) = reasoner(x, 3), reasoner.layers
    at = torch.zeros(1, 9, dtype=torch.long)
    for before, after in pairwise(states):
        mask = torch.ones(1, 9, 9, dtype=torch.bool)
        y, _ = layer(torch.cat([x, before], 1), at, mask)
        assert torch.allclose(after, y[:, -3:], atol=1e-5)


def test_without_steps_it_is_the_encoder_and_a_head():
    batch = some()
    model = random_weights(OnePiece(batch, 8, heads=2, layers=2, at=(0,)))
    x = model.tokens(batch)
    assert x.shape == (3, 4 + 2 * (3 + 2) + 2 + 5, 8)
    at, mask = torch.zeros(1, x.shape[1], dtype=torch.long), torch.ones(1, *[x.shape[1]] * 2).bool()
    for layer in model.reasoner.layers:
        x, _ = layer(x, at, mask)
    assert torch.allclose(model(batch), model.heads[0](x[:, -5:]), atol=1e-5)


@pytest.mark.parametrize("at", [(0,), (1, 2, 3), (2, 2)])
@pytest.mark.parametrize("see", [True, False])
def test_candidates_have_no_positions(at, see):
    batch = some()
    model = random_weights(OnePiece(batch, 8, heads=2, layers=2, at=at, see=see))
    order = torch.tensor([3, 0, 4, 2, 1])
    moved = replace(batch, candidates=batch.candidates[:, order])
    assert torch.allclose(model(moved), model(batch)[:, order], atol=1e-5)


@pytest.mark.parametrize("at", [(0,), (1, 2)])
def test_only_visible_candidates_change_each_other(at):
    batch = some()
    other = batch.candidates.clone()
    other[:, 1:] += 1.0
    for see in (True, False):
        model = random_weights(OnePiece(batch, 8, heads=2, layers=2, at=at, see=see))
        same = torch.allclose(
            model(batch)[:, 0], model(replace(batch, candidates=other))[:, 0], atol=1e-5
        )
        assert same is not see


def test_each_task_is_read_from_its_step():
    batch = some()
    model = random_weights(OnePiece(batch, 8, heads=2, at=(1, 2, 3)))
    states = model.reasoner(model.tokens(batch), 5)
    for task, step in enumerate((1, 2, 3)):
        assert torch.equal(model(batch)[..., task], model.heads[task](states[step]).squeeze(2))
    model.losses(batch)[0].backward()  # the click's loss: steps 2 and 3 get no gradient
    assert model.reasoner.place.grad[0].abs().sum() > 0
    assert model.reasoner.place.grad[1:].abs().sum() == 0


def test_gradient_cosine_of_equal_and_of_opposite_tasks():
    batch = some()
    same = replace(batch, labels=batch.labels[..., :1].expand(-1, -1, 2))
    model = random_weights(OnePiece(same, 8, heads=2, at=(1, 1), temperature=None))
    model.heads[1].load_state_dict(model.heads[0].state_dict())
    assert torch.allclose(onepiece.gradient_cosine(model, same), torch.ones(2, 2), atol=1e-5)
    last = model.heads[1][-1]
    last.weight.data, last.bias.data = -last.weight.data, -last.bias.data
    turned = torch.cat([same.labels[..., :1], 1 - same.labels[..., :1]], 2)
    found = onepiece.gradient_cosine(model, replace(same, labels=turned))
    assert torch.allclose(found, torch.ones(2, 2), atol=1e-5)  # -s for 1 - y: the same loss
    half = replace(same, labels=torch.cat([same.labels[..., :1], 0 * turned[..., :1]], 2))
    assert onepiece.gradient_cosine(model, half)[0, 1] < 0.999


def test_training_learns_what_only_the_group_tells():
    world = groups("sub", 800, test=300, seed=3)
    torch.manual_seed(0)
    model = OnePiece(world.train, 16, heads=2, layers=1, temperature=None, lr=1e-2)
    options = {"epochs": 2, "batch_size": 64, "precision": "32-true", "accelerator": "cpu"}
    found = loop.fit(model, world, **options).test
    assert set(found) == {"click pooled", "click within"}
    assert found["click within"] > 0.75


# bad arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"at": (1, 2, 3, 4)}, "at must name at most 3 tasks, got 4"),
        ({"at": (-1,)}, "at must be at least 0"),
        ({"at": ()}, "tasks must be at least 1"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"heads": 3}, "dim must be a multiple of 3"),
    ],
)
def test_bad_arguments(wrong, says):
    with pytest.raises(ValueError, match=says):
        OnePiece(some(), 8, **({"heads": 2} | wrong))


def test_labels_other_than_0_and_1_are_refused():
    world = groups("ind", 8, test=4)
    world.train.labels[0, 0, 0] = 0.5
    with pytest.raises(ValueError, match="ind.train: labels must be 0 or 1"):
        OnePiece(world.train, 8, heads=2).check(world)
