"""Studies: rivals by hand, no shared pairs, quantities that a plain loop finds again."""

import pytest
import torch
from paperlab.align import studies
from paperlab.align.tuning import PreferenceTuning
from paperlab.align.worlds.toys import KeyTokens, decisive_pairs
from paperlab.lm.preferences import Pair, Preferences

DPO = {"DPO": {}}
BOTH = DPO | {"OTPO": {"weighting": "otpo"}}


def made(*rows) -> Preferences:
    return Preferences("made", tuple(Pair(*row) for row in rows), 9)


def test_pairs_are_shared_in_either_order_and_with_their_prompt_only():
    known = made(((1,), (2, 9), (3, 9)), ((4,), (5, 9), (6, 9)))
    test = made(
        ((1,), (3, 9), (2, 9)),  # turned round
        ((4,), (5, 9), (6, 9)),
        ((1,), (5, 9), (6, 9)),  # another prompt
        ((1,), (2, 9), (2, 9)),
    )
    assert studies.shared(test, known) == 2
    assert studies.shared(test, made(), known) == 2 and studies.shared(known, made()) == 0


def test_trivial_rivals_by_hand():
    data = made(
        ((1,), (2, 2, 9), (3, 9)),  # longer and right
        ((1,), (2, 9), (3, 3, 9)),  # shorter and right
        ((1,), (2, 2, 9), (3, 9)),  # longer and wrong
        ((1,), (2, 9), (3, 9)),  # as long: half right
        ((1,), (2, 2, 9), (3, 9)),  # neither is better: left out
    )
    found = studies.trivial(data, torch.tensor([1, 1, -1, 1, 0]), seed=0)
    assert (found["the longer"], found["the shorter"]) == (0.375, 0.625)
    assert 0 <= found["coin"] <= 1


def test_log_ratios_are_changes_since_the_start():
    data = decisive_pairs(20, length=5, words=4, seed=1)
    start = studies.read(data, seed=0, dim=16, layers=1)
    before = PreferenceTuning(start).rewards(data)
    (_, module), *more = studies.tuned(start, data, data, DPO, seed=0, epochs=2, rates=[0.01])
    assert not more
    chosen, rejected, own = studies.log_ratios(module, before, data)
    now = module.rewards(data)  # its own reference is the start
    torch.testing.assert_close(chosen, now["chosen"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rejected, now["rejected"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(own, chosen - rejected, rtol=1e-4, atol=1e-4)
    assert chosen.abs().max() > 0.01


def test_beta_and_rate_are_chosen_together_on_validation_pairs():
    parts = [KeyTokens().pairs(40, seed) for seed in (1, 2)]
    start = studies.read(parts[0], seed=0, dim=16, layers=1)
    alone, (scales, rates) = {}, ([1.0, 30.0], [1e-5, 0.03])
    for scale in scales:
        for rate in rates:
            [(row, _)] = studies.tuned(start, *parts, DPO, 0, [rate], [scale], epochs=3)
            assert (row["beta"], row["lr"]) == (scale * 0.1, rate)
            alone[scale, rate] = row["valid_rewards/accuracies"]
    [(row, module)] = studies.tuned(start, *parts, DPO, 0, rates, scales, epochs=3)
    best = max(alone.values())
    assert min(alone.values()) < best == row["valid_rewards/accuracies"]
    assert alone[row["scale"], row["lr"]] == best and module.beta == row["beta"]


def test_key_tokens_and_what_the_cue_adds():
    rows, facts = [], []
    for cue in (0.0, 1.0):
        found, fact = studies.key_tokens(BOTH, cue, 64, seed=1, epochs=1, rates=[0.003])
        rows, facts = rows + found, [*facts, fact]
    assert [r["model"] for r in found] == ["the longer", "the shorter", "coin", "DPO", "OTPO"]
    assert all(f["shared"] == 0 for f in facts)
    labels = [
        p.truth.margin
        for p in KeyTokens(cue=1.0, **studies.TASK).pairs(64, 4).pairs
        if p.truth.margin
    ]
    assert facts[1]["wrong labels"] == sum(m < 0 for m in labels) / len(labels)
    dpo = {r["cue"]: r for r in rows if r["model"] == "DPO"}
    assert dpo[1.0]["accuracy"] == dpo[1.0]["own accuracy"]  # its weights are 1
    assert all(
        abs(r["slope"]) == r["size of slope"] and 0 < r["length"] <= 48 for r in dpo.values()
    )
    added = {r["model"]: r["added slope"] for r in studies.cue_effect(rows)}
    assert added.keys() == BOTH.keys()
    assert added["DPO"] == dpo[1.0]["slope"] - dpo[0.0]["slope"] > 0  # every longer one was chosen


def test_a_decisive_token_weighs_1_under_dpo():
    dpo, otpo = studies.decisive(BOTH, 64, seed=0, epochs=1)
    assert dpo["weight"] == dpo["others"] == 1
    assert otpo["weight"] != otpo["others"]
    total = (otpo["weight"] + 12 * otpo["others"]) / 13  # 12 tokens and end-of-text: both as long
    assert total == pytest.approx(1, abs=1e-4)


def test_planted_shared_words_are_found():
    rows, model, few = studies.shared_words(40, seed=0, grid=(0.1,), common=5)
    found = {r["states"]: r["auc"] for r in rows}
    assert found["planted"] == 1 and set(found) == {"planted", "predictor", "token"}
    assert len(few) == 40 and model.embed.num_embeddings == few.vocabulary


def test_copies_share_frozen_parameters_only():
    start = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    start[0].requires_grad_(False)
    twin = studies.copied(start)
    assert twin[0].weight is start[0].weight and twin[1].weight is not start[1].weight
    torch.testing.assert_close(twin[1].weight, start[1].weight)


def test_given_log_probs_of_the_reference_change_nothing():
    data = decisive_pairs(20, length=5, words=4, seed=1)
    start = studies.read(data, seed=0, dim=16, layers=1)
    known = PreferenceTuning(start).refer(data)
    pairs = [(data, data), (known, known)]
    runs = [[*studies.tuned(start, *p, DPO, seed=0, rates=[0.01])] for p in pairs]
    weights = [torch.cat([p.flatten() for p in m.policy.parameters()]) for [(_, m)] in runs]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
