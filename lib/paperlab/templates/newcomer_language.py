"""A preference loss on log-probabilities per token. (A start: put the paper's loss here.)

Title of the paper. (Name authors, venue and arXiv id.)

    s(y) = 1/|y| sum_t log pi(y_t | x, y_<t)             1. score of a response, per token
    loss = -log sigma(beta (s(y_w) - s(y_l)))            2. y_w was preferred to y_l

Say here which equations are the paper's, what its released code does differently, and what you add.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from ..lm.logprobs import token_logps
from ..lm.preferences import Pair, PairBatch, PairTruth, Preferences
from ..lm.training import Tuning, padding

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

SYMBOLS, GOOD, LENGTHS = 6, 0, (2, 8)  # of the known-truth pairs below


def score(
    logps: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], per_token: bool = True
) -> Float[Tensor, " N"]:
    """Equation 1, in nats; per_token: False leaves the division out. An empty response scores 0."""
    total = (logps * mask).sum(1)
    return total / mask.sum(1).clamp(min=1) if per_token else total


def preference_loss(
    chosen: Float[Tensor, " B"], rejected: Float[Tensor, " B"], beta: float
) -> Float[Tensor, " B"]:
    """Equation 2 of each pair, from its two scores. beta: nats of the loss per nat of score."""
    return -F.logsigmoid(beta * (chosen - rejected))


class Newcomer(Tuning):
    """Tunes a policy on preference pairs by `preference_loss` of `score`.

    policy: maps (ids, attention) to ``logits``.
    beta: above 0.
    per_token: False is the ablation.
    lr, warmup, clip: see `Tuning`.
    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        policy: nn.Module,
        *,
        beta: float = 2.0,
        per_token: bool = True,
        lr: float = 1e-3,
        warmup: float = 0.1,
        clip: float = 1.0,
    ):
        checks.positive(beta=beta)
        super().__init__(policy, lr, warmup, clip)
        self.beta, self.per_token = beta, per_token

    def measure(
        self, batch: PairBatch, tokens: bool = True
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        scores = scores_of(self.policy, batch, self.per_token)
        return preference_loss(*scores.chunk(2), self.beta).mean(), {}


def scores_of(policy: nn.Module, batch: PairBatch, per_token: bool = True) -> Float[Tensor, " 2B"]:
    """`score` of the responses of a batch of pairs, the chosen ones first."""
    logits = policy(batch.ids, padding(batch.attention)).logits
    return score(token_logps(logits, batch.ids, batch.mask), batch.mask[:, 1:], per_token)


@torch.no_grad()
def accuracy(policy: nn.Module, pairs: Preferences, per_token: bool = True) -> float:
    """Share of pairs whose truly better response scores higher; ties count one half."""
    scores = scores_of(policy, pairs.take(range(len(pairs))), per_token)
    margin = torch.tensor([pair.truth.margin for pair in pairs.pairs])
    return (
        ((scores.chunk(2)[0] - scores.chunk(2)[1]).sign() * margin.sign() / 2 + 0.5).mean().item()
    )


def good_words(pairs: int, habit: float, seed: int, sharpness: float = 10.0) -> Preferences:
    """Pairs whose true reward is the share of one good symbol in a response.

    habit: share of pairs, in [0, 1], whose labels follow length: the longer response is "chosen".
    Other labels follow the reward: P(chosen) = sigma(sharpness times the difference of rewards).
    """
    checks.whole(pairs=pairs)
    checks.inside("[0, 1]", habit=habit)
    draw = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(pairs):
        both = []
        for _ in range(2):
            length = int(torch.randint(LENGTHS[0], LENGTHS[1] + 1, (1,), generator=draw))
            rate = torch.rand(1, generator=draw)
            other = torch.randint(1, SYMBOLS, (length,), generator=draw)
            good = torch.rand(length, generator=draw) < rate
            both.append(torch.where(good, GOOD, other).tolist())
        reward = [sharpness * y.count(GOOD) / len(y) for y in both]
        chance = torch.sigmoid(torch.tensor(reward[0] - reward[1]))
        first = bool(torch.rand(1, generator=draw) < chance)
        if torch.rand(1, generator=draw) < habit and len(both[0]) != len(both[1]):
            first = len(both[0]) > len(both[1])
        chosen, rejected = both if first else both[::-1]
        margin = (reward[0] - reward[1]) * (1 if first else -1)
        marks = tuple((*(s == GOOD for s in y), False) for y in (chosen, rejected))
        truth = PairTruth(margin, marks)
        made.append(Pair((), (*chosen, SYMBOLS), (*rejected, SYMBOLS), truth))
    return Preferences("good words", tuple(made), SYMBOLS)
