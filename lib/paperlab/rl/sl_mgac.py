"""SL-MGAC: Liu et al., "Supervised Learning-enhanced Multi-Group Actor Critic for Live Stream
Allocation in Feed", KDD 2025 (arXiv 2412.10381).

Per request an agent inserts one live stream among the videos (action 1) or none (action 0). A user
belongs to one of six groups, and every head has a tower for each group. Per critic,

    T(s, a)  = sum_i p_i (b_i + rho_i w_i)                live and video seconds, in 7 buckets
    r(s, a)  = sigmoid(0.1 (T_live - T_video))            supervised
    Q(s, a)  = sg[r(s, a)] + gamma ELU(v(s, a))           only the future is bootstrapped
    y        = r + gamma (1 - done) max_a' min_j Q'_j(s', a')

with Q' from a peer: two pairs of critics learn in turn, each the other's target. The actor copies
softmax(2 min_j Q_j) and serves alone.

Architecture, constants and losses are those of the authors' research code; the paper's own tables
were not at hand. Ours: the bucket probabilities p (the released critic reads the OBSERVED bucket,
``leaky=True``), a dense encoder in place of sequence attention, LayerNorm without weights (the linear
layer after it has them), means instead of sums in the losses, initial weights, the options
``average`` and ``error``, and ``copies``: agents of several seeds, trained side by side in one pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.towers import Deal, GroupTowers, deal
from .offline import OfflineAgent, chosen
from .watchtime import REWARDS, T_BAN, live_buckets, one_of, video_buckets

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# Which of the six groups (Core, Gift, Potential old and new, Long old and new) share a tower.
MERGES = {
    1: (0, 0, 0, 0, 0, 0),
    2: (0, 0, 1, 1, 1, 1),
    3: (0, 0, 1, 1, 2, 2),
    4: (0, 1, 2, 2, 3, 3),
    5: (0, 0, 1, 2, 3, 4),
    6: (0, 1, 2, 3, 4, 5),
}
SIGNALS = ("live", "video")
RANGE = (1.0, 25.0)  # seconds that the head of not inserting spans, by signal ...
ASIDE = (0.0, T_BAN / 25)  # ... and its constant target
UNSEEN = (0, 2)  # buckets that the leaky critic is told when nothing was inserted
SLOPES = (1.0, 2.0)  # of the Huber loss of the ratios


def huber(
    error: Float[Tensor, "*shape"],
    slope: float = 1.0,
    delta: float = 0.1,
    reduction: str = "mean",
) -> Float[Tensor, "*out"]:
    """The released loss: e^2 / 2 up to delta, then ``slope`` per unit more.

    Its derivative jumps from delta to slope, so that with delta = .1 it pulls almost like |e|:
    towards the median, not the mean. reduction: mean, sum or none.
    """
    one_of("reduction", reduction, ("mean", "sum", "none"))
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
    """What one pair of critics says of watch times."""

    logp: Float[Tensor, "twins 2 B 7"] | None  # of the buckets, live then video
    ratios: Float[Tensor, "twins 2 B 8"]  # inside each bucket, and of not inserting
    reward: Float[Tensor, "twins B 2"]  # r(s, not insert), r(s, insert)


class TimeCritic(nn.Module):
    """Two critics: bucketed live and video time, the reward they make, and the future value."""

    def __init__(self, d_in: int, widths: Sequence[int], towers: int, agent: SLMGAC):
        super().__init__()
        self.form, self.average, self.leaky = agent.form, agent.average, agent.leaky
        self.split, self.gamma = agent.split, agent.gamma
        self.norm = nn.LayerNorm(d_in, elementwise_affine=False) if agent.norm else nn.Identity()
        self.time = GroupTowers(d_in, widths, 8 if agent.leaky else 15, towers, heads=4)
        self.value = GroupTowers(d_in, widths, 2, towers, heads=2)
        for name in ("starts", "widths"):
            table = torch.stack([getattr(b, name) for b in (live_buckets(), video_buckets())])
            self.register_buffer(name, table[:, None], persistent=False)  # (2, 1, 7)

    def forward(
        self,
        x: Float[Tensor, "towers room d_in"],
        to: Deal,
        seen: Int[Tensor, "2 B"] | None = None,
    ) -> tuple[Float[Tensor, "twins B 2"], Times]:
        """Q and times. seen: observed buckets (live, video), which only the leaky critic reads."""
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
        insert = _worth(mean[:, 0], mean[:, 1], self.form)
        if self.average == "reward":
            each = _worth(seconds[:, 0], mean[:, 1, :, None], self.form)
            insert = (share[..., 0, :, :] * each).sum(-1)
        none = _worth(*(ratios[:, k, :, 7] * RANGE[k] for k in range(2)), self.form)
        return Times(logp, ratios, torch.stack([none, insert], -1))


class SLMGAC(OfflineAgent):
    """The agent. A batch also has ``group`` (B,) in 0..5, ``live`` and ``video`` (B,) seconds.

    d_obs: features of a state. merge: K, the number of towers, a key of `MERGES`.
    encoder, towers: widths of the shared input network and of each tower (the paper's sizes).
    form: `reward`'s. eta: the actor copies softmax(eta Q).
    split: Q = sg[r] + gamma ELU(v); False leaves all of Q to bootstrapping, Q = v.
    norm: LayerNorm before every head.
    average: what the bucket probabilities average, ``time`` (the sheet's) or ``reward`` (ours: the
        mean of a sigmoid is not the sigmoid of the mean).
    error: loss of the TD and reward errors, the paper's ``huber`` or ``squared`` (ours: a mean).
    leaky: the released critic, which is told the observed bucket; it also needs ``next_live``,
        ``next_video`` and ``next_action``.
    copies: see `OfflineAgent`; rows of ``policy`` and ``q`` stand copy by copy too.
    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        d_obs: int,
        *,
        merge: int = 6,
        gamma: float = 0.9,
        lr: float = 1e-3,
        encoder: Sequence[int] = (256, 128),
        towers: Sequence[int] = (64, 32),
        form: str = "paper",
        eta: float = 2.0,
        split: bool = True,
        norm: bool = True,
        average: str = "time",
        error: str = "huber",
        leaky: bool = False,
        copies: int = 1,
    ):
        super().__init__(gamma, lr, copies)
        one_of("merge", merge, tuple(MERGES))
        one_of("form", form, REWARDS)
        one_of("average", average, ("time", "reward"))
        one_of("error", error, ("huber", "squared"))
        if eta <= 0:
            raise ValueError(f"eta must be above 0, got {eta}")
        self.form, self.eta, self.split, self.norm = form, eta, split, norm
        self.average, self.error, self.leaky = average, error, leaky
        self.register_buffer("tower", torch.tensor(MERGES[merge]), persistent=False)
        self.live, self.video, self.merge = live_buckets(), video_buckets(), merge
        *hidden, d = encoder
        self.encoder = GroupTowers(d_obs, hidden, d, copies)
        self.critics = nn.ModuleList(TimeCritic(d, towers, copies * merge, self) for _ in range(2))
        self.actor = GroupTowers(d, towers, 2, copies * merge)

    def losses(self, batch: Mapping[str, Tensor], step: int) -> dict[str, Float[Tensor, ""]]:
        """Every term by name; even steps teach critic 0 and ask critic 1, odd steps the reverse."""
        learner, peer = self.critics[step % 2], self.critics[1 - step % 2]
        action, to = batch["action"], self.deal(batch)
        x = to.hand_out(self.encode(batch["obs"]))
        q, times = learner(x, to, self._seen(batch, ""))
        with torch.no_grad():
            after = to.hand_out(self.encode(batch["next_obs"]))  # users stay in their groups
            next_q, _ = peer(after, to, self._seen(batch, "next_"))
        y = target(batch["reward"], batch["done"], next_q, self.gamma)
        terms = {
            "td": self._size(y - chosen(q, action)),
            "reward": self._size(batch["reward"] - chosen(times.reward, action)),
            **self._time_losses(times, batch),
        }
        logits = self.actor(learner.norm(x.detach()), to)[0]
        terms["actor"] = F.cross_entropy(logits, teacher(q.amin(0), self.eta))
        return {name: self.copies * term for name, term in terms.items()}  # each as if alone

    def loss(self, batch: Mapping[str, Tensor], step: int) -> Float[Tensor, ""]:
        return sum(self.losses(batch, step).values())

    def policy(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "B 2"]:
        """The actor's probabilities of not inserting and inserting."""
        to = self.deal(batch)
        x = self.critics[0].norm(to.hand_out(self.encode(batch["obs"])))
        return self.actor(x, to)[0].softmax(-1)

    def q(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "B 2"]:
        """min_j Q_j, the mean of both pairs of critics."""
        to, seen = self.deal(batch), self._seen(batch, "")
        x = to.hand_out(self.encode(batch["obs"]))
        return sum(critic(x, to, seen)[0].amin(0) for critic in self.critics) / 2

    def encode(self, obs: Float[Tensor, "B d_obs"]) -> Float[Tensor, "B d"]:
        """The shared input network, each copy's on its own rows."""
        rows = torch.arange(len(obs), device=obs.device)
        to = Deal(rows, self.copies, len(obs) // self.copies)
        return self.encoder(to.hand_out(obs), to)[0]

    def deal(self, batch: Mapping[str, Tensor]) -> Deal:
        """Seats by copy and group."""
        tower = self.tower[batch["group"]]
        copy = torch.arange(len(tower), device=tower.device) // (len(tower) // self.copies)
        return deal(copy * self.merge + tower, self.copies * self.merge)

    def _size(self, error: Tensor) -> Float[Tensor, ""]:
        """Summed over the two critics of a pair, mean over the batch."""
        return 2 * (huber(error) if self.error == "huber" else error.square().mean() / 2)

    def _time_losses(self, times: Times, batch) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy of the bucket and Huber loss of the ratio, on the logged action only."""
        inserted, terms = batch["action"] == 1, {}
        for k, name in enumerate(SIGNALS):
            bucket, ratio = getattr(self, name).encode(batch[name])
            unit = torch.where(inserted, bucket, 7)
            wanted = torch.where(inserted, ratio, ASIDE[k])
            terms[name] = 2 * huber(wanted - chosen(times.ratios[:, k], unit), SLOPES[k])
            if times.logp is not None:
                terms[name + " bucket"] = -2 * (chosen(times.logp[:, k], bucket) * inserted).mean()
        return terms

    def _seen(self, batch: Mapping[str, Tensor], when: str) -> Int[Tensor, "2 B"] | None:
        if not self.leaky:
            return None
        inserted = batch[when + "action"] == 1
        codes = [getattr(self, name).encode(batch[when + name])[0] for name in SIGNALS]
        return torch.where(
            inserted, torch.stack(codes), inserted.new_tensor(UNSEEN, dtype=int)[:, None]
        )


def _worth(live: Tensor, video: Tensor, form: str) -> Tensor:
    """`reward` of predicted times; not inserting is predicted as no live time and T_BAN of video."""
    return live / 60 if form == "live" else torch.sigmoid(0.1 * (live - video))
