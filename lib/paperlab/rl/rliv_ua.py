"""RLIV-UA: Li et al., "Reinforce Lifelong Interaction Value of User-Author Pairs for Large-Scale
Recommendation Systems", 2025 (arXiv 2507.16253). A reconstruction from the abstract.

The abstract names the parts: a decision process over the sparse, cross-request interactions of a
user-author pair; an approximation of the adjacent state (ASA); multi-task critics that learn
progressively along click, follow, gift (MTCL); an auxiliary supervised task. Every equation here is
a reconstruction, after the same group's SL-MGAC and common multi-task practice:

    r_c = p_c,  r_f = p_c p_f|c,  r_g = p_c p_g|c m_g              supervised funnel heads
    Q_k(s, a) = sg[r_k(s, a)] + gamma F_k(s, a),  F_k >= 0         k = click, follow, gift; twins
    LIV(s, a) = sum_k w_k min_j Q_kj(s, a) - c_a
    a* = argmax_a LIV'(s~, a)                                      one action for all tasks
    gamma F_k  <-  gamma (1 - done) min_j Q'_kj(s~, a*)            s~: the next state, or one near it

The TD error is therefore that of y_k = r_k + ... without the reward noise r_k - E r_k, which only
the supervised heads see. Gifts are heavy-tailed, so m_g is fitted by the gamma deviance, whose
minimiser is the mean. No pair ends in the worlds of this library, so there is no survival head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from ..nn.grouped import GroupedLayerNorm, GroupedLinear
from ..nn.mlp import MLP
from ..nn.towers import GroupedMLP
from .offline import OfflineAgent, TargetNetwork, q_of_action, rows_of

if TYPE_CHECKING:
    from jaxtyping import Float

    from .offline import Batch

TASKS = ("click", "follow", "gift")
TRANSFERS = ("add", "shared", "separate")
SUPERVISION = ("split", "auxiliary", "none")
WEIGHTS = (0.1, 0.5, 1.0)  # of the tasks in LIV
ETA = 2.0  # the actor copies softmax(ETA LIV / spread), the spread of LIV over actions


def liv(
    q: Float[Tensor, "twins 3 B A"], weights: Float[Tensor, 3], costs: Float[Tensor, " A"]
) -> Float[Tensor, "B A"]:
    """Lifelong interaction value: sum_k w_k min_j Q_kj - c_a."""
    return torch.tensordot(weights, q.amin(0), 1) - costs


def bootstrap(
    next_q: Float[Tensor, "twins 3 B A"], weights: Float[Tensor, 3], costs: Float[Tensor, " A"]
) -> Float[Tensor, "3 B"]:
    """Bootstrap value of each task: min_j Q'_kj(s~, a*), with ONE a* = argmax LIV' for all tasks.

    Per-task maxima would mix policies and overestimate: no single action attains them all.
    """
    best = liv(next_q, weights, costs).argmax(-1)
    return q_of_action(next_q.amin(0), best).detach()


def amount_loss(
    mean: Float[Tensor, " n"], amount: Float[Tensor, " n"], reduction: str = "mean"
) -> Float[Tensor, "*out"]:
    """Gamma deviance / 2 up to a constant, y / m + log m: least where m is the mean of y > 0.

    It weighs relative errors, and its minimiser is the mean (that of a squared error of log y is
    the geometric mean).
    """
    loss = amount / mean + mean.log()
    return loss if reduction == "none" else getattr(loss, reduction)()


class Estimates(NamedTuple):
    """The network's estimates for every action."""

    click: Float[Tensor, "B A"]  # logits: of a click, ...
    follow: Float[Tensor, "B A"]  # ... of a follow given a click, ...
    gift: Float[Tensor, "B A"]  # ... of a gift given a click
    amount: Float[Tensor, "B A"]  # mean value of a gift, > 0
    reward: Float[Tensor, "3 B A"]  # by the funnel
    q: Float[Tensor, "2 3 B A"]


