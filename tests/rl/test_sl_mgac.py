"""SL-MGAC: the sheet's worked numbers, what may and may not pass a gradient, slow versions."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import loop
from paperlab.nn.towers import GroupTowers, group_index
from paperlab.rl.sl_mgac import (
    EDGES,
    MERGES,
    SLMGAC,
    T_BAN,
    Buckets,
    columns,
    huber,
    reward,
    target,
    teacher,
)
from paperlab.rl.worlds.live import LiveModel

T = torch.tensor
LIVE, VIDEO = (Buckets(EDGES[name]) for name in ("live", "video"))
fit = partial(loop.fit, accelerator="cpu", precision="32-true")


def close(found, wanted, atol=1e-6):
    torch.testing.assert_close(found, T(wanted, dtype=found.dtype), atol=atol, rtol=0)


# Pure functions ----------------------------------------------------------------------------------


def test_reward_of_a_request():
    live, video = T([0.0, 10.0, 60.0, 999.0]), T([10.0, 10.0, 10.0, 5.0])
    inserted = T([True, True, True, False])
    close(reward(live, video, inserted), [0.268941, 0.5, 0.993307, 0.214165])
    close(T([T_BAN]), [10 + 15 * (0.34 - 0.3) / 0.2])


def test_columns_of_a_log_train_the_agent():
    log = LiveModel().log_dataset(lambda seen: np.full((len(seen), 2), 0.5), 500, 0)
    data = columns(log)
    agent_of().check(data)
    assert torch.equal(data["obs"][:, :6].argmax(1), data["group"])
    found = reward(data["live"], data["video"], data["action"] == 1)
    torch.testing.assert_close(found, data["reward"])
    assert torch.equal(
        data["next_obs"][:, :6].argmax(1), data["group"]
    )  # users stay in their groups


@pytest.mark.parametrize(
    ("e", "slope", "loss"), [(0.05, 1, 0.00125), (0.5, 1, 0.405), (-0.5, 2, 0.805)]
)
def test_huber_worked_numbers(e, slope, loss):
    assert huber(T([e]), slope).item() == pytest.approx(loss)
    values = huber(T([e, 0.0]), slope, reduction="none")
    assert values.tolist() == pytest.approx([loss, 0])
    assert huber(T([e, 0.0]), slope, reduction="sum").item() == pytest.approx(loss)


def test_huber_pulls_like_a_median_beyond_delta():
    e = T([0.05, 0.3, -2.0], requires_grad=True)
    huber(e, 2.0, reduction="sum").backward()
    close(e.grad, [0.05, 2.0, -2.0])
    y = torch.cat([torch.zeros(60), torch.ones(40)])  # mean .4, median 0
    centre = T([0.5], requires_grad=True)
    for _ in range(300):
        (slope,) = torch.autograd.grad(huber(y - centre), centre)
        centre = (centre - 0.02 * slope).detach().requires_grad_()
    assert centre.item() == pytest.approx(0.1, abs=0.02)  # delta away from the median


@pytest.mark.parametrize(
    ("code", "seconds", "bucket", "ratio"),
    [
        (LIVE, 10.0, 1, 4 / 9),
        (LIVE, 300.0, 5, 0.4),
        (VIDEO, 20.0, 2, 2 / 3),
        (LIVE, 0.0, 0, 0.0),
        (LIVE, 6.0, 1, 0.0),
        (LIVE, 5000.0, 6, 1.0),  # the released code falls through to bucket 0
    ],
)
def test_watch_time_codes(code, seconds, bucket, ratio):
    index, share = code.encode(T([seconds]))
    assert index.item() == bucket and share.item() == pytest.approx(ratio)


@given(st.floats(0, 1199, width=32, allow_subnormal=False))
@settings(max_examples=200, deadline=None)
def test_decoding_undoes_encoding(seconds):
    for code in (LIVE, VIDEO):
        bucket, ratio = code.encode(T([seconds]))
        assert 0 <= ratio.item() <= 1
        assert code.decode(bucket, ratio).item() == pytest.approx(seconds, abs=1e-3)


def test_target_is_pessimistic_over_twins_greedy_over_actions_and_ends():
    q = T([[[1.0, 0.5]], [[0.8, 0.9]]], requires_grad=True)
    y = target(T([0.268941]), T([0.0]), q, 0.9)
    close(y, [0.988941])
    assert not y.requires_grad
    close(target(T([0.268941]), T([1.0]), q, 0.9), [0.268941])


def test_teacher_is_a_softmax_at_temperature_one_half():
    close(teacher(T([[1.2, 0.7], [3.0, 3.0]])), [[0.731059, 0.268941], [0.5, 0.5]])


# Towers ------------------------------------------------------------------------------------------


def towers_of(x, tower, net):
    to = group_index(tower, int(net.layers[0].weight.shape[0] / net.heads))
    return net(to.scatter(x), to)


@pytest.mark.parametrize("groups", [[0, 3, 3, 1, 3, 0], [2] * 6, [0, 1, 2, 3, 3, 3]])
def test_towers_equal_a_loop_over_samples(groups):
    torch.manual_seed(0)
    net, x = GroupTowers(5, (4, 3), 2, towers=4, heads=3), torch.randn(6, 5)
    found = towers_of(x, T(groups), net)
    assert found.shape == (3, 6, 2)
    for head in range(3):
        for i, g in enumerate(groups):
            h = x[i]
            for k, layer in enumerate(net.layers):
                h = h @ layer.weight[head * 4 + g] + layer.bias[head * 4 + g]
                h = torch.nn.functional.elu(h) if k < 2 else h
            torch.testing.assert_close(found[head, i], h)


def test_a_sample_meets_its_own_tower_only():
    torch.manual_seed(0)
    net, x, tower = (
        GroupTowers(5, (4,), 2, towers=3),
        torch.randn(8, 5),
        T([0, 0, 2, 2, 0, 2, 2, 0]),
    )
    before = towers_of(x, tower, net)
    before.sum().backward()
    for layer in net.layers:
        assert layer.weight.grad[1].abs().sum() == 0  # no sample of group 1
        assert layer.weight.grad[0].abs().sum() > 0
    with torch.no_grad():
        for layer in net.layers:
            layer.weight[2] += 1
    moved = (towers_of(x, tower, net) - before).abs().amax((0, 2)) > 0
    assert moved.tolist() == (tower == 2).tolist()


def test_merges_are_the_papers():
    for k, towers in MERGES.items():
        assert sorted(set(towers)) == list(range(k)) and len(towers) == 6


# The agent ---------------------------------------------------------------------------------------

B, D = 48, 8
SMALL = {"encoder": (16, 8), "towers": (8, 4)}


def batch_of(seed=0, rows=B):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(shape, generator=g)  # noqa: E731
    action = (draw(rows) < 0.5).long()
    live = (draw(rows) * 300) * action
    video = 5 + draw(rows) * 20
    batch = {"obs": draw(rows, D), "next_obs": draw(rows, D), "action": action}
    batch |= {"group": torch.arange(rows) % 6, "done": (draw(rows) < 0.1).float()}
    batch |= {"live": live, "video": video, "reward": reward(live, video, action == 1)}
    batch |= {"next_live": live.roll(1), "next_video": video.roll(1), "next_action": action.roll(1)}
    return batch


def agent_of(seed=0, **options):
    torch.manual_seed(seed)
    agent = SLMGAC(D, **{**SMALL, **options})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # biases away from zero, so that a forgotten one shows
        for p in agent.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    return agent


def moved(agent, loss):
    """Names of parameters that a loss sends a gradient to."""
    agent.zero_grad(set_to_none=True)
    loss.backward()
    return {n for n, p in agent.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def parts(names):
    return {
        ".".join(n.split(".")[:3]) if n.startswith("critics") else n.split(".")[0] for n in names
    }


def test_what_each_loss_may_teach():
    agent, batch = agent_of(), batch_of()
    terms = agent.losses(batch, 0)
    assert set(terms) == {"td", "reward", "live", "live bucket", "video", "video bucket", "actor"}
    assert parts(moved(agent, agent.losses(batch, 0)["td"])) == {"encoder", "critics.0.value"}
    for name in ("reward", "live", "live bucket", "video", "video bucket"):
        found = moved(agent, agent.losses(batch, 0)[name])
        assert parts(found) == {"encoder", "critics.0.time"}, name
    assert parts(moved(agent, agent.losses(batch, 0)["actor"])) == {"actor"}


def test_critics_learn_in_turn_and_the_idle_one_does_not_move():
    agent, batch = agent_of(), batch_of()
    optimizer = torch.optim.Adam(agent.parameters(), lr=agent.lr)
    for step in range(4):
        before = [[p.clone() for p in c.parameters()] for c in agent.critics]
        optimizer.zero_grad(set_to_none=True)
        agent.loss(batch, step).backward()
        optimizer.step()
        same = [
            all(torch.equal(a, b) for a, b in zip(old, c.parameters(), strict=True))
            for old, c in zip(before, agent.critics, strict=True)
        ]
        assert same == [step % 2 == 1, step % 2 == 0]  # momentum of an idle critic is at rest too


def test_the_target_comes_from_the_peer():
    agent, batch = agent_of(), batch_of()
    td = agent.losses(batch, 0)["td"].item()
    with torch.no_grad():
        agent.critics[1].value.layers[-1].bias += 1
    assert agent.losses(batch, 0)["td"].item() != td
    ended = batch | {"done": torch.ones(B)}
    td = agent.losses(ended, 0)["td"].item()
    with torch.no_grad():
        agent.critics[1].value.layers[-1].bias += 1
    assert agent.losses(ended, 0)["td"].item() == td


def test_a_price_reaches_the_target_and_nothing_else():
    agent, batch = agent_of(), batch_of()
    plain, paid = (agent.losses(batch | more, 0) for more in ({}, {"price": torch.full((B,), 0.7)}))
    assert {k for k in plain if not torch.equal(plain[k], paid[k])} == {"td"}
    shifted = agent.losses(batch | {"reward": batch["reward"] + 0.7}, 0)
    assert torch.allclose(paid["td"], shifted["td"]) and shifted["reward"] != plain["reward"]


def slow_critic(critic, x, group, twin):
    """Times, reward and Q of one sample by the sheet's formulas, head by head."""
    x = torch.nn.functional.layer_norm(x, x.shape)

    def tower(net, head):
        h, at = x, head * 6 + int(group)
        for k, layer in enumerate(net.layers):
            h = h @ layer.weight[at] + layer.bias[at]
            h = torch.nn.functional.elu(h) if k + 1 < len(net.layers) else h
        return h

    outs = [tower(critic.time, 2 * twin + k) for k in range(2)]
    shares = [o[:7].softmax(0) for o in outs]
    rhos = [o[7:].sigmoid() for o in outs]
    edges = [(0, 6, 15, 30, 60, 100, 600, 1200), (0, 3, 10, 25, 50, 100, 600, 1200)]
    times = [
        [e[i] + rho[i] * (e[i + 1] - e[i]) for i in range(7)]
        for e, rho in zip(edges, rhos, strict=True)
    ]
    mean = [
        sum(p * t for p, t in zip(share, time, strict=True))
        for share, time in zip(shares, times, strict=True)
    ]
    insert = torch.sigmoid(0.1 * (mean[0] - mean[1]))
    none = torch.sigmoid(0.1 * (rhos[0][7] * 1 - rhos[1][7] * 25))
    r = torch.stack([none, insert])
    return r + 0.9 * torch.nn.functional.elu(tower(critic.value, twin)), r


