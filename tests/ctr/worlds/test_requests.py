"""The requests' sessions, candidates and click probabilities, from their definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import metrics
from paperlab.ctr.worlds.requests import GIFT, OWN, requests, within

ADDITIVE = requests("additive", 2_000, test=500, seed=1)
BINDING = requests("binding", 2_000, test=500, seed=1)


def cluster(items, size: int):
    return (items - 1) // size


def test_shapes_and_ids():
    for world, vocabulary in ((ADDITIVE, 2_001), (BINDING, 401)):
        assert world.vocabulary == vocabulary
        assert [len(p) for p in (world.train, world.valid, world.test)] == [2_000, 500, 500]
        part = world.train
        assert part.items.shape == (2_000, 16) and part.candidates.shape == (2_000, 6)
        assert part.items.min() >= 1 and part.items.max() < vocabulary
        assert part.present.all()
        assert world.latents[0].abs().sum() == 0  # padding


def test_items_of_a_session_share_a_cluster_but_for_the_jumps():
    for world, session, size in ((ADDITIVE, 8, 100), (BINDING, 4, 20)):
        topics = cluster(world.train.items, size).view(2_000, -1, session)
        topic = topics.mode(-1).values[..., None]
        other = (topics != topic).float().mean().item()
        assert other == pytest.approx(0.15 * 19 / 20, abs=0.02)
        known = (cluster(world.train.candidates, size)[..., None] == topic[:, None, :, 0]).any(-1)
        by_luck = 1 - 0.95 ** (16 // session)  # that an item of any cluster is of a session's
        assert known.float().mean().item() == pytest.approx(0.6 + 0.4 * by_luck, abs=0.02)


def test_frequencies_inside_a_cluster_are_zipfs():
    place = (ADDITIVE.train.items - 1) % 100
    law = torch.arange(1, 101) ** -0.8
    share = place.flatten().bincount(minlength=100) / place.numel()
    assert (share - law / law.sum()).abs().max() < 0.005


@pytest.mark.parametrize("kind", ["additive", "old"])
def test_additive_logits_are_the_formula(kind):
    world = requests(kind, 50, test=30, length=24, seed=2)
    z, part = world.latents.double(), world.test
    for row in range(30):
        events = part.items[row, -8:] if kind == "additive" else part.items[row, :8]
        for n, item in enumerate(part.candidates[row]):
            logit = -2.2 + 7 * sum((z[h] @ z[item]).item() for h in events) / 8
            assert part.probability[row, n].logit().item() == pytest.approx(logit, abs=1e-3)
    assert not part.flags.any()


def test_binding_counts_own_sessions_only():
    part, z = BINDING.test, BINDING.latents.double()
    flags = part.flags.view(-1, 4, 4)
    assert set(flags[:, :, 0].unique().tolist()) == {GIFT, OWN} and not flags[:, :, 1:].any()
    for row in range(30):
        own = (flags[row, :, 0] == OWN).repeat_interleave(4)
        for n, item in enumerate(part.candidates[row]):
            total = sum((z[h] @ z[item]).item() for h in part.items[row][own])
            logit = -2.4 + 18 / 16 * total
            assert part.probability[row, n].logit().item() == pytest.approx(logit, abs=1e-3)


def test_labels_follow_the_probabilities_and_the_plan():
    for world, bayes in ((ADDITIVE, 0.949), (BINDING, 0.922)):
        p, y = world.train.probability, world.train.labels
        assert y.mean().item() == pytest.approx(p.mean().item(), abs=0.012)
        for low, high in ((0, 0.1), (0.1, 0.5), (0.5, 1)):  # calibrated where they are high and low
            inside = (p >= low) & (p < high)
            assert y[inside].mean().item() == pytest.approx(p[inside].mean().item(), abs=0.03)
        assert world.bayes_auc == pytest.approx(bayes, abs=0.012)
        p = world.test.probability
        assert world.bayes_auc == metrics.exact_auc(p.flatten(), p.flatten())


def test_a_seed_is_a_world():
    again, other = (requests("additive", 2_000, test=500, seed=s) for s in (1, 2))
    assert again.train.items.equal(ADDITIVE.train.items)
    assert again.test.labels.equal(ADDITIVE.test.labels)
    assert not other.latents.equal(ADDITIVE.latents)


@given(st.integers(1, 4), st.integers(2, 5), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_within_request_auc_pair_by_pair(rows, n, seed):
    draw = torch.Generator().manual_seed(seed)
    p = torch.rand(rows, n, generator=draw) * 0.9 + 0.05
    score = torch.randint(0, 3, (rows, n), generator=draw).float()  # with ties
    won = pairs = 0.0
    for r in range(rows):
        for i in range(n):
            for j in set(range(n)) - {i}:
                weight = p[r, i].item() * (1 - p[r, j].item())
                gap = score[r, i].item() - score[r, j].item()
                won += weight * (1 if gap > 0 else 0.5 if gap == 0 else 0)
                pairs += weight
    assert within(score, p) == pytest.approx(won / pairs)
    shifted = score + torch.arange(rows)[:, None] * 7  # a level for each request
    assert within(shifted, p) == pytest.approx(won / pairs)


def test_within_a_single_request_it_is_the_exact_auc():
    p, score = BINDING.test.probability[:1], torch.randn(1, 6)
    assert within(score, p) == pytest.approx(metrics.exact_auc(score[0], p[0]))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"kind": "other"}, "kind must be one of additive, old, binding"),
        ({"length": 12}, "length must be a multiple of 8"),
        ({"length": 4, "kind": "binding"}, "length must be at least 8"),
        ({"train": 0}, "train must be at least 1"),
        ({"candidates": 0}, "candidates must be at least 1"),
        ({"test": 0}, "test must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(how, message):
    with pytest.raises(ValueError, match=message):
        requests(**{"kind": "additive", "train": 5} | how)
