"""RLIV-UA: the sheet's identities, stop-gradient maps, and small worlds solved exactly."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import loop
from paperlab.rl import pairs
from paperlab.rl.rliv_ua import (
    RLIVUA,
    SUPERVISION,
    TRANSFERS,
    Network,
    TaskTowers,
    amount_loss,
    bootstrap,
    liv,
)
from paperlab.rl.worlds.funnel import FunnelModel
from torch.nn import functional as F

fit = partial(loop.fit, accelerator="cpu", precision="32-true")
SMALL = {"bottom": (16, 16), "heads": (8,), "follower": (6, 7)}
STATES = pairs.features()
WEIGHTS, COSTS = torch.tensor([0.1, 0.5, 1.0]), torch.tensor([0.0, 0.02, 0.06])


def batch_of(n=64, seed=0, dense=True, **model):
    log = FunnelModel(**model).log_dataset("uniform", 4 * n, seed, start=(0.25,) * 4)
    rows = torch.from_numpy(np.random.default_rng(seed).permutation(4 * n)[:n])
    batch = {k: v[rows] for k, v in pairs.columns(log).items()}
    if dense:  # one row a sample instead of one a distinct state
        batch |= {k: batch[k].table[batch[k].index.long()] for k in ("obs", "next_obs")}
    return batch


def agent_of(seed=0, **options):
    torch.manual_seed(seed)
    return RLIVUA(8, **{**SMALL, **options})


# Pure functions ----------------------------------------------------------------------------------


def test_one_action_for_all_tasks():
    """Per-task maxima would be 5, 5 and 5, of three different actions."""
    q = torch.tensor([[[5.0, 0, 1]], [[0.0, 5, 1]], [[0.0, 1, 5]]])[None]  # (1, 3, B=1, A=3)
    equal = torch.ones(3)
    assert bootstrap(q, equal, torch.tensor([0.0, 0, 9])).tolist() == [[0], [5], [1]]
    assert bootstrap(q, equal, torch.tensor([0.0, 9, 9])).tolist() == [[5], [0], [0]]
    assert bootstrap(q, torch.tensor([0.0, 0, 1]), torch.zeros(3)).tolist() == [[1], [1], [5]]


def test_the_twins_minimum_is_taken_before_the_choice():
    q = torch.tensor([[3.0, 1.0], [0.0, 2.0]]).view(2, 1, 1, 2).expand(2, 3, 1, 2)
    assert bootstrap(q, torch.ones(3), torch.zeros(2)).tolist() == [[1]] * 3  # mins are 0 and 1
    assert liv(q, torch.ones(3), torch.tensor([0.5, 0])).tolist() == [[-0.5, 3.0]]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_one_action_never_promises_more_than_it_gives(seed):
    generator = torch.Generator().manual_seed(seed)
    q = torch.rand(2, 3, 5, 3, generator=generator) * 10
    found = bootstrap(q, WEIGHTS, COSTS)
    total = torch.tensordot(WEIGHTS, found, 1)
    for b in range(5):
        each = [(WEIGHTS @ q[:, :, b, a].amin(0) - COSTS[a]).item() for a in range(3)]
        a = int(np.argmax(each))
        torch.testing.assert_close(found[:, b], q[:, :, b, a].amin(0))
    assert (total <= torch.tensordot(WEIGHTS, q.amin(0).amax(-1), 1) + 1e-5).all()


def test_the_amount_loss_is_least_at_the_mean():
    amount = torch.distributions.LogNormal(1.0, 1.0).sample((50_000,)).double()
    mean = torch.tensor(3.0, dtype=torch.double, requires_grad=True)
    amount_loss(mean, amount).backward()
    assert mean.grad.item() == pytest.approx(((3 - amount.mean()) / 9).item(), rel=1e-9)
    at = torch.stack([amount_loss(amount.mean() * f, amount) for f in (0.9, 1.0, 1.1)])
    assert at.argmin() == 1
    none = amount_loss(torch.tensor([2.0, 4.0]), torch.tensor([2.0, 2.0]), "none")
    torch.testing.assert_close(none, torch.tensor([1 + np.log(2), 0.5 + np.log(4)]).float())


# The network -------------------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_the_funnel_holds_whatever_the_weights(transfer):
    torch.manual_seed(1)
    net = Network(8, 3, (16, 16), (8,), transfer, True, 0.9, (6, 7))
    with torch.no_grad():
        for p in net.parameters():
            p += 0.5 * torch.randn_like(p)
    found = net(STATES)
    click, follow, gift = found.reward
    assert (follow <= click).all() and (click > 0).all() and (click < 1).all()
    assert (gift <= click * found.amount).all()
    assert not follow.view(4, 4, 3)[:, 2:].any() and (follow.view(4, 4, 3)[:, :2] > 0).all()
    assert (found.q >= found.reward).all() and found.q.shape == (2, 3, 16, 3)  # F >= 0
    want = found.click.sigmoid() * found.gift.sigmoid() * found.amount
    torch.testing.assert_close(gift, want)


def test_adding_nothing_is_sharing():
    torch.manual_seed(2)
    add, shared = TaskTowers(8, (16, 16), "add"), TaskTowers(8, (16, 16), "shared")
    shared.load_state_dict({k: v for k, v in add.state_dict().items() if "pass_on" not in k})
    assert not torch.allclose(add(STATES), shared(STATES))
    with torch.no_grad():
        for g in add.pass_on:
            g.weight.zero_()
    torch.testing.assert_close(add(STATES), shared(STATES))


@pytest.mark.parametrize(
    ("transfer", "reaches"),
    [("add", [1, 1, 1]), ("shared", [0, 0, 1]), ("separate", [0, 0, 1])],
)
def test_what_a_denser_task_learns_reaches_the_next_and_never_back(transfer, reaches):
    """Which tasks' own layers move when only the gift's representation is trained."""
    towers = TaskTowers(8, (16, 16), transfer)
    towers(STATES)[2].square().sum().backward()
    moved = towers.own.weight.grad.flatten(1).abs().sum(1) > 0
    assert moved.tolist() == [bool(r) for r in reaches]
    towers.zero_grad()
    towers(STATES)[0].square().sum().backward()
    assert (towers.own.weight.grad.flatten(1).abs().sum(1) > 0).tolist() == [True, False, False]
    moved = [any(p.grad.abs().sum() > 0 for p in b.parameters()) for b in towers.bottoms]
    assert moved == ([True, False, False] if transfer == "separate" else [True])


# Gradients ---------------------------------------------------------------------------------------


def moved(agent, term, batch):
    agent.zero_grad()
    agent.losses(batch)[term].backward()
    parts = {"rates": agent.net.rates, "values": agent.net.values, "towers": agent.net.towers}
    parts |= {"actor": agent.actor, "slow": agent.slow}
    return {
        name
        for name, part in parts.items()
        if any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    }


def test_stop_gradients():
    agent, batch = agent_of(), batch_of(256)
    assert moved(agent, "td", batch) == {"values", "towers"}
    for term in ("click", "follow", "gift", "amount"):
        assert moved(agent, term, batch) == {"rates", "towers"}
    assert moved(agent, "actor", batch) == {"actor"}


def test_gradients_are_those_of_finite_differences():
    """Along a random direction, in double precision, for what a term moves; running scales held."""
    batch = {k: v.double() if v.is_floating_point() else v for k, v in batch_of(128).items()}
    heads = dict.fromkeys(("click", "follow", "gift", "amount"), ("rates", "towers"))
    split = {"td": ("values",), **heads, "actor": ("actor",)}
    for agent, terms in (
        (agent_of(), split),  # learned rewards and the teacher pass no gradient
        (agent_of(supervision="auxiliary"), {"td": ("values", "towers")}),
    ):
        agent.double().eval()
        parts = {k: getattr(agent.net, k) for k in ("rates", "values", "towers")}
        parts["actor"] = agent.actor
        for term, names in terms.items():
            weights = [w for name in names for w in parts[name].parameters()]
            along = [torch.randn_like(w) for w in weights]
            agent.zero_grad()
            agent.losses(batch)[term].backward()
            pairs_of = zip(weights, along, strict=True)
            slope = sum((w.grad * v).sum() for w, v in pairs_of if w.grad is not None).item()
            sides = []
            for step in (1e-6, -2e-6, 1e-6):  # there, to the other side, and back
                with torch.no_grad():
                    for w, v in zip(weights, along, strict=True):
                        w += step * v
                    sides.append(agent.losses(batch)[term].item())
            assert slope == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5), term
            assert abs(slope) > 1e-4


def test_supervision_decides_which_terms_there_are():
    batch = batch_of()
    for supervision in SUPERVISION:
        agent = agent_of(supervision=supervision)
        terms = set(agent.losses(batch))
        heads = {"click", "follow", "gift", "amount"}
        assert terms == {"td", "actor"} | (set() if supervision == "none" else heads)
        q, reward = agent.net(STATES).q, agent.net(STATES).reward
        assert bool((q >= reward).all()) == (supervision == "split")
        assert (q >= 0).all()


# Targets -----------------------------------------------------------------------------------------


def test_a_lost_pair_is_worth_its_reward():
    agent, batch = agent_of(), batch_of()
    done = torch.arange(64) % 2
    want = 0.95 * bootstrap(agent.slow(batch["next_obs"]).q, WEIGHTS, COSTS) * (1 - done)
    torch.testing.assert_close(agent.targets(batch | {"done": done}), want)
    assert want[:, done == 0].any()


def test_td_error_by_hand():
    agent, batch = agent_of(transfer="shared"), batch_of()
    agent.eval()  # the running variances stay 1
    action, found = batch["action"].long(), agent.net(batch["obs"])
    future = agent.targets(batch)
    total = torch.zeros(())
    for k in range(3):
        for j in range(2):
            for i in range(64):
                q = found.q[j, k, i, action[i]]
                total = total + (found.reward[k, i, action[i]].detach() + future[k, i] - q) ** 2 / 2
    torch.testing.assert_close(agent.losses(batch)["td"], total / 64)
    free = agent_of(transfer="shared", supervision="auxiliary").eval()
    y = torch.stack([batch[t].float() for t in ("click", "follow", "gift")])
    y = y + free.targets(batch)
    q = free.net(batch["obs"]).q[:, :, torch.arange(64), action]
    want = ((y - q) ** 2).sum((0, 1)).mean() / 2  # with the noise of the logged reward
    torch.testing.assert_close(free.losses(batch)["td"], want)


def test_supervised_terms_by_hand():
    agent, batch = agent_of(), batch_of(512)
    found, action = agent.net(batch["obs"]), batch["action"].long()
    rows = torch.arange(512)
    p = {name: getattr(found, name)[rows, action].sigmoid() for name in ("click", "follow", "gift")}
    terms = agent.losses(batch)
    click = F.binary_cross_entropy(p["click"], batch["click"].float())
    torch.testing.assert_close(terms["click"], click)
    free = batch["obs"][:, 6:].sum(1) == 0  # not yet a follower
    follow = F.binary_cross_entropy(
        p["click"] * p["follow"], batch["follow"].float(), reduction="none"
    )
    torch.testing.assert_close(terms["follow"], (follow * free).sum() / 512)
    gave = (batch["gift"] > 0).float()
    torch.testing.assert_close(terms["gift"], F.binary_cross_entropy(p["click"] * p["gift"], gave))
    assert gave.sum() > 0 and 0 < free.sum() < 512
    amount = found.amount[rows, action]
    want = ((batch["gift"] / amount + amount.log()) * gave).sum() / 512
    torch.testing.assert_close(terms["amount"], want)


def test_states_are_computed_once_and_nothing_changes():
    plain, once = batch_of(256), batch_of(256, dense=False)
    agents = [agent_of() for _ in range(2)]
    terms = [a.losses(b) for a, b in zip(agents, (plain, once), strict=True)]
    for name in terms[0]:
        torch.testing.assert_close(terms[0][name], terms[1][name], rtol=1e-5, atol=1e-6)
    for found in terms:
        sum(found.values()).backward()
    for a, b in zip(*(x.parameters() for x in agents), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_parts_of_a_batch_have_the_loss_of_the_whole():
    """Four parts of 64 rows against one of 256, with the running scales held."""
    agent, whole = agent_of().eval(), batch_of(256)
    parts = [{k: v[i : i + 64] for k, v in whole.items()} for i in range(0, 256, 64)]
    total = agent.losses(whole)
    for name, value in total.items():
        mean = torch.stack([agent.losses(p)[name] for p in parts]).mean()
        torch.testing.assert_close(mean, value, rtol=1e-5, atol=1e-6)


# Small worlds ------------------------------------------------------------------------------------


def train(agent, log, steps):
    fit(agent, pairs.columns(log), steps=steps, batch_size=4096, gradient_clip_val=1.0)
    return agent.q({"obs": STATES}).detach().numpy().T.reshape(-1, 4, 4)


def test_with_one_action_q_is_the_policys_value():
    """One action, no rare events: LIV must be the linear solve's value, within 3 % of its spread.

    Not closer, and not at the default discount of .95: the twins' smaller value, bootstrapped, ends
    some per cent too low there, and more steps do not mend it.
    """
    options = {"gift": (-4.0, -3.0, -2.0, -1.0), "gift_means": (1.0,) * 4, "gift_sigma": 0.0}
    options |= {"boost_effects": (0.0,), "boost_costs": (0.0,), "irritation": (0.0,)}
    model = FunnelModel(**options, discount=0.9, forgetting=0.05)
    log = model.log_dataset(0, 400_000, 0, start=(0.25,) * 4)
    torch.manual_seed(0)
    how = {"gamma": model.discount, "follower": (6, 7)}
    agent = RLIVUA(8, costs=(0.0,), lr=0.01, tau=0.25, bottom=(32, 32), heads=(32,), **how)
    found = train(agent, log, 350)[0]
    want = model.exact_values(0).total
    visits = np.bincount(log["state"], minlength=16).reshape(4, 4) / len(log["state"])
    error, spread = (np.sqrt((visits * x**2).sum()) for x in (found - want, want - want.mean()))
    assert error < 0.03 * spread
    wrong = model.exact_values(0, "post_update").total  # forgets nothing
    assert np.sqrt((visits * (wrong - want) ** 2).sum()) > 0.06 * spread


def test_without_a_future_it_is_the_myopic_ranker():
    model = FunnelModel(gift_sigma=0.0)
    log = model.log_dataset("uniform", 400_000, 1, start=(0.25,) * 4)
    agent = agent_of(gamma=0.0, lr=0.01, bottom=(32, 32), heads=(32,), tau=0.25)
    q = train(agent, log, 200)
    found = agent.slow(STATES)
    torch.testing.assert_close(found.q[0], found.reward)  # Q = sg[r]
    want = model.rewards().reshape(3, 4, 4)
    visits = np.bincount(log["state"], minlength=16).reshape(4, 4) / len(log["state"])
    error, spread = (np.sqrt((visits * x**2).sum()) for x in (q - want, want - want.mean()))
    assert error < 0.08 * spread
    ranked = np.sort(want, 0)
    clear = ranked[-1] - ranked[-2] > 0.009  # elsewhere a wrong action costs hardly anything
    assert clear.sum() == 11 and len(np.unique(want.argmax(0)[clear])) == 2
    np.testing.assert_array_equal(q.argmax(0)[clear], want.argmax(0)[clear])


def test_it_learns_a_policy_near_the_optimum_and_the_actor_copies_it():
    model = FunnelModel()
    log = model.log_dataset("uniform", 400_000, 2)
    torch.manual_seed(0)
    agent = RLIVUA(8, lr=0.01, tau=0.25, bottom=(64, 64), heads=(32,), follower=(6, 7))
    greedy = train(agent, log, 350).argmax(0)
    served = agent.policy({"obs": STATES}).argmax(1).numpy().reshape(4, 4)
    worth, copied = (
        model.exact_values(a).new_pair / model.optimal()[1].new_pair for a in (greedy, served)
    )
    assert worth > 0.95  # myopic: .875, never: .870, uniform: .842
    assert copied > 0.90 and abs(copied - worth) < 0.05
    visits = np.bincount(log["state"], minlength=16).reshape(4, 4) / len(log["state"])
    assert (visits * (served == greedy)).sum() > 0.6


def test_same_seed_same_agent():
    log = FunnelModel().log_dataset("uniform", 5000, 0)
    one, two, other = (agent_of(s) for s in (0, 0, 1))
    for agent, seed in ((one, 0), (two, 0), (other, 0)):
        fit(agent, pairs.columns(log), steps=5, batch_size=64, seed=seed)
    same = [torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(one.net.values.layers[0].weight, other.net.values.layers[0].weight)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"transfer": "copy"}, "transfer must be one of add, shared, separate"),
        ({"supervision": "all"}, "supervision must be one of split, auxiliary, none"),
        ({"costs": (0, -1.0)}, "costs must be numbers, at least 0"),
        ({"gamma": 1.0}, r"gamma must be in \[0, 1\)"),
        ({"tau": 0.0}, r"tau must be in \(0, 1\]"),
        ({"costs": (0, float("nan"))}, "costs must be numbers, at least 0"),
    ],
)
def test_bad_options_say_what_is_right(options, says):
    with pytest.raises(ValueError, match=says) as error:
        agent_of(**options)
    assert "\n" not in str(error.value)
