"""SL-MGAC: Liu et al., "Supervised Learning-enhanced Multi-Group Actor Critic for Live Stream
Allocation in Feed", KDD 2025 (arXiv 2412.10381).

Per request an agent inserts one live stream among the videos (action 1) or none (action 0). A user
belongs to one of six groups, and every head has a tower for each group. Per critic,

    T(s, a)  = sum_i p_i (b_i + rho_i w_i)                live and video seconds, in 7 buckets
    r(s, a)  = sigmoid(0.1 (T_live - T_video))            supervised
    Q(s, a)  = sg[r(s, a)] + gamma ELU(v(s, a))           only the future is bootstrapped
    y        = r + gamma (1 - done) max_a' min_j Q'_j(s', a')

with Q' from a peer: two pairs of critics learn in turn, each the other's target. The actor copies
softmax(2 min_j Q_j); serving needs nothing else.

Architecture, constants and losses are those of the authors' research code; the paper's own tables
were not at hand. What differs: the bucket probabilities p (the released critic reads the OBSERVED
bucket, ``leaky=True``), a dense encoder in place of sequence attention, LayerNorm without weights
(the linear layer after it has them), means instead of sums in the losses, initial weights, and the
option ``error``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from ..nn.mlp import MLP
from ..nn.towers import GroupIndex, GroupTowers, group_index
from .offline import OfflineAgent, q_of_action

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float, Int

    from .offline import Batch, Log

T_BAN = 13.0  # s; not inserting counts like this much video: 10 + 15 (.34 - .3) / .2
# Which of the six groups (Core, Gift, Potential old and new, Long old and new) share a tower.
MERGES = {
    1: (0, 0, 0, 0, 0, 0),
    2: (0, 0, 1, 1, 1, 1),
    3: (0, 0, 1, 1, 2, 2),
    4: (0, 1, 2, 2, 3, 3),
    5: (0, 0, 1, 2, 3, 4),
    6: (0, 1, 2, 3, 4, 5),
}
# By signal, live then video:
EDGES = {  # of the buckets, seconds; video is the mean over a page's videos
    "live": (0.0, 6.0, 15.0, 30.0, 60.0, 100.0, 600.0, 1200.0),
    "video": (0.0, 3.0, 10.0, 25.0, 50.0, 100.0, 600.0, 1200.0),
}
RANGE = (1.0, 25.0)  # seconds that the head of not inserting spans ...
ASIDE = (0.0, T_BAN / 25)  # ... and its constant target
UNSEEN = (0, 2)  # buckets that the leaky critic reads when nothing was inserted
SLOPES = (1.0, 2.0)  # of the Huber loss of the ratios


def reward(
    live: Float[Tensor, " B"], video: Float[Tensor, " B"], inserted: Bool[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Reward of a request, from live and mean video watch time in seconds.

    sigmoid(0.1 (live - video)) if a stream was inserted, else sigmoid(-1.3) = .2142; in (0, 1).
    """
    return torch.sigmoid(0.1 * torch.where(inserted, live - video, -T_BAN))


def columns(log: Mapping[str, np.ndarray]) -> Log:
    """A log of `LiveModel.log_dataset`, made by a policy of observations, as the agent reads it."""
    reals = {"live": "live_seconds", "video": "video_seconds", "reward": "paper", "done": "done"}
    data = {k: torch.tensor(log[v]).float() for k, v in reals.items()}
    data |= {k: torch.tensor(log[k]).long() for k in ("action", "group")}
    return data | {k: torch.from_numpy(log[k]) for k in ("obs", "next_obs")}