def test_q_equals_the_formulas_head_by_head():
    agent, batch = agent_of(), batch_of(rows=9)
    x, to = agent.encoder(batch["obs"]), agent.group_index(batch)
    q, times = agent.critics[1](to.scatter(x), to)
    for i in range(9):
        for twin in range(2):
            want_q, want_r = slow_critic(agent.critics[1], x[i], batch["group"][i], twin)
            torch.testing.assert_close(q[twin, i], want_q, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(times.reward[twin, i], want_r, rtol=1e-4, atol=1e-5)
    assert ((times.reward >= 0) & (times.reward <= 1)).all()
    assert (q >= times.reward - 0.9).all()  # ELU > -1


def test_losses_by_hand():
    agent, batch = agent_of(), batch_of(rows=12)
    to = agent.group_index(batch)
    q, times = agent.critics[0](to.scatter(agent.encoder(batch["obs"])), to)
    after, _ = agent.critics[1](to.scatter(agent.encoder(batch["next_obs"])), to)
    y = target(batch["reward"], batch["done"], after, 0.9)
    want = dict.fromkeys(("td", "reward", "live", "video", "live bucket"), 0.0)
    bucket, rho = LIVE.encode(batch["live"])
    _, video_rho = VIDEO.encode(batch["video"])
    video_bucket, _ = VIDEO.encode(batch["video"])
    for i, a in enumerate(batch["action"].tolist()):
        for twin in range(2):
            ratios = times.ratios[twin, :, i]
            want["td"] += huber(y[i] - q[twin, i, a])
            want["reward"] += huber(batch["reward"][i] - times.reward[twin, i, a])
            want["live"] += huber((rho[i] if a else 0) - ratios[0, bucket[i] if a else 7])
            goal = video_rho[i] if a else T(0.52)
            want["video"] += huber(goal - ratios[1, video_bucket[i] if a else 7], 2.0)
            want["live bucket"] -= times.logp[twin, 0, i, bucket[i]] if a else 0
    found = agent.losses(batch, 0)
    for name, total in want.items():
        torch.testing.assert_close(found[name], total / 12, rtol=1e-4, atol=1e-6)


def test_without_a_future_q_is_the_predicted_reward():
    agent, batch = agent_of(gamma=0.0), batch_of()
    to = agent.group_index(batch)
    q, times = agent.critics[0](to.scatter(agent.encoder(batch["obs"])), to)
    assert torch.equal(q, times.reward) and not moved(agent, agent.losses(batch, 0)["reward"]) & {
        n for n, _ in agent.named_parameters() if ".value." in n
    }


def test_one_tower_equals_six_tied_ones():
    six, one, batch = agent_of(merge=6), agent_of(merge=1), batch_of()
    state = {}
    for name, p in six.state_dict().items():
        if (
            name.split(".")[-2].isdigit()
            and p.shape[0] % 6 == 0
            and p.shape != one.state_dict()[name].shape
        ):
            state[name] = one.state_dict()[name].repeat_interleave(6, 0)
        else:
            state[name] = one.state_dict()[name]
    six.load_state_dict(state)
    torch.testing.assert_close(six.q(batch), one.q(batch))
    torch.testing.assert_close(six.policy(batch), one.policy(batch))


def test_the_free_head_has_no_reward_in_it():
    agent, batch = agent_of(split=False), batch_of()
    to = agent.group_index(batch)
    x = to.scatter(agent.encoder(batch["obs"]))
    q, _ = agent.critics[0](x, to)
    assert torch.equal(q, agent.critics[0].value(agent.critics[0].norm(x), to))


def test_the_leaky_critic_knows_the_outcome_and_the_fixed_one_does_not():
    batch = batch_of()
    inserted = batch["action"] == 1
    longer = batch | {"live": torch.where(inserted, batch["live"] + 400, batch["live"])}
    fixed, leaky = agent_of(), agent_of(leaky=True)
    assert torch.equal(fixed.q(batch), fixed.q(longer))
    assert (leaky.q(longer) - leaky.q(batch))[inserted, 1].mean() > 0.05
    # nothing inserted: it reads live [0, 6) and video [10, 25), so that r(insert) <= sigma(-.4)
    to = leaky.group_index(batch)
    x = to.scatter(leaky.encoder(batch["obs"]))
    _, times = leaky.critics[0](x, to, leaky._seen(batch, ""))
    assert times.reward[:, ~inserted, 1].max() <= 1 / (1 + math.exp(0.4)) + 1e-6
    assert "live bucket" not in leaky.losses(batch, 0)


def test_bandit_with_known_rewards_is_learned():
    """gamma has nothing to do where every step ends: the value tower's target is 0."""
    batch = batch_of(rows=600)
    batch["done"] = torch.ones(600)
    batch["live"] = torch.where(batch["group"] < 3, 60.0, 1.0) * batch["action"]
    batch["video"][:] = 20.0
    batch["reward"] = reward(batch["live"], batch["video"], batch["action"] == 1)
    agent = SLMGAC(D, **SMALL, lr=0.01)
    torch.manual_seed(0)
    fit(agent, batch, steps=300, batch_size=256)
    with torch.no_grad():
        q, pi = agent.q(batch), agent.policy(batch)
    for group, insert in ((1, 0.982), (4, 0.130)):
        mine = batch["group"] == group
        close(q[mine].mean(0), [0.2142, insert], atol=0.05)
        close(pi[mine].mean(0), teacher(T([0.2142, insert])).tolist(), atol=0.04)


def test_same_seed_same_agent():
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        agent = SLMGAC(D, **SMALL)
        fit(agent, batch_of(), steps=4, batch_size=16, seed=seed)
        found.append(torch.cat([p.detach().flatten() for p in agent.parameters()]))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("options", [{}, {"error": "squared"}])
def test_gradients_in_double_precision(options):
    agent, batch = agent_of(**options).double(), batch_of(rows=10)
    batch = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    terms, weight = agent.losses(batch, 0), agent.critics[0].time.layers[-1].weight
    loss = sum(v for k, v in terms.items() if k != "actor")
    (slope,) = torch.autograd.grad(loss, weight)
    at = slope.abs().argmax().item()
    eps, ends = 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            weight.view(-1)[at] += sign * eps
            # q changes with the weight only through sg[r], so the TD term is held back
            ends.append(
                sum(v for k, v in agent.losses(batch, 0).items() if k not in ("actor", "td"))
            )
            weight.view(-1)[at] -= sign * eps
    assert slope.view(-1)[at].item() == pytest.approx(
        ((ends[0] - ends[1]) / (2 * eps)).item(), rel=1e-4
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SLMGAC(D, merge=7), "merge must be one of 1, 2, 3, 4, 5, 6, not 7"),
        (lambda: SLMGAC(D, error="l1"), "error must be one of huber, squared"),
        (lambda: SLMGAC(D, gamma=1.0), r"gamma must be in \[0, 1\), got 1.0"),
        (lambda: huber(T([1.0]), reduction="max"), "reduction must be one of mean, sum, none"),
    ],
)
def test_bad_values_say_what_is_right(make, says):
    with pytest.raises(ValueError, match=says) as error:
        make()
    assert "\n" not in str(error.value)
