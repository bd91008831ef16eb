"""Requests of one user each: a history in sessions, candidates, and known click probabilities.

Items lie around 20 unit centres of R^8: latent z = centre + .2 N(0, I) / sqrt(8). A session draws
its items from one cluster with Zipf's weights (exponent .8), 15 % of them from another. Of the
candidates 60 % come from clusters of the history's sessions. Logit of candidate c:

    additive   -2.2 + 7 * mean over 8 events h of <z_h, z_c>: the last 8, or the first 8
    binding    -2.4 + 18 / L * sum of <z_h, z_c> over the sessions whose first event has the flag "own"

In ``binding`` the flag stands on a session's first event alone, so that an event's worth is known
only together with another event.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from ... import checks, metrics

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

RANK, CENTRES, SPREAD, ZIPF, JUMPS, FAMILIAR = 8, 20, 0.2, 0.8, 0.15, 0.6
READ = 8  # events of an additive logit
GIFT, OWN = 1, 2  # flags of a session's first event; 0: any other event


@dataclass(frozen=True)
class Requests:
    """Requests as tensors of one row each; a request's candidates have a label each.

    items, flags: history, oldest first; item 0 is padding and stands on the left.
    candidates: items >= 1. labels: 0 or 1. probability: of a click, where it is known. group: the
    user, or the request itself.
    """

    items: Int[Tensor, "R L"]
    flags: Int[Tensor, "R L"]
    candidates: Int[Tensor, "R N"]
    labels: Float[Tensor, "R N"]
    probability: Float[Tensor, "R N"]
    group: Int[Tensor, " R"]

    def __len__(self) -> int:
        return len(self.items)

    def take(self, rows: Tensor | slice) -> Requests:
        """The requests ``rows``."""
        return Requests(**{name: column[rows] for name, column in vars(self).items()})

    def with_history(self, items: Tensor, flags: Tensor) -> Requests:
        """The same requests after another history."""
        return replace(self, items=items, flags=flags)

    @property
    def present(self) -> Bool[Tensor, "R L"]:
        """Where the history holds an event."""
        return self.items > 0


@dataclass(frozen=True)
class RequestWorld:
    """Three parts of requests, the items' latent vectors, and the ceilings of the test part.

    latents: (V + 1, 8); row 0 is padding. bayes_auc: `metrics.exact_auc` of the true probabilities
    over all candidates; bayes_gauc: the mean of the same within a request.
    """

    name: str
    train: Requests
    valid: Requests
    test: Requests
    latents: Float[Tensor, "V1 8"]
    bayes_auc: float
    bayes_gauc: float

    @property
    def vocabulary(self) -> int:
        return len(self.latents)


def within(scores: Float[Tensor, "R N"], probability: Float[Tensor, "R N"]) -> float:
    """Exact AUC within requests, weighted by their expected pairs: level shifts do not count."""
    p, q = probability.double(), 1 - probability.double()
    pairs = p[:, :, None] * q[:, None, :]
    pairs = pairs * ~torch.eye(p.shape[1], dtype=torch.bool)
    gap = scores[:, :, None] - scores[:, None, :]
    won = (gap > 0).double() + (gap == 0).double() / 2
    return ((pairs * won).sum() / pairs.sum()).item()


def requests(
    kind: Literal["additive", "old", "binding"],
    train: int,
    *,
    test: int = 1000,
    length: int = 16,
    candidates: int = 6,
    seed: int = 0,
) -> RequestWorld:
    """Draw a world of ``train`` requests, as many as ``test`` for validation, and ``test``.

    kind: ``additive``: the last 8 events count; ``old``: the first 8; ``binding``: own sessions.
    length: events of a history, a multiple of the session's 8 (binding: 4), >= 8.
    Raises ValueError for an unknown kind and sizes out of range.
    """
    checks.one_of(("additive", "old", "binding"), kind=kind)
    checks.whole(train=train, test=test, candidates=candidates)
    session, vocabulary = (4, 400) if kind == "binding" else (8, 2000)
    checks.multiple(session, length=length)
    checks.whole(READ, length=length)
    plant = np.random.default_rng([seed, 1])
    centres = plant.standard_normal((CENTRES, RANK))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    size = vocabulary // CENTRES  # items 1..V; cluster c holds c * size + 1 .. (c + 1) * size
    latents = np.repeat(centres, size, 0)
    latents = latents + SPREAD / RANK**0.5 * plant.standard_normal(latents.shape)
    latents = np.concatenate([np.zeros((1, RANK)), latents])
    weight = np.arange(1, size + 1) ** -ZIPF

    draw = np.random.default_rng([seed, 2])
    rows, sessions = train + 2 * test, length // session

    def items(clusters: np.ndarray) -> np.ndarray:
        inside = draw.choice(size, clusters.shape, p=weight / weight.sum())
        return clusters * size + inside + 1

    topics = draw.integers(CENTRES, size=(rows, sessions))
    clusters = np.repeat(topics, session, 1)
    jump = draw.random(clusters.shape) < JUMPS
    history = items(np.where(jump, draw.integers(CENTRES, size=clusters.shape), clusters))
    own = draw.random((rows, sessions)) < 0.5
    flags = np.zeros((rows, sessions, session), dtype=np.int64)
    if kind == "binding":
        flags[:, :, 0] = np.where(own, OWN, GIFT)
    shape = (rows, candidates)
    known = np.take_along_axis(topics, draw.integers(sessions, size=shape), 1)
    far = draw.integers(CENTRES, size=shape)
    shown = items(np.where(draw.random(shape) < FAMILIAR, known, far))

    events = latents[history]
    if kind == "binding":
        profile = 2 / length * (events * np.repeat(own, session, 1)[:, :, None]).sum(1)
        bias, slope = -2.4, 9.0
    else:
        profile = (events[:, :READ] if kind == "old" else events[:, -READ:]).mean(1)
        bias, slope = -2.2, 7.0
    logits = bias + slope * np.einsum("rd,rnd->rn", profile, latents[shown])
    chance = torch.from_numpy(1 / (1 + np.exp(-logits))).float()
    labels = torch.from_numpy(draw.random(shape) < chance.numpy()).float()
    whole = Requests(
        *(torch.from_numpy(a) for a in (history, flags.reshape(rows, length), shown)),
        labels=labels,
        probability=chance,
        group=torch.arange(rows),
    )
    parts = [whole.take(slice(*ends)) for ends in _ends(train, test)]
    p = parts[2].probability
    return RequestWorld(
        kind,
        *parts,
        latents=torch.from_numpy(latents).float(),
        bayes_auc=metrics.exact_auc(p.flatten(), p.flatten()),
        bayes_gauc=within(p, p),
    )


def _ends(train: int, test: int) -> list[tuple[int, int]]:
    return [(0, train), (train, train + test), (train + test, train + 2 * test)]
