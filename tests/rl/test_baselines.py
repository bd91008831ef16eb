"""Baselines and what agents share, against a small decision process that is solved exactly."""

from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from paperlab import loop
from paperlab.rl.baselines.bc import BehaviourCloning
from paperlab.rl.baselines.bcq import BCQ
from paperlab.rl.baselines.cql import CQL
from paperlab.rl.baselines.dqn import DQN
from paperlab.rl.baselines.iql import IQL, expectile_loss
from paperlab.rl.baselines.sac import DiscreteSAC
from paperlab.rl.baselines.td3_bc import TD3BC
from paperlab.rl.offline import Draws, Lookup, OfflineAgent, TargetNetwork, q_of_action

fit = partial(loop.fit, accelerator="cpu", precision="32-true")
S, A, GAMMA = 4, 2, 0.8


def process(seed=0):
    """P (A, S, S) without the discount, whose missing mass ends the episode, and R (A, S)."""
    draw = np.random.default_rng(seed)
    P = draw.dirichlet(np.ones(S), (A, S)) * draw.uniform(0.5, 1, (A, S, 1))
    return P, draw.uniform(0, 1, (A, S))


def log_of(P, R, rows=20_000, seed=1, rare=0.3):
    """Transitions from uniform states; action 1 with probability ``rare``; rewards without noise."""
    draw = np.random.default_rng(seed)
    s = draw.integers(0, S, rows)
    a = (draw.random(rows) < rare).astype(int)
    chain = np.concatenate([P, 1 - P.sum(-1, keepdims=True)], -1)
    after = (draw.random((rows, 1)) > chain[a, s].cumsum(-1)).sum(-1)
    eye = torch.eye(S + 1)
    return {
        "obs": eye[s, :S],
        "action": torch.tensor(a),
        "reward": torch.tensor(R[a, s], dtype=torch.float32),
        "next_obs": eye[after, :S],
        "done": torch.tensor(after == S, dtype=torch.float32),
    }


EVERY = {"obs": torch.eye(S)}
ONE = log_of(*process(), rows=1)
FAST = {"widths": (), "lr": 0.01, "gamma": GAMMA, "tau": 0.1}


def optimal_q(P, R, gamma=GAMMA):
    """By value iteration, which shares nothing with the library's policy iteration."""
    Q = np.zeros_like(R)
    for _ in range(300):
        Q = R + gamma * P @ Q.max(0)
    return Q.T


@pytest.mark.parametrize("make", [DQN, lambda *a, **k: BCQ(*a, threshold=0.0, **k)])
def test_tabular_dqn_finds_the_optimal_values(make):
    P, R = process()
    torch.manual_seed(0)
    agent = make(S, A, **FAST)
    fit(agent, log_of(P, R), steps=700, batch_size=4096)
    with torch.no_grad():
        np.testing.assert_allclose(agent.q(EVERY), optimal_q(P, R), atol=0.08)
    assert agent.policy(EVERY).argmax(1).tolist() == optimal_q(P, R).argmax(1).tolist()


def test_a_terminal_step_is_worth_its_reward_and_no_other_is():
    """The released baselines have it the wrong way round: they bootstrap where the episode ends."""
    torch.manual_seed(0)
    end = {"obs": torch.eye(S), "next_obs": torch.eye(S).roll(1, 0), "reward": torch.arange(4.0)}
    end |= {"action": torch.tensor([0, 1, 0, 1]), "done": torch.ones(4)}
    for agent in (DQN(S), CQL(S), BCQ(S), DiscreteSAC(S), IQL(S), TD3BC(S)):
        assert torch.equal(agent.targets(end), end["reward"])
        on = agent.targets(end | {"done": torch.zeros(4)})
        assert (on - end["reward"]).abs().min() > 1e-6