class TaskTowers(nn.Module):
    """A representation for each of click, follow, gift: (B, d_obs) to (3, B, d).

    transfer: what a sparser task gets from the denser one before it. ``add``: h~_k = h_k +
        G_k h~_{k-1}; ``shared``: the bottom network only; ``separate``: nothing.
    """

    def __init__(self, d_obs: int, bottom: Sequence[int], transfer: str):
        super().__init__()
        *hidden, d = bottom
        copies = 3 if transfer == "separate" else 1
        bottom = [MLP(d_obs, hidden, d, activation=nn.ELU) for _ in range(copies)]
        self.bottoms = nn.ModuleList(bottom)
        self.own = GroupedLinear(3, d, d)
        passed = 2 if transfer == "add" else 0
        self.pass_on = nn.ModuleList(nn.Linear(d, d, bias=False) for _ in range(passed))  # G_k
        self.norm = GroupedLayerNorm(3, d)

    def forward(self, obs: Float[Tensor, "B d_obs"]) -> Float[Tensor, "3 B d"]:
        x = torch.stack([bottom(obs) for bottom in self.bottoms])
        h = list(F.elu(self.own(x.expand(3, -1, -1))))
        for k, G in enumerate(self.pass_on, 1):  # along the funnel
            h[k] = h[k] + G(h[k - 1])
        return self.norm(torch.stack(h))


class Network(nn.Module):
    """Towers, funnel heads and twin value heads."""

    def __init__(self, d_obs, n_actions, bottom, heads, transfer, split, gamma, follower):
        super().__init__()
        self.split, self.gamma, self.follower = split, gamma, list(follower)
        self.towers = TaskTowers(d_obs, bottom, transfer)
        widths = (bottom[-1], *heads, n_actions)
        self.rates = GroupedMLP(4, widths)  # click, follow, gift, amount
        self.values = GroupedMLP(6, widths)

    def forward(self, obs: Float[Tensor, "B d_obs"]) -> Estimates:
        h = self.towers(obs)
        click, follow, gift, amount = self.rates(h[[0, 1, 2, 2]])
        amount = F.softplus(amount) + 1e-4
        p_click = click.sigmoid()
        r_follow = p_click * follow.sigmoid() * self.may_follow(obs)[:, None]
        reward = torch.stack([p_click, r_follow, p_click * gift.sigmoid() * amount])
        value = F.softplus(self.values(h.repeat(2, 1, 1))).unflatten(0, (2, 3))
        q = reward.detach() + self.gamma * value if self.split else value
        return Estimates(click, follow, gift, amount, reward, q)

    def may_follow(self, obs: Float[Tensor, "B d_obs"]) -> Float[Tensor, " B"]:
        """0 for a pair that follows already, else 1."""
        return 1 - obs[:, self.follower].sum(1)