class Buckets(nn.Module):
    """Watch time as a bucket and a ratio inside it; edges in seconds, the last one is a ceiling."""

    def __init__(self, edges: Sequence[float]):
        super().__init__()
        self.register_buffer("starts", torch.tensor(edges[:-1]), persistent=False)
        self.register_buffer("widths", torch.tensor(edges).diff(), persistent=False)

    def encode(self, seconds: Float[Tensor, " B"]) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
        """Bucket in 0..6 and ratio in [0, 1]; times are clipped into the outer edges."""
        seconds = seconds.clamp(self.starts[0], self.starts[-1] + self.widths[-1])
        bucket = torch.bucketize(seconds, self.starts[1:], right=True)
        return bucket, (seconds - self.starts[bucket]) / self.widths[bucket]

    def decode(self, bucket: Int[Tensor, " B"], ratio: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Seconds."""
        return self.starts[bucket] + ratio * self.widths[bucket]


def huber(
    error: Float[Tensor, "*shape"], slope: float = 1.0, delta: float = 0.1, reduction: str = "mean"
) -> Float[Tensor, "*out"]:
    """The released loss: e^2 / 2 up to delta, then ``slope`` per unit more.

    Its derivative jumps from delta to slope, so that with delta = .1 it pulls almost like |e|:
    towards the median, not the mean. reduction: mean, sum or none.
    """
    checks.one_of(("mean", "sum", "none"), reduction=reduction)
    size = error.abs()
    small = size.clamp(max=delta)
    loss = small.square() / 2 + slope * (size - small)
    return loss if reduction == "none" else getattr(loss, reduction)()


def target(
    reward: Float[Tensor, " B"],
    done: Float[Tensor, " B"],
    next_q: Float[Tensor, "twins B A"],
    gamma: float,
) -> Float[Tensor, " B"]:
    """y = r + gamma (1 - done) max_a min_j Q'_j(s', a); passes no gradient."""
    return (reward + gamma * (1 - done) * next_q.amin(0).amax(-1)).detach()


def teacher(q: Float[Tensor, "B A"], eta: float = 2.0) -> Float[Tensor, "B A"]:
    """softmax(eta Q), what the actor copies; passes no gradient."""
    return torch.softmax(eta * q.detach(), -1)


class Times(NamedTuple):
    """Watch times as one pair of critics predicts them."""

    logp: Float[Tensor, "twins 2 B 7"] | None  # of the buckets, live then video
    ratios: Float[Tensor, "twins 2 B 8"]  # inside each bucket, and of not inserting
    reward: Float[Tensor, "twins B 2"]  # r(s, not insert), r(s, insert)


class TimeCritic(nn.Module):
    """Two critics: bucketed live and video time, the reward they make, and the future value."""

    def __init__(self, d_in: int, widths: Sequence[int], towers: int, agent: SLMGAC):
        super().__init__()
        self.leaky, self.split, self.gamma = agent.leaky, agent.split, agent.gamma
        self.norm = nn.LayerNorm(d_in, elementwise_affine=False) if agent.norm else nn.Identity()
        self.time = GroupTowers(d_in, widths, 8 if agent.leaky else 15, towers, heads=4)
        self.value = GroupTowers(d_in, widths, 2, towers, heads=2)
        edges = torch.tensor(list(EDGES.values()))[:, None]
        self.register_buffer("starts", edges[..., :-1], persistent=False)  # (2, 1, 7)
        self.register_buffer("widths", edges.diff(), persistent=False)

    def forward(
        self,
        x: Float[Tensor, "towers capacity d_in"],
        to: GroupIndex,
        seen: Int[Tensor, "2 B"] | None = None,
    ) -> tuple[Float[Tensor, "twins B 2"], Times]:
        """Q, and predicted times. seen: observed buckets (live, video), for the leaky critic only."""
        x = self.norm(x)
        times = self._times(self.time(x, to).unflatten(0, (2, 2)), seen)
        v = self.value(x, to)
        return (times.reward.detach() + self.gamma * F.elu(v) if self.split else v), times

    def _times(self, out: Float[Tensor, "twins 2 B k"], seen) -> Times:
        ratios = out[..., -8:].sigmoid()
        seconds = self.starts + ratios[..., :7] * self.widths  # the time if this were the bucket
        if self.leaky:
            logp, share = None, F.one_hot(seen, 7).to(out.dtype)
        else:
            logp = out[..., :7].log_softmax(-1)
            share = logp.exp()
        mean = (share * seconds).sum(-1)
        none = ratios[..., 7] * ratios.new_tensor(RANGE)[:, None]
        live, video = torch.stack([none, mean], -1).unbind(1)
        return Times(logp, ratios, torch.sigmoid(0.1 * (live - video)))


class SLMGAC(OfflineAgent):
    """The SL-MGAC agent: two pairs of critics, and the actor that is served.

    A batch also has ``group`` (B,) in 0..5, ``live`` and ``video`` (B,) seconds.

    A column ``price`` (B,), if there is one, is added to the reward in the target alone: what a
    constraint's multiplier pays for a request. The future value carries it, the reward heads do not.

    d_obs: features of a state. merge: K, the number of towers, a key of `MERGES`.
    encoder, towers: widths of the shared input network and of each tower (the paper's sizes).
    split: Q = sg[r] + gamma ELU(v); False leaves all of Q to bootstrapping, Q = v.
    norm: LayerNorm before every head.
    error: loss of the TD and reward errors, the paper's ``huber`` or ``squared``, that of a mean.
    leaky: the released critic, which reads the observed bucket; it also needs ``next_live``,
        ``next_video`` and ``next_action``.
    Raises ValueError for values out of range.
    """

    columns = (*OfflineAgent.columns, "group", "live", "video")

    def __init__(
        self,
        d_obs: int,
        *,
        merge: int = 6,
        gamma: float = 0.9,
        lr: float = 1e-3,
        encoder: Sequence[int] = (256, 128),
        towers: Sequence[int] = (64, 32),
        split: bool = True,
        norm: bool = True,
        error: str = "huber",
        leaky: bool = False,
    ):
        super().__init__(gamma, lr)
        checks.one_of(MERGES, merge=merge)
        checks.one_of(("huber", "squared"), error=error)
        self.split, self.norm, self.error, self.leaky = split, norm, error, leaky
        self.register_buffer("tower", torch.tensor(MERGES[merge]), persistent=False)
        self.buckets = nn.ModuleDict({name: Buckets(edges) for name, edges in EDGES.items()})
        self.merge = merge
        *hidden, d = encoder
        self.encoder = MLP(d_obs, hidden, d, activation=nn.ELU)
        self.critics = nn.ModuleList(TimeCritic(d, towers, merge, self) for _ in range(2))
        self.actor = GroupTowers(d, towers, 2, merge)

    def losses(self, batch: Batch, step: int) -> dict[str, Float[Tensor, ""]]:
        """Every term by name; even steps train critic 0 on critic 1's targets, odd ones reverse."""
        learner, peer = self.critics[step % 2], self.critics[1 - step % 2]
        action, to = batch["action"], self.group_index(batch)
        x = to.scatter(self.encoder(batch["obs"]))
        q, times = learner(x, to, self._seen(batch, ""))
        with torch.no_grad():
            after = to.scatter(self.encoder(batch["next_obs"]))  # users stay in their groups
            next_q, _ = peer(after, to, self._seen(batch, "next_"))
        paid = batch["reward"] + batch.get("price", 0.0)
        y = target(paid, batch["done"], next_q, self.gamma)
        terms = {
            "td": self._size(y - q_of_action(q, action)),
            "reward": self._size(batch["reward"] - q_of_action(times.reward, action)),
            **self._time_losses(times, batch),
        }
        logits = self.actor(learner.norm(x.detach()), to)[0]
        terms["actor"] = F.cross_entropy(logits, teacher(q.amin(0)))
        return terms

    def loss(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        return sum(self.losses(batch, step).values())

    def policy(self, batch: Batch) -> Float[Tensor, "B 2"]:
        """The actor's probabilities of not inserting and inserting."""
        to = self.group_index(batch)
        x = self.critics[0].norm(to.scatter(self.encoder(batch["obs"])))
        return self.actor(x, to)[0].softmax(-1)

    def q(self, batch: Batch) -> Float[Tensor, "B 2"]:
        """min_j Q_j, the mean of both pairs of critics."""
        to, seen = self.group_index(batch), self._seen(batch, "")
        x = to.scatter(self.encoder(batch["obs"]))
        return sum(critic(x, to, seen)[0].amin(0) for critic in self.critics) / 2

    def group_index(self, batch: Batch) -> GroupIndex:
        """Towers by group."""
        return group_index(self.tower[batch["group"]], self.merge)

    def _size(self, error: Tensor) -> Float[Tensor, ""]:
        """Summed over the two critics of a pair, mean over the batch."""
        return 2 * (huber(error) if self.error == "huber" else error.square().mean() / 2)

    def _time_losses(self, times: Times, batch) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy of the bucket and Huber loss of the ratio, on the logged action only."""
        inserted, terms = batch["action"] == 1, {}
        for k, name in enumerate(EDGES):
            bucket, ratio = self.buckets[name].encode(batch[name])
            unit = torch.where(inserted, bucket, 7)
            wanted = torch.where(inserted, ratio, ASIDE[k])
            terms[name] = 2 * huber(wanted - q_of_action(times.ratios[:, k], unit), SLOPES[k])
            if times.logp is not None:
                logp = q_of_action(times.logp[:, k], bucket)
                terms[name + " bucket"] = -2 * (logp * inserted).mean()
        return terms

    def _seen(self, batch: Batch, when: str) -> Int[Tensor, "2 B"] | None:
        if not self.leaky:
            return None
        codes = torch.stack([self.buckets[k].encode(batch[when + k])[0] for k in EDGES])
        return torch.where(batch[when + "action"] == 1, codes, codes.new_tensor(UNSEEN)[:, None])
