"""The arms of notebook 106: equal terms, paired seeds, one rate an arm, groups cut in the middle."""

import pytest
import torch
from paperlab import metrics
from paperlab.ctr import judged_groups, onepiece_studies
from paperlab.ctr.onepiece import OnePiece
from paperlab.ctr.onepiece_studies import Studies
from paperlab.ctr.worlds.groups import GroupWorld, groups
from paperlab.data.kinds import Judgments


def test_rates_are_chosen_on_the_first_seed_alone():
    studies = Studies(1, [0.001, 0.01], batch=32)
    rows = [studies.anchors(48, 20, seed) for seed in (0, 1)]
    assert [r["model"] for r in rows[0]] == list(onepiece_studies.CONTEXTS)
    assert [r["seed"] for r in rows[1]] == [1] * 4
    assert [r["lr"] for r in rows[0]] == [r["lr"] for r in rows[1]]
    assert {name for _, name in studies.chosen} == set(onepiece_studies.CONTEXTS)


def test_sight_is_judged_beside_the_best_score_without_the_group():
    found = {r["model"]: r for r in Studies(1, [0.01], batch=32).sight("ind", 48, 300, 0)}
    assert list(found) == ["visible", "invisible", "utility alone"]
    top = groups("ind", 48, test=300, seed=0).ceilings()
    assert found["utility alone"]["pooled"] == top["Bayes pooled"]
    assert found["utility alone"]["level"] == pytest.approx(1, abs=1e-4)
    assert found["visible"]["dense"] == found["invisible"]["dense"]


def test_a_step_adds_one_embedding_and_a_loop_none():
    example = groups("sub", 2, test=1).train
    size = lambda options: OnePiece(example, **options).count_parameters()["dense"]  # noqa: E731
    steps = {name: size(options) for name, options in onepiece_studies.STEPS.items()}
    assert steps["1 layer, 1 step"] - steps["1 layer"] == 32
    assert steps["1 layer, 2 steps"] - steps["1 layer"] == 64
    assert steps["1 layer, loop of 2"] == steps["1 layer"]
    assert steps["3 layers"] - steps["1 layer"] > 20_000
    tasks = {size(options) for options in onepiece_studies.TASKS.values()}
    assert len(tasks) == 1


def test_cuts_and_longer_runs_take_the_rates_of_the_steps():
    studies = Studies(1, [0.01], batch=32)
    studies.chosen = {("sub", n): 0.02 for n in ("1 layer", "visible", "1 layer, 1 step")}
    cuts = studies.cuts(24, 12, 0)
    names = [*onepiece_studies.LOSSES, "groups of 6", "groups of 3"]
    assert [r["model"] for r in cuts] == names
    assert {r["lr"] for r in cuts} == {0.02}
    longer = studies.longer(24, 12, 0)
    assert [(r["model"], r["passes"]) for r in longer] == [("2 layers", 3), ("1 layer, 1 step", 3)]


def test_tasks_are_judged_by_orders():
    rows = Studies(1, [0.01], batch=32).tasks(48, 20, 0)
    assert [r["model"] for r in rows] == list(onepiece_studies.TASKS)
    for row in rows:
        assert 0 < row["order"] < 1 and -1 <= row["cosine"] <= 1


@pytest.fixture
def judged(monkeypatch):
    """Sixty queries of four or seven products; a title's grade is known from its number."""
    pairs = [
        (f"query {q}", f"title {q} {k}", 1 + k % 3)
        for q in range(60)
        for k in range(4 + 3 * (q % 2))
    ]
    query, title, grade = zip(*pairs, strict=True)
    found = Judgments("home-depot-search", query, title, torch.tensor(grade).double().numpy())
    monkeypatch.setattr(judged_groups.data, "load", lambda name: found)

    def vectors(texts):
        draw = torch.Generator().manual_seed(0)
        return torch.nn.functional.normalize(torch.randn(len(texts), 5, generator=draw), dim=1)

    monkeypatch.setattr(judged_groups, "embed", vectors)
    return found


def test_judged_groups_are_of_one_query_with_enough_products(judged):
    world = judged_groups.load(20, size=6)
    assert isinstance(world, GroupWorld)
    assert [len(p) for p in (world.train, world.valid, world.test)] == [12, 2, 6]
    assert world.train.candidates.shape == (12, 6, 6)
    assert world.train.history.shape == (12, 0, 6) and world.train.described.shape == (12, 1, 5)
    cosine = torch.einsum("ge,gce->gc", world.test.described[:, 0], world.test.candidates[..., :5])
    assert torch.allclose(cosine / 5, world.utility, atol=1e-5)
    assert set(world.train.labels.flatten().tolist()) == {0.0, 1.0}
    assert world.train.labels.mean().item() == pytest.approx(2 / 7, abs=0.1)  # grades 3 of 1, 2, 3
    assert len(judged_groups.load(1_000).train) == 18  # only 30 queries have six products
    with pytest.raises(ValueError, match="queries must be at least 10"):
        judged_groups.load(5)


def test_judged_products_are_ranked_beside_the_cosine(judged):
    rows = Studies(1, [0.01], batch=8).judged(30, [0, 1])
    assert [r["model"] for r in rows] == ["visible", "invisible", "cosine"] * 2
    world = judged_groups.load(30)
    y = world.test.labels[..., 0]
    assert rows[2]["pooled"] == metrics.auc(world.utility.flatten(), y.flatten())
    assert rows[2]["pooled"] == rows[5]["pooled"] and rows[0]["pooled"] != rows[3]["pooled"]
