"""Mutual information, learned correlation, effects: worked numbers, counts by hand, a known truth."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.data import Batch, Field, Schema
from paperlab.interest.baselines.din import DIN
from paperlab.interest.correlation import (
    effect,
    fitted_decay,
    learned,
    learned_grid,
    recovered,
    spearman,
)
from paperlab.interest.tin import TIN
from paperlab.interest.worlds.interest_sequences import interest_sequences

SCHEMA = Schema(
    (
        Field("item", size=30),
        Field("category", size=6),
        Field("items", "sequence", length=5, shares="item"),
        Field("categories", "sequence", length=5, shares="category"),
    )
)


def test_learned_worked():
    events, target = torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([1.0, -1.0])
    score = [1 / 2**0.5, -3 / 2**0.5]
    want = [math.exp(score[0]) * 5**0.5, math.exp(score[1]) * 3]
    assert learned(events, target, True).tolist() == pytest.approx(want)
    assert learned(events, 2 * target, False).tolist() == pytest.approx(
        [math.exp(2 * score[0]) * 5**0.5, math.exp(2 * score[1]) * 3]
    )


def test_learned_grid_reads_category_and_position_only():
    model = TIN(SCHEMA, dim=2, std=0.5)
    grid = learned_grid(model, column=1, category=3, last=4)
    table, p = model.embed.table.weight[30:], model.encoding.table.weight
    zero = torch.zeros(2)
    for c in range(6):
        for position in range(1, 5):
            e = torch.cat([zero, table[c]]) + p[position]
            v = torch.cat([zero, table[3]]) + p[0]
            want = torch.exp(e @ v / 2) * (e * v).norm()
            assert grid[c, position - 1].item() == pytest.approx(want.item(), rel=1e-5)


def test_learned_grid_of_din_is_flat_in_position():
    torch.manual_seed(0)
    for tr in (False, True):
        grid = learned_grid(DIN(SCHEMA, dim=4, tr=tr, std=0.5), 1, 2, 5)
        assert (grid == grid[:, :1]).all() and grid[:, 0].std() > 0.01


def test_learned_grid_of_intervals_asks_for_hours():
    model = TIN(SCHEMA, encoding="interval", std=0.5)
    grid = learned_grid(model, 1, 2, 3, torch.tensor([0.5, 1.5, 1.7]))
    assert (grid[:, 1] == grid[:, 2]).all() and (grid[:, 0] != grid[:, 1]).all()


def test_effect_finds_the_weights_of_an_additive_logit():
    """logit = bias + sum_i w(c_i, c_t) 0.6^(p_i - 1): every entry comes back."""
    weight = torch.tensor([0.0, 0.0, 4.0, 1.0, -1.0, 0.5])

    def logit(batch):
        decay = 0.6 ** torch.arange(batch.history.shape[1] - 1, -1, -1)
        return (weight[batch.history[:, :, 1].long()] * decay).sum(1) + batch.ids[:, 0]

    draw = torch.Generator().manual_seed(0)
    history = torch.randint(1, 6, (7, 5, 2), generator=draw).int()
    rows = Batch(torch.arange(14).view(7, 2).int(), torch.zeros(7, 0), torch.zeros(7, 1), history)
    events = torch.stack([torch.arange(1, 6), torch.arange(1, 6)], 1)
    found = effect(logit, rows, events, torch.tensor([1, 1]), last=5)
    want = weight[1:, None] * 0.6 ** torch.arange(5)
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
    assert fitted_decay(found[1]) == pytest.approx(0.6, abs=2e-3)
    short = rows._replace(history=torch.cat([torch.zeros(7, 1, 2).int(), history[:, 1:]], 1))
    with pytest.raises(ValueError, match="at least last=5 events"):
        effect(logit, short, events, torch.tensor([1, 1]), last=5)
    with pytest.raises(ValueError, match="at least last=6 events"):
        effect(logit, rows, events, torch.tensor([1, 1]), last=6)


def test_effect_leaves_rows_and_gradients_alone():
    model = TIN(SCHEMA, dim=2).eval()
    history = torch.ones(3, 5, 2).int()
    rows = Batch(torch.ones(3, 2).int(), torch.zeros(3, 0), torch.zeros(3, 1), history.clone())
    found = effect(model, rows, torch.full((1, 2), 2), torch.ones(2), last=2)
    assert (rows.history == history).all() and not found.requires_grad


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-3, 3), min_size=4, max_size=12), st.integers(0, 99))
def test_spearman_is_scipys(values, seed):
    stats = pytest.importorskip("scipy.stats")
    a = torch.tensor(values)
    b = torch.randint(-3, 4, (len(a),), generator=torch.Generator().manual_seed(seed))
    found, want = (
        spearman(a, b),
        stats.spearmanr(a, b).statistic if len(set(values)) > 1 else math.nan,
    )
    assert found == pytest.approx(want, abs=1e-9, nan_ok=True)
    if len(a.unique()) > 1:
        assert spearman(a, a.float().exp()) == pytest.approx(1)
        assert spearman(a, -a) == pytest.approx(-1)


@pytest.mark.parametrize("rate", [0.3, 0.6, 0.95])
def test_fitted_decay(rate):
    row = 2.5 * rate ** torch.arange(20) + 0.7
    assert fitted_decay(row) == pytest.approx(rate, abs=2e-3)
    assert fitted_decay(1 - 0.08 * torch.linspace(0, 1, 20)) == 1.0
    assert fitted_decay(1 - 0.12 * torch.linspace(0, 1, 20)) < 1.0
    with pytest.raises(ValueError, match="at least 3 positions, got 2"):
        fitted_decay(row[:2])


class Law(TIN):
    """The planted law as a model's answers; its vectors are those of an untrained TIN."""

    truth = None

    def forward(self, batch):
        events, target = batch.history[:, :, 1].long(), batch.ids[:, 1:2].long()
        rank = torch.arange(events.shape[1], 0, -1).double()
        weight = torch.from_numpy(self.truth.weight)[events, target]
        return (weight * torch.from_numpy(self.truth.g(rank.numpy()))).sum(1)


@pytest.mark.parametrize("most", [8, 2])
def test_the_planted_law_is_recovered_from_its_own_answers(most):
    log = interest_sequences(600, rate=0.7, lengths=(6, 6), categories=6, items=3, seed=1)
    torch.manual_seed(0)
    model = Law(log.schema, dim=4, std=1.0)
    model.truth = log.truth
    scores, near = recovered(model, log, most)
    g = 0.7 ** torch.arange(6)
    torch.testing.assert_close(near, torch.stack([4 * g, g, 0 * g]), atol=1e-4, rtol=0)
    assert scores["answers r"] == pytest.approx(1, abs=1e-6)
    assert scores["answers decay"] == pytest.approx(0.7, abs=0.002)
    planted = torch.from_numpy(log.truth.weight[1:, 1:])[:, :, None] * g
    targets = range(6) if most == 8 else (0, 3)
    ranks = [spearman(learned_grid(model, 1, c + 1, 6)[1:], planted[:, c]) for c in targets]
    assert scores["vectors rank"] == pytest.approx(sum(ranks) / len(ranks), abs=1e-9)
    assert not model.training
