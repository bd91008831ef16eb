"""Requests with a group of candidates whose clicks may depend on each other, with known truth.

Items lie around 8 unit centres of R^8, the categories: x = centre + .6 N(0, I) / sqrt(8). A request
shows 12 of them from at most 4 categories, with a quality q and a price p from N(0, 1). A user is a
unit vector u, seen through history items around it. Utility: a = 1.2 q - .8 p + .8 u x. Clicks:

    ind    logit a - 1.6: a candidate's own affair
    mnl    P = min(.97, 3 e^{1.5 a} / (8 + sum over the group of e^{1.5 a})): the group moves the
           level of all its candidates, never their order
    sub    logit a - .6 - 2 min(m, 2), where m counts better items of its category in the group:
           the group moves the order
    query  logit a - 2.4 + 1.6 where the item is of the category that the query is after: nothing
           but the items clicked under this query, its anchors, says which

Then cart given click: sigmoid(-.3 - 1.2 p); order given cart: sigmoid(-.3 + .75 sqrt(8) x_1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from ... import checks, metrics

if TYPE_CHECKING:
    from jaxtyping import Float, Int

TASKS = ("click", "cart", "order")
RANK, CATEGORIES, SHOWN, SIZE, SPREAD = 8, 8, 4, 12, 0.6
HISTORY, ANCHORS = 8, 8  # tokens that a request brings
MARKERS = 2  # BOS and EOS of a group of anchors
KINDS = ("ind", "mnl", "sub", "query")


@dataclass(frozen=True)
class Groups:
    """Requests as tensors of one row each; a request's candidates form a group.

    history: features of past items, oldest first. anchors: B groups of P items of this query; B may
    be 0. described: S vectors of user and query. candidates: features of C items.
    labels, probability: of K tasks; where no probability is known it is the label.
    """

    history: Float[Tensor, "G T F"]
    anchors: Float[Tensor, "G B P F"]
    described: Float[Tensor, "G S E"]
    candidates: Float[Tensor, "G C F"]
    labels: Float[Tensor, "G C K"]
    probability: Float[Tensor, "G C K"]

    def __len__(self) -> int:
        return len(self.candidates)

    def take(self, rows: Tensor | slice) -> Groups:
        """The requests ``rows``."""
        return Groups(**{name: column[rows] for name, column in vars(self).items()})


@dataclass(frozen=True)
class GroupWorld:
    """Three parts of requests.

    utility: the utility of the test part's candidates, the best score that does not see the group.
    """

    name: str
    train: Groups
    valid: Groups
    test: Groups
    utility: Float[Tensor, "G C"]

    def ceilings(self, task: str = "click") -> dict[str, float]:
        """Pooled and within-group AUC of the true probabilities, and of the utility alone."""
        p = self.test.probability[:, :, TASKS.index(task)]
        scores = {"Bayes": p, "utility alone": self.utility}
        pooled = {
            f"{k} pooled": metrics.exact_auc(s.flatten(), p.flatten()) for k, s in scores.items()
        }
        return pooled | {f"{k} within": within(s, p) for k, s in scores.items()}


def within(scores: Float[Tensor, "G C"], probability: Float[Tensor, "G C"]) -> float:
    """Mean over groups of the exact AUC inside a group: a group's level of scores does not count.

    A pair counts by its chance to be a positive and a negative (cf. `metrics.exact_auc`), a tie one
    half. Groups without such a pair are left out; NaN where none is left.
    """
    p = probability.double()
    pairs = p[:, :, None] * (1 - p)[:, None, :] * (1 - torch.eye(p.shape[1]))
    gap = scores[:, :, None] - scores[:, None, :]
    won = (gap > 0).double() + (gap == 0).double() / 2
    every, mine = pairs.sum((1, 2)), (pairs * won).sum((1, 2))
    return (mine / every)[every > 0].mean().item()


def click_chance(
    kind: Literal["ind", "mnl", "sub", "query"],
    a: Float[Tensor, "G C"],
    category: Int[Tensor, "G C"],
    intent: Int[Tensor, " G"],
    penalty: float = 2.0,
) -> Float[Tensor, "G C"]:
    """Click probabilities of utilities ``a``, by the module's formulas.

    penalty: of each better item of the category in ``sub``, up to two.
    """
    if kind == "mnl":
        weight = (1.5 * a).exp()
        return (3 * weight / (8 + weight.sum(1, keepdim=True))).clamp(max=0.97)
    if kind == "sub":
        better = a[:, None, :] > a[:, :, None]
        rivals = (better & (category[:, None, :] == category[:, :, None])).sum(2)
        return (a - 0.6 - penalty * rivals.clamp(max=2)).sigmoid()
    if kind == "query":
        return (a - 2.4 + 1.6 * (category == intent[:, None])).sigmoid()
    return (a - 1.6).sigmoid()


def groups(
    kind: Literal["ind", "mnl", "sub", "query"],
    train: int,
    *,
    test: int = 2000,
    context: Literal["history", "more history", "anchors", "random anchors"] = "history",
    seed: int = 0,
) -> GroupWorld:
    """Draw ``train`` requests, as many as ``test`` for validation, and ``test``.

    context: tokens beside the candidates: 8 history items; 18 of them; 8 and the 8 anchors of the
        query with their two markers; 8 and the anchors of another request. The same seed draws the
        same candidates and clicks for all four.
    Raises ValueError for unknown words and sizes out of range.
    """
    checks.one_of(KINDS, kind=kind)
    checks.one_of(("history", "more history", "anchors", "random anchors"), context=context)
    checks.whole(train=train, test=test)
    rng, rows = np.random.default_rng([seed, KINDS.index(kind)]), train + 2 * test
    normal = lambda *shape: torch.from_numpy(rng.standard_normal(shape)).float()  # noqa: E731
    unit = lambda t: t / t.norm(dim=-1, keepdim=True)  # noqa: E731
    centres = unit(normal(CATEGORIES, RANK))
    around = lambda c: c + SPREAD / RANK**0.5 * normal(*c.shape)  # noqa: E731
    item = lambda x: torch.cat([x, normal(*x.shape[:-1], 2)], -1)  # quality and price  # noqa: E731

    shown = torch.from_numpy(rng.random((rows, CATEGORIES))).argsort(1)[:, :SHOWN]
    category = shown.gather(1, torch.from_numpy(rng.integers(SHOWN, size=(rows, SIZE))))
    intent = category[:, 0]
    user = unit(normal(rows, RANK))
    candidates = item(around(centres[category]))
    x, quality, price = candidates[..., :RANK], candidates[..., -2], candidates[..., -1]
    a = 1.2 * quality - 0.8 * price + 0.8 * torch.einsum("gd,gcd->gc", user, x)
    cart = (-0.3 - 1.2 * price).sigmoid()
    order = (-0.3 + 0.75 * RANK**0.5 * x[..., 0]).sigmoid()
    given = torch.stack([click_chance(kind, a, category, intent), cart, order], 2)
    labels = (torch.from_numpy(rng.random(given.shape)) < given).float().cumprod(2)

    many = HISTORY + ANCHORS + MARKERS
    history = item(around(user[:, None].expand(-1, many, -1)))
    anchors = item(around(centres[intent][:, None, None].expand(-1, 1, ANCHORS, -1)))
    profile = torch.stack([user + normal(rows, RANK), torch.zeros(rows, CATEGORIES)], 1)
    profile[:, 1].scatter_(1, shown, 1.0)  # the query says which categories it shows
    if context == "random anchors":
        anchors = anchors.roll(1, 0)
    whole = Groups(
        history if context == "more history" else history[:, -HISTORY:],
        anchors if "anchors" in context else anchors[:, :0],
        profile,
        candidates[torch.arange(rows)],
        labels,
        given.cumprod(2),
    )
    ends = [(0, train), (train, train + test), (train + test, rows)]
    parts = [whole.take(slice(*e)) for e in ends]
    return GroupWorld(kind, *parts, utility=a[ends[2][0] :])


def regroup(part: Groups, size: int, seed: int = 0) -> Groups:
    """The same requests cut into groups of ``size`` candidates, at random by the seed.

    The paper's grouped scoring: a request's candidates are partitioned, and each group is scored
    alone. Probabilities stay those of the whole request. Raises ValueError where the size does not
    divide the number of candidates.
    """
    count = part.candidates.shape[1]
    checks.multiple(size, candidates=count)
    order = torch.rand(len(part), count, generator=torch.Generator().manual_seed(seed)).argsort(1)
    parts = count // size
    repeated = {
        n: getattr(part, n).repeat_interleave(parts, 0) for n in ("history", "anchors", "described")
    }
    cut = {}
    for name in ("candidates", "labels", "probability"):
        column = getattr(part, name)
        moved = column.gather(1, order[..., None].expand(-1, -1, column.shape[2]))
        cut[name] = moved.reshape(len(part) * parts, size, column.shape[2])
    return replace(part, **repeated, **cut)