def test_double_dqn_selects_with_one_net_and_evaluates_with_the_other():
    agent = DQN(S, A, widths=(), gamma=0.5)
    with torch.no_grad():
        agent.net[0].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]]))
        agent.slow.copy[0].weight.copy_(torch.tensor([[5.0, 0, 0, 0], [7, 2, 0, 0]]))
    batch = {"next_obs": torch.eye(S)[:1], "reward": torch.ones(1), "done": torch.zeros(1)}
    assert agent.targets(batch).item() == 1 + 0.5 * 5  # not 7: the net prefers action 0


def test_sac_finds_the_soft_fixed_point():
    P, R = process()
    torch.manual_seed(0)
    agent = DiscreteSAC(S, A, temperature=0.2, **FAST)
    fit(agent, log_of(P, R), steps=700, batch_size=4096)
    q = np.zeros((A, S))
    for _ in range(300):
        q = R + GAMMA * P @ (0.2 * np.log(np.exp(q / 0.2).sum(0)))
    pi = np.exp(q / 0.2) / np.exp(q / 0.2).sum(0)
    with torch.no_grad():
        np.testing.assert_allclose(agent.q(EVERY), q.T, atol=0.08)
        np.testing.assert_allclose(agent.policy(EVERY), pi.T, atol=0.08)


def test_expectile_loss_by_hand_and_its_centre():
    error = torch.tensor([2.0, -1.0])
    assert expectile_loss(error, 0.7).item() == pytest.approx((0.7 * 4 + 0.3 * 1) / 2)
    assert expectile_loss(error, 0.5).item() == pytest.approx(error.square().mean().item() / 2)
    # of 0 and 1, the .9 expectile m: .9 (1 - m) = .1 m
    y, m = torch.tensor([0.0, 1.0]), torch.tensor(0.9, requires_grad=True)
    expectile_loss(y - m, 0.9).backward()
    assert m.grad.item() == pytest.approx(0, abs=1e-6)


def expected_sarsa(P, R, pi):
    """Q of a fixed policy pi (S, A) by iteration."""
    Q = np.zeros_like(R)
    for _ in range(300):
        Q = R + GAMMA * P @ (pi * Q.T).sum(1)
    return Q.T


def test_iql_at_one_half_values_the_log_and_higher_expectiles_approach_the_optimum():
    P, R = process()
    log, found = log_of(P, R), {}
    for expectile in (0.5, 0.95):
        torch.manual_seed(0)
        found[expectile] = IQL(S, A, expectile=expectile, **FAST)
        fit(found[expectile], log, steps=700, batch_size=4096)
    with torch.no_grad():
        q = {k: agent.q(EVERY).numpy() for k, agent in found.items()}
    mu = np.tile([0.7, 0.3], (S, 1))
    np.testing.assert_allclose(q[0.5], expected_sarsa(P, R, mu), atol=0.08)
    best = optimal_q(P, R)
    assert np.abs(q[0.95] - best).mean() < 0.5 * np.abs(q[0.5] - best).mean()
    assert (q[0.95] <= best + 0.08).all()


def test_weighted_cloning_is_cloning_at_zero_and_tilts_the_logs_odds():
    P, R = process()
    log = log_of(P, R)
    shares, q = {}, {}
    for beta in (0.0, 4.0):
        torch.manual_seed(0)
        agent = IQL(S, A, beta=beta, **FAST | {"lr": 0.05})
        fit(agent, log, steps=700, batch_size=2048)
        with torch.no_grad():
            shares[beta], q[beta] = agent.policy(EVERY).numpy(), agent.q(EVERY).numpy()
    torch.manual_seed(0)
    clone = BehaviourCloning(S, A, widths=(), lr=0.01)
    fit(clone, log, steps=500, batch_size=2048)
    with torch.no_grad():
        np.testing.assert_allclose(clone.policy(EVERY), [[0.7, 0.3]] * S, atol=0.03)
    np.testing.assert_allclose(shares[0.0], [[0.7, 0.3]] * S, atol=0.03)
    gap = q[4.0][:, 1] - q[4.0][:, 0]  # equation 7's solution: the log's odds times exp(beta gap)
    odds = np.log(shares[4.0][:, 1] / shares[4.0][:, 0])
    np.testing.assert_allclose(odds, np.log(0.3 / 0.7) + 4 * gap, atol=0.15)
    assert np.abs(4 * gap).max() > 0.5


