"""Requests of one's own as groups of equal size, each after its user's history, for SORT and OnePiece.

A history holds the candidates of the user's earlier requests with their labels; requests of one
moment do not see each other. A request is cut at random into groups of one size, as OnePiece's
grouped scoring does; candidates that are left over stand in histories alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import checks
from ..data.recipe import standardised
from .real_requests import RequestLog
from .worlds.groups import Groups, GroupWorld
from .worlds.requests import GIFT, OWN, Requests

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from ..data.own.requests import ShownRequests

MOST = 16  # candidates of a group whose size is not given
KEPT = 0.85  # share of the candidates that groups of this size must hold
PRIOR = 10  # rows of the mean rate that a past share is drawn to, as `sort_studies.item_rate`


@dataclass(frozen=True)
class Cut:
    """Groups of equal size, in the order of time.

    shown: the rows of ``data`` that a group's candidates are. before: those of its history, oldest
    first; -1 where there is none, on the left. part: 0, 1, 2 for training, validation and test.
    """

    data: ShownRequests
    shown: Int[np.ndarray, "G C"]
    before: Int[np.ndarray, "G L"]

    @property
    def part(self) -> Int[np.ndarray, " G"]:
        return self.data.part[self.shown[:, 0]]

    def requests(self) -> RequestLog:
        """For SORT: ids of items, flags of a history's labels; a label stands as its probability."""
        item, label = self.data.item, self.data.label
        there, flags = self.before >= 0, np.where(label == 1, OWN, GIFT)
        labels = torch.from_numpy(label[self.shown])
        whole = Requests(
            torch.from_numpy(item[self.before] * there),
            torch.from_numpy(flags[self.before] * there),
            torch.from_numpy(item[self.shown]),
            labels=labels,
            probability=labels,
            group=torch.from_numpy(self.data.user[self.shown[:, 0]]),
        )
        parts = (whole.take(torch.from_numpy(self.part == k)) for k in range(3))
        return RequestLog(self.data.name, *parts, vocabulary=int(item.max()) + 1)

    def groups(self) -> GroupWorld:
        """For OnePiece: the candidates' features, and the past of item and user, see `past`.

        An event of the history has its label as 1 or -1 besides. ``utility``: the item's past share.
        """
        data = self.data
        item, user = past(data, data.item), past(data, data.user)
        label = 2 * data.label[:, None] - 1
        rows = np.concatenate([data.features, item, 0 * label], 1, dtype=np.float32)
        events = np.concatenate([data.features, item, label], 1, dtype=np.float32)
        history = events[self.before] * (self.before >= 0)[..., None]
        said = np.insert(user[self.shown[:, 0]], 0, 1, axis=1).astype(np.float32)
        labels = torch.from_numpy(data.label[self.shown])[..., None]
        whole = Groups(
            torch.from_numpy(history),
            torch.zeros(len(history), 0, 1, rows.shape[1]),
            torch.from_numpy(said)[:, None],
            torch.from_numpy(rows[self.shown]),
            labels,
            labels,
        )
        parts = [whole.take(torch.from_numpy(self.part == k)) for k in range(3)]
        utility = torch.from_numpy(item[self.shown[self.part == 2], 0])
        return GroupWorld(data.name, *parts, utility=utility)


def cut(data: ShownRequests, length: int = 32, candidates: int = 0) -> Cut:
    """Groups of ``candidates`` after histories of ``length`` events.

    candidates: 2 or more; 0 takes the largest size up to 16 at which at least 85 % of the
        candidates stand in groups, else 2.
    Raises ValueError for sizes out of range, and where no request has so many candidates.
    """
    checks.whole(length=length)
    sizes = np.bincount(data.request)
    if not candidates:
        kept = {c: (sizes // c * c).sum() / len(data) for c in range(2, MOST + 1)}
        candidates = max((c for c in kept if kept[c] >= KEPT), default=2)
    checks.whole(2, candidates=candidates)
    if sizes.max() < candidates:
        raise ValueError(
            f"{data.name}: no request has {candidates} candidates; the largest has {sizes.max()}"
        )
    drawn = np.lexsort((np.random.default_rng(0).random(len(data)), data.request))
    size = sizes[data.request]  # rows are in the order of requests
    place = np.arange(len(data)) - np.searchsorted(data.request, data.request)
    shown = drawn[place < size // candidates * candidates].reshape(-1, candidates)
    order, first, at = earlier(data.user, data.time)
    before = at[shown[:, :1]] + np.arange(-length, 0)
    inside = before >= first[shown[:, :1]]
    return Cut(data, shown, np.where(inside, order[before * inside], -1))


def earlier(
    key: Int[np.ndarray, " n"], time: Float[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """(order, first, at): ``order[first[i]:at[i]]`` are the rows of row i's key at earlier times.

    Rows must be in the order of time; those of a key stay in it.
    """
    moment = np.unique(time, return_inverse=True)[1]
    many = moment.max() + 1
    order = np.argsort(key, kind="stable")
    place = (key * many + moment)[order]
    return order, *(np.searchsorted(place, key * many + m) for m in (0, moment))


def past(data: ShownRequests, key: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
    """For each row, of its key's rows at earlier times: the share with the label, and how many.

    The share is drawn to the training part's as if there were ten more rows of it. Share and log of
    one more than the number are standardised by the training part.
    """
    order, first, at = earlier(key, data.time)
    sums = np.concatenate([[0.0], data.label[order].cumsum(dtype=float)])
    train, rows = data.part == 0, at - first
    share = (sums[at] - sums[first] + PRIOR * data.label[train].mean()) / (rows + PRIOR)
    columns = (share, np.log1p(rows))
    return np.stack([standardised(c, c[train]) for c in columns], 1).astype(np.float32)
