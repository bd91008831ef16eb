"""RLIV-UA and its rivals: who they are, what they have in common, and when a run has settled."""

import numpy as np
import pytest
import torch
from paperlab.rl import contest, pairs
from paperlab.rl.worlds.funnel import FunnelModel

WORLD = FunnelModel()
LOG = WORLD.log_dataset("uniform", 4000, 0)


def test_the_matched_rival_has_as_many_weights():
    ours = contest.rliv().count_parameters()["dense"]
    matched = contest.rival(matched=True).count_parameters()["dense"]
    plain = contest.rival().count_parameters()["dense"]
    assert abs(matched / ours - 1) < 0.01 and plain < ours / 5
    kinds = {type(m).__name__ for m in contest.rival(matched=True).net.modules()}
    assert {"ELU", "LayerNorm"} <= kinds


def test_contenders_learn_from_what_they_say():
    arms = contest.contenders(LOG)
    assert tuple(arms) == contest.NAMES
    reward = pairs.columns(LOG)["reward"]
    for name, (make, columns) in arms.items():
        agent = make(lr=0.02)
        assert agent.lr == 0.02 and agent.gamma == (
            0 if name in ("Myopic", "Return regression") else 0.95
        )
        if name != "Return regression":
            assert torch.equal(columns["reward"], reward)
    kept, later = pairs.realised_returns(LOG, 0.95, 30.0)
    waited = arms["Return regression"][1]
    assert len(waited["reward"]) == len(kept) < 4000
    np.testing.assert_array_equal(waited["reward"], later)
    np.testing.assert_array_equal(waited["action"], LOG["action"][kept])


def test_names_select_and_unknown_ones_are_refused():
    assert [*contest.contenders(LOG, ["CQL", "Myopic"])] == ["CQL", "Myopic"]
    with pytest.raises(ValueError, match="name must be one of RLIV-UA, Myopic"):
        contest.contenders(LOG, ["SAC"])


@pytest.mark.parametrize("make", [contest.rliv, contest.rival, lambda: contest.rival(matched=True)])
def test_boosts_are_those_of_the_averaged_copy(make):
    torch.manual_seed(0)
    agent = make()
    with torch.no_grad():
        for weight in (agent.net if make is not contest.rliv else agent.net.values).parameters():
            weight.normal_()  # the fast network now chooses otherwise
    slow = agent.slow(contest.STATES)
    if make is contest.rliv:
        from paperlab.rl.rliv_ua import liv

        slow = liv(slow.q, agent.weights, agent.costs)
    np.testing.assert_array_equal(contest.boosts(agent), slow.argmax(1).numpy())


def test_training_records_shares_and_repeats():
    make, columns = contest.contenders(LOG, ["Myopic"])["Myopic"]
    runs = [
        contest.train(make, columns, 1, steps=20, batch_size=64, share=WORLD.share)
        for _ in range(2)
    ]
    agent, chosen, history = runs[0]
    assert [row["step"] for row in history] == list(range(1, 21)) and not agent.training
    assert history[-1]["share"] == WORLD.share(chosen)
    assert [r["share"] for r in history] == [r["share"] for r in runs[1][2]]


@pytest.mark.parametrize(
    ("shares", "steps", "reached"),
    [
        ([0.9, 0.9, 0.9], 10, True),  # from the first check on
        ([0.1, 0.9, 0.9], 20, True),
        ([0.9, 0.1, 0.9], 30, True),  # an early visit does not count
        ([0.9, 0.9, 0.1], 30, False),  # below at the end: censored there
        ([0.1, 0.1, 0.1], 30, False),
    ],
)
def test_settling_is_censored_at_the_end(shares, steps, reached):
    history = [{"step": 10 * (n + 1), "share": s} for n, s in enumerate(shares)]
    assert contest.settled(history, 0.5) == {"steps": steps, "reached": reached}