def test_td3_bc_clones_at_zero_and_maximises_with_a_large_weight():
    P, R = process()
    shares = {}
    for alpha in (0.0, 200.0):
        torch.manual_seed(0)
        agent = TD3BC(S, A, alpha=alpha, **FAST | {"lr": 0.03})
        fit(agent, log_of(P, R), steps=800, batch_size=1024)
        with torch.no_grad():
            shares[alpha] = agent.policy(EVERY).numpy()
    np.testing.assert_allclose(shares[0.0], [[0.7, 0.3]] * S, atol=0.04)
    assert shares[200.0].argmax(1).tolist() == optimal_q(P, R).argmax(1).tolist()
    assert shares[200.0].max(1).mean() > 0.85


def test_td3_bc_actor_loss_by_hand():
    torch.manual_seed(0)
    agent, batch = TD3BC(S, A, widths=(), alpha=2.0), next(iter(Draws(log_of(*process()), 8, 0)))
    with torch.no_grad():
        q = agent.critics[0](batch["obs"])
        pi = agent.actor(batch["obs"]).softmax(-1)
        cloned = -pi[torch.arange(8), batch["action"]].log().mean()
        actor = -2 / q.abs().mean() * (pi * q).sum(1).mean() + cloned
        found = agent.loss(batch, 0) - agent.loss(batch, 1)  # the actor waits at odd steps
    torch.testing.assert_close(found, actor)


def test_bcq_never_does_what_the_log_hardly_does():
    P, R = process()
    R = R.copy()
    R[1] += 5  # worth a lot, and nearly never tried
    log = log_of(P, R, rare=0.02)
    for threshold, action in ((0.3, 0), (0.001, 1)):
        torch.manual_seed(0)
        agent = BCQ(S, A, threshold=threshold, **FAST)
        fit(agent, log, steps=400, batch_size=512)
        assert agent.policy(EVERY).argmax(1).tolist() == [action] * S


def test_cql_lowers_what_the_log_hardly_does_and_is_dqn_at_zero():
    P, R = process()
    gaps = {}
    for alpha in (0.0, 1.0):
        torch.manual_seed(0)
        agent = CQL(S, A, alpha=alpha, **FAST)
        fit(agent, log_of(P, R, rare=0.1), steps=400, batch_size=512)
        with torch.no_grad():
            gaps[alpha] = (agent.q(EVERY)[:, 1] - agent.q(EVERY)[:, 0]).mean().item()
    assert gaps[1.0] < gaps[0.0] - 0.5
    batch = next(iter(Draws(log_of(P, R), 64, 0)))
    torch.manual_seed(0)
    plain = DQN(S, A)
    torch.manual_seed(0)
    assert torch.equal(plain.loss(batch, 0), CQL(S, A, alpha=0.0).loss(batch, 0))


def test_without_a_future_dqn_is_the_myopic_ranker():
    P, R = process()
    torch.manual_seed(0)
    agent = DQN(S, A, widths=(), lr=0.02, gamma=0.0)
    fit(agent, log_of(P, R), steps=500, batch_size=512)
    with torch.no_grad():
        np.testing.assert_allclose(agent.q(EVERY), R.T, atol=0.03)


def test_a_target_network_moves_a_share_of_the_way_and_learns_nothing():
    net = torch.nn.Linear(2, 1)
    slow = TargetNetwork(net, 0.25)
    before = net.weight.detach().clone()
    with torch.no_grad():
        net.weight += 4
    slow.update(net)
    torch.testing.assert_close(slow.copy.weight, before + 1)
    assert not any(p.requires_grad for p in slow.parameters())


