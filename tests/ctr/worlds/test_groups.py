"""The group worlds: their formulas by hand, their truth, and the AUC inside groups."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import metrics
from paperlab.ctr.worlds.groups import KINDS, click_chance, groups, regroup, within


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_click_chances_by_hand():
    a, category, intent = (
        torch.tensor([[0.5, -0.5, -1.5]]),
        torch.tensor([[4, 4, 4]]),
        torch.tensor([2]),
    )
    chance = lambda kind, c=category: click_chance(kind, a, c, intent)[0].tolist()  # noqa: E731
    assert chance("ind") == pytest.approx([sigmoid(v) for v in (-1.1, -2.1, -3.1)])
    # m = 0, 1, 2: 0, 2 and 4 off
    assert chance("sub") == pytest.approx([sigmoid(v) for v in (-0.1, -3.1, -6.1)])
    alone = torch.tensor([[4, 5, 4]])
    assert chance("sub", alone) == pytest.approx([sigmoid(v) for v in (-0.1, -1.1, -4.1)])
    whole = 8 + sum(math.exp(v) for v in (0.75, -0.75, -2.25))
    assert chance("mnl") == pytest.approx([3 * math.exp(v) / whole for v in (0.75, -0.75, -2.25)])
    meant = torch.tensor([[4, 2, 4]])
    assert chance("query", meant) == pytest.approx([sigmoid(v) for v in (-1.9, -1.3, -3.9)])


def test_mnl_keeps_the_order_and_is_capped():
    a = torch.tensor([[9.0, 1.0, 0.0]])
    p = click_chance("mnl", a, torch.zeros(1, 3), torch.zeros(1))
    assert p[0, 0].item() == pytest.approx(0.97)
    assert p[0, 0] > p[0, 1] > p[0, 2]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 5))
def test_within_equals_a_loop_and_ignores_levels(seed, size, many):
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 4, (many, size), generator=draw).double()
    p = torch.rand(many, size, generator=draw).double()
    found = []
    for s, q in zip(scores.tolist(), p.tolist(), strict=True):
        won = every = 0.0
        for i in range(size):
            for j in range(size):
                if i != j:
                    weight = q[i] * (1 - q[j])
                    every += weight
                    won += weight * (1.0 if s[i] > s[j] else 0.5 if s[i] == s[j] else 0.0)
        found.append(won / every)
    assert within(scores, p) == pytest.approx(sum(found) / many)
    assert within(scores + 10 * torch.arange(many)[:, None], p) == pytest.approx(within(scores, p))


def test_within_of_labels_is_the_mean_auc_of_groups():
    scores, labels = torch.randn(30, 6), (torch.rand(30, 6) < 0.3).float()
    labels[0] = 0  # a group without a positive is left out
    users = torch.arange(30).repeat_interleave(6)
    assert within(scores, labels) == pytest.approx(
        metrics.gauc(scores.flatten(), labels.flatten(), users)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_draws_one_world(kind):
    one, two, other = (groups(kind, 40, test=20, seed=s) for s in (5, 5, 6))
    for name, column in vars(one.train).items():
        assert torch.equal(column, getattr(two.train, name))
    assert not torch.equal(one.train.candidates, other.train.candidates)
    assert (len(one.train), len(one.valid), len(one.test)) == (40, 20, 20)
    assert one.test.probability.shape == (20, 12, 3)
    assert ((one.test.labels == 0) | (one.test.labels == 1)).all()
    # a cart needs a click, an order a cart
    assert (one.train.labels.diff(dim=2) <= 0).all()
    assert (one.train.probability.diff(dim=2) <= 0).all()


def test_labels_follow_their_probabilities():
    for kind in KINDS:
        part = groups(kind, 4000, test=10, seed=1).train
        seen, told = part.labels.mean((0, 1)), part.probability.mean((0, 1))
        assert torch.allclose(seen, told, atol=0.01)


def test_where_the_group_matters():
    gaps = {}
    for kind in ("ind", "mnl", "sub"):
        top = groups(kind, 10, test=1000, seed=0).ceilings()
        gaps[kind] = [top[f"Bayes {w}"] - top[f"utility alone {w}"] for w in ("pooled", "within")]
        assert min(gaps[kind]) > -1e-9
    assert gaps["ind"] == pytest.approx([0, 0], abs=1e-6)
    assert gaps["mnl"][1] == pytest.approx(0, abs=1e-4) and gaps["mnl"][0] > 0.015
    assert min(gaps["sub"]) > 0.03


def test_contexts_differ_in_their_tokens_alone():
    words = ("history", "more history", "anchors", "random anchors")
    found = {w: groups("query", 60, test=20, context=w, seed=2).train for w in words}
    for part in found.values():
        for name in ("candidates", "labels", "probability", "described"):
            assert torch.equal(getattr(part, name), getattr(found["history"], name))
    sizes = {w: (p.history.shape[1], tuple(p.anchors.shape[1:3])) for w, p in found.items()}
    assert sizes == {
        "history": (8, (0, 8)),
        "more history": (18, (0, 8)),
        "anchors": (8, (1, 8)),
        "random anchors": (8, (1, 8)),
    }
    assert torch.equal(found["more history"].history[:, -8:], found["history"].history)
    # anchors lie around the category that is clicked more often
    p, x = found["anchors"], found["anchors"].candidates[..., :8]
    near = torch.einsum("gd,gcd->gc", p.anchors[:, 0, :, :8].mean(1), x).flatten()
    logit = p.probability[..., 0].logit().flatten()
    assert torch.corrcoef(torch.stack([near, logit]))[0, 1] > 0.2


def test_regroup_cuts_every_request_into_all_its_candidates():
    part = groups("ind", 6, test=2, seed=0).train
    cut = regroup(part, 4, seed=1)
    assert cut.candidates.shape == (18, 4, 10) and cut.history.shape[0] == 18
    for request in range(6):
        mine = cut.candidates[3 * request : 3 * request + 3].reshape(12, 10)
        assert sorted(mine[:, 0].tolist()) == sorted(part.candidates[request, :, 0].tolist())
    pairs = torch.stack([cut.candidates[..., 0], cut.probability[..., 0]], -1).reshape(-1, 2)
    known = torch.stack([part.candidates[..., 0], part.probability[..., 0]], -1).reshape(-1, 2)
    assert sorted(pairs.tolist()) == sorted(known.tolist())


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"kind": "pl"}, "kind must be one of ind, mnl, sub, query"),
        ({"context": "more"}, "context must be one of history"),
        ({"train": 0}, "train must be at least 1"),
        ({"test": 0}, "test must be at least 1"),
    ],
)
def test_bad_arguments(wrong, says):
    with pytest.raises(ValueError, match=says):
        groups(**({"kind": "ind", "train": 10} | wrong))


def test_a_size_that_does_not_divide_the_candidates_is_refused():
    with pytest.raises(ValueError, match="candidates must be a multiple of 5"):
        regroup(groups("ind", 2, test=1).train, 5)