class RLIVUA(OfflineAgent):
    """The agent. A batch has ``obs`` and ``next_obs`` (B, d) or `States`, the latter the next state
    or what stands in for it; ``action``, ``click``, ``follow`` in {0, 1}, ``gift`` value >= 0, all
    (B,); ``done`` (B,): 1 where the pair is known to be lost.

    costs: of the actions (A of them), >= 0.
    bottom, heads: widths of the shared network and of every head. transfer: see `TaskTowers`.
    supervision: ``split``, as above; ``auxiliary``: the funnel heads shape the representation only
        and Q is free, Q = softplus, with the noise of the logged reward in its TD error; ``none``:
        the same, and no funnel heads are trained.
    follower: columns of obs that are 1 for a pair that follows: it cannot follow again.
    tau: share by which the target network moves each step, (0, 1].
    Raises ValueError for values out of range.
    """

    columns = ("obs", "action", "next_obs", "done", *TASKS)

    def __init__(
        self,
        d_obs: int,
        *,
        costs: Sequence[float] = (0.0, 0.02, 0.06),
        gamma: float = 0.95,
        lr: float = 1e-3,
        bottom: Sequence[int] = (256, 128),
        heads: Sequence[int] = (64, 32),
        transfer: str = "add",
        supervision: str = "split",
        follower: Sequence[int] = (),
        tau: float = 0.005,
    ):
        super().__init__(gamma, lr)
        checks.one_of(TRANSFERS, transfer=transfer)
        checks.one_of(SUPERVISION, supervision=supervision)
        if not costs or not all(0 <= cost < float("inf") for cost in costs):
            raise ValueError(f"costs must be numbers, at least 0, one an action, got {costs}")
        self.supervision = supervision
        self.register_buffer("weights", torch.tensor(WEIGHTS), persistent=False)
        self.register_buffer("costs", torch.tensor(costs), persistent=False)
        self.register_buffer("spread", torch.ones(4))  # var of y by task; squared spread of LIV
        self.split, A = supervision == "split", len(costs)
        self.net = Network(d_obs, A, bottom, heads, transfer, self.split, gamma, follower)
        self.slow = TargetNetwork(self.net, tau)
        self.actor = MLP(d_obs, heads, A, activation=nn.ELU)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Every term by name. The network sees each row of `States` once."""
        obs, row = rows_of(batch["obs"])
        est = self.net(obs)
        cell = row * len(self.costs) + batch["action"]

        def logged(values: Float[Tensor, "*k U A"]) -> Float[Tensor, "*k B"]:
            return values.flatten(-2).index_select(-1, cell)

        terms = {"td": self._td(est, batch, logged)}
        if self.supervision != "none":
            terms |= self._supervised(est, batch, logged, self.net.may_follow(obs)[row])
        score = liv(est.q, self.weights, self.costs).detach()
        score = score - score.mean(1, keepdim=True)
        self._track(3, score.square().mean(1)[row].mean())
        teacher = (ETA * score / self.spread[3].sqrt()).softmax(-1)
        each = F.cross_entropy(self.actor(obs), teacher, reduction="none")
        return terms | {"actor": each[row].mean()}

    def loss(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        self.slow.update(self.net)
        return sum(self.losses(batch).values())

    @torch.no_grad()
    def targets(self, batch: Batch) -> Float[Tensor, "3 B"]:
        """Targets of the future part of Q: gamma (1 - done) min_j Q'_kj(s~, a*)."""
        after, row = rows_of(batch["next_obs"])
        value = bootstrap(self.slow(after).q, self.weights, self.costs)
        return self.gamma * (1 - batch["done"]) * value[:, row]

    def _td(self, est: Estimates, batch, logged: Callable) -> Float[Tensor, ""]:
        """sum_k lambda_k sum_j (y_k - Q_kj)^2 / 2, lambda_k = 1 / the running variance of y_k."""
        reward = logged(est.reward).detach()
        if not self.split:
            reward = torch.stack([batch[task].to(reward) for task in TASKS])
        y = reward + self.targets(batch)
        self._track(slice(3), y.var(1))
        error = (y - logged(est.q)) / self.spread[:3, None].sqrt()
        return 6 * error.square().mean() / 2

    def _supervised(self, est: Estimates, batch, logged: Callable, may_follow) -> dict:
        """Each rate on all exposures, not only on clicks, through the funnel's products."""
        click = logged(est.click)
        terms = {"click": F.binary_cross_entropy_with_logits(click, batch["click"].to(click))}
        gave = (batch["gift"] > 0).to(click)
        for name, happened in (("follow", batch["follow"].to(click)), ("gift", gave)):
            logit = logged(getattr(est, name))
            yes = F.logsigmoid(click) + F.logsigmoid(logit)  # log(p_c p)
            no = torch.logaddexp(F.logsigmoid(-click), F.logsigmoid(click) + F.logsigmoid(-logit))
            each = -(happened * yes + (1 - happened) * no)
            if name == "follow":
                each = each * may_follow
            terms[name] = each.mean()
        each = amount_loss(logged(est.amount), batch["gift"], "none")
        return terms | {"amount": (each * gave).mean()}

    def _track(self, k: int | slice, now: Tensor) -> None:
        """A running second moment, kept off zero."""
        if self.training:
            self.spread[k] = self.spread[k].lerp(now.detach().clamp_min(1e-6), 0.02)

    def policy(self, batch: Batch) -> Float[Tensor, "B A"]:
        """The actor's probabilities: all that serving needs."""
        return self.actor(batch["obs"]).softmax(-1)

    def q(self, batch: Batch) -> Float[Tensor, "B A"]:
        """LIV of every action, by the slow copy of the critics: an average over recent steps."""
        return liv(self.slow(batch["obs"]).q, self.weights, self.costs)
