"""Columns, joins, returns and counting, from logs of pairs."""

import copy

import numpy as np
import pytest
import torch
from paperlab.rl import pairs
from paperlab.rl.baselines.dqn import DQN
from paperlab.rl.offline import Distinct, Lookup, rows_of
from paperlab.rl.worlds.funnel import FunnelModel

MODEL = FunnelModel(forgetting=0.02)
EASY = {
    "gift": (-4.0, -3.0, -2.0, -1.0),
    "gift_means": (1.0,) * 4,
    "gift_sigma": 0.0,
}  # no rare events
LOG = MODEL.log_dataset("uniform", 3000, 0, steps=20)


def test_features_are_one_hot_and_tell_followers():
    table = pairs.features()
    assert table.shape == (16, 8) and (table.sum(1) == 2).all()
    assert torch.equal(table[:, 6:].sum(1), torch.tensor([0.0, 0, 1, 1] * 4))
    assert torch.equal(table[6], torch.tensor([0.0, 1, 0, 0, 0, 0, 1, 0]))  # k = 1, z = 2


def test_columns_say_what_the_log_says():
    for next_state in ("exact", "next_request", "post_update", "stale"):
        found = pairs.columns(LOG, next_state)
        name = "state" if next_state == "stale" else next_state
        table, row = rows_of(found["next_obs"][torch.arange(3000)])
        assert torch.equal(table[row], pairs.features()[LOG[name].astype(int)])
        assert not found["done"].any()
        np.testing.assert_array_equal(found["action"], LOG["action"])


def test_a_network_of_distinct_states_is_the_same_network():
    torch.manual_seed(0)
    plain = DQN(8, 3, widths=(16,))
    once = copy.deepcopy(plain)
    once.net, once.slow.copy = Distinct(once.net), Distinct(once.slow.copy)
    assert once.count_parameters() == plain.count_parameters()
    rows = torch.arange(256)
    batch = {k: v[rows] for k, v in pairs.columns(LOG).items()}
    dense = batch | {k: Lookup(batch[k].table, batch[k].index)[rows] for k in ("obs", "next_obs")}
    for agent, seen in ((plain, dense), (once, batch)):
        agent.loss(seen, 0).backward()
    for a, b in zip(plain.net.parameters(), once.net.parameters(), strict=True):
        assert a.grad.any()
        torch.testing.assert_close(a.grad, b.grad)


def test_the_exact_next_state_is_the_one_of_the_pairs_next_row():
    after, cache, met = pairs.next_states(LOG, "exact"), {}, 0
    for row in range(3000):  # what a cache of one entry a pair would join, row by row
        pair = LOG["pair"][row]
        if pair in cache:
            assert after[cache[pair]] == LOG["state"][row]
            met += 1
        cache[pair] = row
    assert met == 3000 - len(cache) > 2000


def test_returns_by_hand():
    rows, found = pairs.realised_returns(LOG, 0.9, 12.1)
    assert 200 < len(rows) < 3000
    got = dict(zip(rows.tolist(), found.tolist(), strict=True))
    for pair in np.unique(LOG["pair"]):
        mine = np.flatnonzero(LOG["pair"] == pair)
        for t, row in enumerate(mine):
            covered = LOG["time"][mine[-1]] - LOG["time"][row] >= 12.1
            assert (row in got) == covered
            if covered:
                inside = [i for i in mine[t:] if LOG["time"][i] <= LOG["time"][row] + 12.1]
                want = sum(0.9**n * float(LOG["reward"][i]) for n, i in enumerate(inside))
                assert got[row] == pytest.approx(want, abs=1e-4)


def test_counting_finds_the_model():
    model = FunnelModel(forgetting=0.02, discount=0.8, **EASY)
    log = model.log_dataset("uniform", 1_000_000, 1, start=(0.25,) * 4)
    for next_state in ("exact", "next_request", "post_update", "stale"):
        actions, q = pairs.certainty_equivalent(log, next_state, discount=0.8)
        best, believed = model.optimal(next_state)
        visits = np.bincount(log["state"], minlength=16).reshape(4, 4) / 1_000_000
        error = (visits * (q.max(0) - believed.total)).sum() / (visits * believed.total).sum()
        assert abs(error) < 0.02
        worth = model.exact_values(actions).new_pair
        assert worth == pytest.approx(model.exact_values(best).new_pair, rel=0.03), next_state


def test_what_was_never_seen_is_worth_nothing():
    log = FunnelModel().log_dataset(0, 1000, 0)
    actions, q = pairs.certainty_equivalent(log)
    assert not actions.any() and not q[1:].any()


def test_bad_calls():
    with pytest.raises(ValueError, match="next_state must be one of exact, next_request"):
        pairs.columns(LOG, "tomorrow")
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\)"):
        pairs.realised_returns(LOG, 1.0, 30)
    with pytest.raises(ValueError, match="days must be above 0"):
        pairs.realised_returns(LOG, 0.9, 0)
