"""Streams of real events in periods of equal count: Taobao and MovieLens.

Fields are user and item; every period's rows keep the order of time.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import checks
from ..data.schema import Field, Schema
from ..data.store import Split
from .prequential import Stream

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def taobao(*, periods: int = 27, shuffled: bool = False, seed: int = 0) -> Stream:
    """Purchases, carts and favourites of nine days; one drawn negative after each (`negatives`).

    periods: >= 2. shuffled: whether events change their places in time at random, the control in which
        nothing drifts. seed: of negatives and shuffling.
    Raises FileNotFoundError that says which file to get.
    """
    from ..data import catalogue
    from ..data.formats import parquet

    (events,) = parquet.local(catalogue.entry("taobao-multibehavior"), "train_events.parquet")
    events = events.sort("timestamp", "user", "item", "behavior")
    pairs = events.select("user", "item").to_numpy() + 1
    draw = np.random.default_rng([seed, 5])
    if shuffled:
        draw.shuffle(pairs)
    edges = np.linspace(0, len(pairs), periods + 1).astype(int)
    drawn = negatives(pairs, edges, draw)
    rows = np.stack([pairs, np.stack([pairs[:, 0], drawn], 1)], 1).reshape(-1, 2)
    labels = np.tile([1, 0], len(pairs))
    return cut("taobao" + " shuffled" * shuffled, rows, labels, 2 * edges)


def movielens(*, periods: int = 20, shuffled: bool = False, seed: int = 0) -> Stream:
    """100,000 ratings of MovieLens-1M; 4 and 5 stars are positive, as in the paper.

    Raises FileNotFoundError that says which file to get.
    """
    from ..data import catalogue
    from ..data.formats import movielens as tables

    ratings, _, _ = tables.tables(catalogue.entry("movielens-1m-sample100k"))
    ratings = ratings.sort("timestamp", "user_id", "item_id")
    table = ratings.select("user_id", "item_id", "rating").to_numpy().astype(np.int64)
    if shuffled:
        np.random.default_rng([seed, 5]).shuffle(table)
    edges = np.linspace(0, len(table), periods + 1).astype(int)
    name = "movielens" + " shuffled" * shuffled
    return cut(name, table[:, :2], table[:, 2] >= 4, edges)


def negatives(
    pairs: Int[np.ndarray, "n 2"], edges: Int[np.ndarray, " periods_1"], draw: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """For each event (user, item) an item that the user has not met up to and with it.

    pairs: oldest first. edges: row at which each period starts, and n. Drawn equally among the items
    that occur up to the end of the event's period. Raises ValueError where a user has met them all.
    """
    user, item = np.asarray(pairs, np.int64).T
    known, first = np.unique(item, return_index=True)
    known = known[np.argsort(first)]  # by first occurrence
    pool = np.searchsorted(np.sort(first), edges[1:])[
        np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    ]
    span = item.max() + 1
    met, since = np.unique(user * span + item, return_index=True)
    found, open_rows = np.empty(len(pairs), np.int64), np.arange(len(pairs))
    for _ in range(1_000):
        found[open_rows] = known[draw.integers(0, pool[open_rows])]
        key = user[open_rows] * span + found[open_rows]
        place = np.searchsorted(met, key).clip(max=len(met) - 1)
        open_rows = open_rows[(met[place] == key) & (since[place] <= open_rows)]
        if not len(open_rows):
            return found
    raise ValueError(f"user {user[open_rows[0]]} has met nearly every item: no negative was found")


def cut(name: str, rows: np.ndarray, labels: np.ndarray, edges: np.ndarray) -> Stream:
    """A stream of (user, item) rows, oldest first; ids start at 1, the users are the groups."""
    checks.whole(2, periods=len(edges) - 1)
    sizes = rows.max(0) + 1
    schema = Schema((Field("user", size=int(sizes[0])), Field("item", size=int(sizes[1]))))
    ids = torch.from_numpy(np.ascontiguousarray(rows, np.int32))
    values = torch.from_numpy(np.asarray(labels, np.float32)[:, None].copy())
    users = ids[:, 0].long()
    periods = [
        Split(ids[a:b], values[a:b], 0, users=users[a:b]) for a, b in itertools.pairwise(edges)
    ]
    return Stream(name, schema, tuple(periods))


def user_units(
    scores: Float[torch.Tensor, " n"],
    labels: Float[torch.Tensor, " n"],
    users: Int[torch.Tensor, " n"],
    size: int,
) -> tuple[Float[np.ndarray, " U"], Float[np.ndarray, " U"]]:
    """A period's AUC as a ratio of sums over users: (values, positives), by user id 0..size - 1.

    A positive's placement is the share of negatives below it, a negative's that of positives above it;
    ties count one half. value = sum of a user's placements - AUC * positives. Where positives and negatives
    are as many, sum(values) / sum(positives) is the AUC, and its error over users that of
    both samples (the linear part of the AUC, as DeLong's).
    """
    score, positive = scores.double().numpy(), labels.numpy() == 1
    place = np.empty(len(score))
    for own, other in ((positive, ~positive), (~positive, positive)):
        rivals = np.sort(score[other])
        below = np.searchsorted(rivals, score[own]) + np.searchsorted(rivals, score[own], "right")
        place[own] = below / (2 * len(rivals))
    place[~positive] = 1 - place[~positive]
    auc, user = place[positive].mean(), users.numpy()
    count = np.bincount(user, positive, minlength=size)
    return np.bincount(user, place, minlength=size) - auc * count, count
