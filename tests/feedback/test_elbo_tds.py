"""ELBO-TDS: the sheet's worked numbers, identities, a slow loop, and what is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import data
from paperlab.feedback.elbo_tds import ELBOTDS, dropped, jitter, prior, reconstruction

FIELDS = (data.Field("shows", size=21), data.Field("kind", size=5), data.Field("rate", size=21))
SCHEMA = data.Schema(FIELDS)
SIDES = {"users": ["shows"], "statistics": ["shows", "rate"]}


def batch(rows: int, seed: int = 0) -> data.Batch:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randint(1, f.size, (rows,), generator=draw) for f in FIELDS], 1)
    labels = torch.randint(0, 2, (rows, 1), generator=draw).float()
    return data.Batch(ids.int(), torch.zeros(rows, 0), labels)


def build(**options) -> ELBOTDS:
    torch.manual_seed(0)
    small = {"latent": 6, "widths": (8, 4), "std": 0.5}
    return ELBOTDS(SCHEMA, 3, **SIDES | small | options)


shapes = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.integers(0, 99))


@settings(deadline=None, max_examples=40, derandomize=True)
@given(shapes)
def test_both_terms_are_what_loops_compute(drawn):
    k, b, d, seed = drawn
    draw = torch.Generator().manual_seed(seed)
    z, x = (torch.randn(*s, generator=draw, dtype=torch.float64) for s in ((k, b, d), (b, d)))
    spread = rebuilt = 0.0
    for row in range(b):
        for i in range(k):
            rebuilt += sum((z[i, row, j] - x[row, j]).item() ** 2 for j in range(d))
            for other in range(k):  # the pairwise form of the prior
                gap = (z[i, row] - z[other, row]).square().sum().item()
                spread += gap / (2 * k)
    assert prior(z).item() == pytest.approx(spread / (k * b), abs=1e-9)
    assert reconstruction(z, x).item() == pytest.approx(rebuilt / (k * b), abs=1e-9)


def test_prior_is_zero_only_for_equal_copies_and_has_the_noise_floor():
    equal = torch.randn(1, 3, 4).expand(5, 3, 4)
    assert prior(equal).item() == pytest.approx(0, abs=1e-10)
    assert prior(torch.randn(1, 3, 4)).item() == 0  # one copy
    assert prior(torch.stack([torch.zeros(1, 2), torch.ones(1, 2)])).item() == pytest.approx(0.5)
    torch.manual_seed(0)
    noise = torch.randn(4, 5_000, 256)  # (K - 1) d_z = 768 a row, divided by K
    assert prior(noise).item() == pytest.approx(192, rel=0.01)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(2, 30), st.floats(0, 1), st.integers(0, 99))
def test_jitter_stays_among_the_buckets_and_moves_by_two_at_most(size, p, seed):
    torch.manual_seed(seed)
    ids = torch.randint(0, size, (200, 3)).int()
    moved = jitter(ids, torch.tensor([size] * 3), p)
    assert ((moved - ids).abs() <= 2).all()
    assert (moved[ids == 0] == 0).all()  # out of vocabulary stays
    assert ((moved[ids > 0] >= 1) & (moved[ids > 0] < size)).all()
    if p == 0:
        assert torch.equal(moved, ids)


def test_jitter_moves_the_stated_share():
    torch.manual_seed(0)
    ids = torch.full((50_000, 1), 10).int()
    move = jitter(ids, torch.tensor([21]), 0.2) - ids
    share = [(move == d).float().mean().item() for d in (-2, -1, 1, 2)]
    assert share == pytest.approx([0.04] * 4, abs=0.004)


def test_dropout_hits_the_stated_share_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(20_000, 1, 8)
    out = dropped(x, 0.2)
    hit = (out != 1).any(-1).float().mean().item()
    assert hit == pytest.approx(0.2, abs=0.01)  # a hit vector is rescaled by 1 / (1 - .2)
    assert out.mean().item() == pytest.approx(1, abs=0.005)
    assert torch.equal(dropped(x, 0.0), x)


def test_without_augmentation_all_copies_are_the_input():
    model, rows = build(p=0.0), batch(7)
    many = model.resample(rows, 3)
    assert many.shape == (3, 7, 3, 3)
    assert torch.equal(many, model.embed(rows).expand(3, 7, 3, 3))


def test_statistics_move_and_other_fields_are_dropped():
    model, rows = build(p=1.0), batch(400)
    plain, many = model.embed(rows), model.resample(rows, 1)[0]
    table = model.embed.table.weight
    place = (many[:, 0, None] == table[None, :21]).all(-1)
    assert place.any(1).all()  # still a row of the statistic's own table
    assert (plain[:, 1] != 0).any() and (many[:, 1] == 0).all()  # at rate 1 nothing is left


def test_alpha_zero_is_two_towers_with_one_more_linear_layer():
    model, rows = build(alpha=0.0), batch(9)
    x = model.embed(rows)
    user, item = x[:, [0]].flatten(1), x[:, [1, 2]].flatten(1)
    u = model.towers[0].predict(
        user @ model.towers[0].encode.weight.T + model.towers[0].encode.bias
    )
    v = model.towers[1].predict(
        item @ model.towers[1].encode.weight.T + model.towers[1].encode.bias
    )
    torch.testing.assert_close(model(rows), (u * v).sum(1))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(model(rows), rows.labels[:, 0])
    torch.testing.assert_close(model.loss(rows), expected)


def test_loss_is_the_sum_of_its_parts_and_inference_is_deterministic():
    plain, whole, rows = build(alpha=0.0), build(alpha=0.5), batch(9)
    torch.manual_seed(3)
    total = whole.loss(rows).item()
    torch.manual_seed(3)
    many, fields, own = whole.resample(rows, 4), whole.embed(rows), 0.0
    for tower, side in zip(whole.towers, whole.sides, strict=True):
        target = fields[:, side].flatten(1)
        own += tower.self_supervised(many[:, :, side].flatten(2), target).item()
    assert total == pytest.approx(plain.loss(rows).item() + 0.5 * own / 2, rel=1e-5)
    assert torch.equal(whole(rows), whole(rows))


def test_the_order_of_copies_does_not_matter():
    z = torch.randn(4, 3, 5, dtype=torch.float64)
    assert prior(z[[2, 0, 3, 1]]).item() == pytest.approx(prior(z).item())


@pytest.mark.parametrize(("target", "reaches"), [("input", False), ("copy", True)])
def test_the_target_is_a_constant_by_default_and_trains_the_tables_in_the_released_code(
    target, reaches
):
    """With a zeroed encoder only the target can move the tables."""
    model, rows = build(alpha=1.0, target=target, terms=(True, False)), batch(30)
    for tower in model.towers:
        torch.nn.init.zeros_(tower.encode.weight)
    model.embed.sparse = model.embed.table.sparse = False
    model.loss(rows).backward()
    assert bool(model.embed.table.weight.grad.abs().max() > 1e-8) == reaches


def test_without_an_encoder_it_is_the_released_baseline():
    model, rows = build(latent=0, alpha=0.0), batch(5)
    assert model(rows).shape == (5,)
    (x, y), fields = model.latents(rows), model.embed(rows)
    assert torch.equal(x, fields[:, 0]) and torch.equal(y, fields[:, 1:].flatten(1))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"copies": 0}, "copies must be at least 1"),
        ({"p": 1.5}, "p must be in"),
        ({"alpha": -1.0}, "alpha must be at least 0"),
        ({"latent": 0}, "alpha must be 0 without an encoder"),
        ({"users": ["nobody"]}, "field must be one of shows, kind, rate"),
        ({"users": ["shows", "kind", "rate"]}, "leave some to the item"),
        ({"users": []}, "users must name some fields"),
        ({"target": "output"}, "target must be one of"),
        ({"widths": ()}, "widths must be"),
    ],
)
def test_wrong_arguments_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        build(**wrong)
