"""The leaderboard's models meet one budget on the schemas that it is run on."""

import pytest
import torch
from paperlab.ctr.ctr_leaderboard import BASE, FLAT, builders
from paperlab.data import Batch, Field, Schema
from paperlab.nn.budget import TOLERANCE, width_for

NAMES = tuple(builders())


def schema(fields: int, size: int = 11) -> Schema:
    return Schema(tuple(Field(f"f{k}", size=size) for k in range(fields)))


def test_the_rivals_come_first():
    assert NAMES[: len(BASE)] == BASE and set(FLAT) < set(BASE)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in FLAT])
@pytest.mark.parametrize(
    ("fields", "budget"),
    [(8, 20_000), (8, 60_000), (10, 450_000), (41, 450_000)],  # planted; Frappe to Criteo
)
def test_a_width_meets_the_budget(name, fields, budget):
    build = builders()[name]
    width = width_for(lambda w: build(schema(fields), w), budget)
    with torch.device("meta"):
        assert (
            abs(build(schema(fields), width).count_parameters()["dense"] / budget - 1) <= TOLERANCE
        )


@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_built_by_its_name_and_gives_logits(name):
    torch.manual_seed(0)
    model = builders(dim=4, std=0.2)[name](schema(8), 12).eval()
    batch = Batch(torch.randint(11, (5, 8)).int(), torch.zeros(5, 0), torch.zeros(5, 1))
    logits = model(batch)
    assert logits.shape == (5,) and logits.isfinite().all() and logits.std() > 0
    assert model.embed.table.weight.std().item() == pytest.approx(0.2, rel=0.3)


def test_the_control_differs_from_a_dnn_by_norm_and_activation():
    plain, control = (builders()[n](schema(8), 12) for n in ("DNN", "DNN + LN, GELU"))
    kinds = [[type(m).__name__ for m in model.mlp] for model in (plain, control)]
    assert kinds[0] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert kinds[1] == ["Linear", "Sequential", "Linear", "Sequential", "Linear"]
    assert [type(m).__name__ for m in control.mlp[1]] == ["LayerNorm", "GELU"]
    norms = control.count_parameters()["dense"] - plain.count_parameters()["dense"]
    assert norms == 2 * 2 * 12