def test_same_seed_same_weights_and_what_is_watched():
    P, R = process()
    log, weights = log_of(P, R, rows=500), []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        agent = DQN(S, A)
        how = {"steps": 6, "batch_size": 32, "seed": seed, "checks_per_epoch": 2}
        history = fit(agent, log, watch=lambda a: {"n": a.gamma}, **how).history
        weights.append(agent.net[0].weight.detach().clone())
    assert [(row["step"], row["n"]) for row in history] == [(3, 0.9), (6, 0.9)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_q_of_action_picks_along_the_last_axis():
    values = torch.arange(12.0).view(2, 3, 2)
    assert q_of_action(values, torch.tensor([1, 0, 1])).tolist() == [[1, 2, 5], [7, 8, 11]]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: DQN(S, gamma=1.0), r"gamma must be in \[0, 1\), got 1.0"),
        (lambda: DQN(S, lr=0.0), "lr must be above 0 and finite"),
        (lambda: DQN(S, tau=0.0), r"tau must be in \(0, 1\], got 0.0"),
        (lambda: CQL(S, alpha=-1.0), "alpha must be at least 0 and finite, got -1.0"),
        (lambda: BCQ(S, threshold=2.0), r"threshold must be in \[0, 1\], got 2.0"),
        (
            lambda: DiscreteSAC(S, temperature=0.0),
            "temperature must be above 0 and finite, got 0.0",
        ),
        (lambda: IQL(S, expectile=1.0), r"expectile must be in \(0, 1\), got 1.0"),
        (lambda: IQL(S, beta=-1.0), "beta must be at least 0 and finite, got -1.0"),
        (lambda: TD3BC(S, alpha=-1.0), "alpha must be at least 0 and finite, got -1.0"),
        (lambda: BehaviourCloning(S, lr=-1.0), "lr must be above 0 and finite, got -1.0"),
        (lambda: DQN(S, lr=float("nan")), "lr must be above 0 and finite, got nan"),
        (lambda: fit(DQN(S), ONE | {"done": torch.ones(2)}, steps=1), "one length, at least 1"),
        (lambda: fit(DQN(S), {k: v[:0] for k, v in ONE.items()}, steps=1), "one length, at least"),
        (lambda: fit(DQN(S), {"obs": torch.eye(S)}, steps=1), r"next_obs, done, lacks \['action'"),
        (lambda: OfflineAgent(gamma=-0.1), r"gamma must be in \[0, 1\)"),
    ],
)
def test_bad_values_say_what_is_right(make, says):
    with pytest.raises(ValueError, match=says) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_lookup_draws_what_its_table_says():
    log = {"obs": Lookup(torch.eye(S), torch.tensor([2, 0, 1], dtype=torch.uint8))}
    log["reward"] = torch.tensor([2.0, 0, 1])
    batch = next(iter(Draws(log, 64, 0)))
    assert torch.equal(batch["obs"].argmax(1).float(), batch["reward"])


def test_draws_go_on_where_they_were():
    log = {"row": torch.arange(1000)}
    first = [b["row"] for b in islice(Draws(log, 8, 3), 5)]
    draws = Draws(log, 8, 3)
    draws.load_state_dict({"epoch": 0, "start": 3})
    assert torch.equal(next(iter(draws))["row"], first[3])
    assert torch.equal(next(iter(draws))["row"], first[0])  # and only once
    assert not torch.equal(next(iter(Draws(log, 8, 4)))["row"], first[0])


def test_the_rate_falls_in_a_straight_line():
    P, R = process()
    agent, rates = DQN(S, A, lr=0.08), []
    look = lambda a: rates.append(a.trainer.optimizers[0].param_groups[0]["lr"]) or {}  # noqa: E731
    fit(agent, log_of(P, R, rows=50), steps=4, watch=look, checks_per_epoch=4, batch_size=8)
    assert np.diff(rates) == pytest.approx([-0.02] * 3) and rates[0] in (0.08, 0.06)
