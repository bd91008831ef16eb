"""A one-pass stream of records in which what was read often is read more often.

200 items in 10 categories. A record picks 1 to 5 of them. At step t, from 0, it draws anew with
probability 5 / (5 + t): a category of its own, uniformly, and one of that category's items with
weights 1 / (1 + rank); else it repeats a uniformly drawn earlier item of the record. With arrivals,
half of each category's items exist from the start, and the others appear one after another until
the stream ends; before its arrival an item is not drawn anew.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ... import checks
from ..next_item import SequenceParts, Sequences

if TYPE_CHECKING:
    from jaxtyping import Float

ITEMS, CATEGORIES, FRESH = 200, 10, 5.0
EACH = ITEMS // CATEGORIES


def rich_get_richer(
    records: int, *, length: int = 32, arrivals: bool = False, seed: int = 0
) -> SequenceParts:
    """The stream in its order: 80 % to train on, 10 % to validate, the last 10 % to test.

    records: in all, >= 10. length: steps of a record, >= 2; each step but the first is a target.
    """
    checks.whole(10, records=records)
    checks.whole(2, length=length)
    draw = np.random.default_rng([seed, 32])
    own = draw.random((records, CATEGORIES)).argsort(1)[:, :5]
    many = draw.integers(1, 6, (records, 1))
    rank = draw.permuted(np.tile(np.arange(EACH), (CATEGORIES, 1)), axis=1)
    weight = 1.0 / (1 + rank)
    begins = draw.permuted(np.tile(np.linspace(-1, 1, EACH), (CATEGORIES, 1)), axis=1)
    begins = begins if arrivals else np.zeros_like(begins)
    now = np.arange(records) / records
    items = np.zeros((records, length), np.int64)
    row = np.arange(records)
    for t in range(length):
        category = own[row, (draw.random(records) * many[:, 0]).astype(int)]
        alive = weight[category] * (begins[category] <= now[:, None])
        bounds = (alive / alive.sum(1, keepdims=True)).cumsum(1)
        place = (draw.random((records, 1)) > bounds[:, :-1]).sum(1)
        anew = draw.random(records) < FRESH / (FRESH + t)
        past = items[row, (draw.random(records) * t).astype(int)]
        items[:, t] = np.where(anew, category * EACH + place + 1, past)
    whole = torch.from_numpy(items)
    ends = [0, records * 8 // 10, records * 9 // 10, records]
    parts = (Sequences(whole[a:b, :-1], whole[a:b, 1:]) for a, b in itertools.pairwise(ends))
    return SequenceParts("rich get richer", ITEMS + 1, *parts, ordered=True)


def count_scores(part: Sequences, train: Sequences) -> Float[Tensor, "R N V"]:
    """Scores of the count oracle: occurrences in the record so far, then popularity in training."""
    seen = torch.nn.functional.one_hot(part.items, ITEMS + 1).cumsum(1).float()
    popular = train.items.flatten().bincount(minlength=ITEMS + 1)
    scores = seen + popular / (popular.sum() + 1.0)
    scores[..., 0] = -1.0
    return scores
