"""Home Depot's judged search results as groups: the products of one query, labels from raters.

Raters judged product by product, so that a label cannot depend on the other products of its group.
What a model gains here from seeing them is inference of the query's level, not competition.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import checks, data
from ..lm.hub import SentenceEncoder
from .worlds.groups import Groups, GroupWorld

if TYPE_CHECKING:
    from jaxtyping import Float

RELEVANT = 2.67  # lowest mean grade of a positive


def load(queries: int, size: int = 6, seed: int = 0) -> GroupWorld:
    """Groups of ``size`` products of a query, 60 % of the queries to train, 10 % to choose, 30 % to test.

    queries: how many, drawn by the seed from those with enough products, >= 10. The query's vector
    is its one descriptor; a product has its title's vector, and their cosine scaled to the width of
    a vector's entries. ``utility`` is the cosine. No histories, no anchors, one task.
    Raises ValueError for sizes out of range, FileNotFoundError or OSError where the set or the model
    is missing.
    """
    checks.whole(10, queries=queries)
    checks.whole(2, size=size)
    judged, rng = data.load("home-depot-search"), np.random.default_rng(seed)
    rows: dict[str, list[int]] = {}
    for row, query in enumerate(judged.query):
        rows.setdefault(query, []).append(row)
    enough = sorted(q for q, found in rows.items() if len(found) >= size)
    chosen = [enough[k] for k in rng.permutation(len(enough))[:queries]]
    picked = np.array([rng.permutation(rows[q])[:size] for q in chosen])
    titles = [judged.document[row] for row in picked.flatten()]
    vectors = embed([*chosen, *titles])
    query, title = vectors[: len(chosen)], vectors[len(chosen) :].unflatten(0, picked.shape)
    cosine = torch.einsum("gd,gcd->gc", query, title)
    width = vectors.shape[1]
    candidates = width**0.5 * torch.cat([title, cosine[..., None]], 2)
    labels = torch.from_numpy(judged.grade[picked] >= RELEVANT).float()[..., None]
    many = len(chosen)
    whole = Groups(
        torch.zeros(many, 0, width + 1),
        torch.zeros(many, 0, 1, width + 1),
        width**0.5 * query[:, None],
        candidates,
        labels,
        labels,
    )
    ends = [0, int(0.6 * many), int(0.7 * many), many]
    parts = [whole.take(slice(*e)) for e in pairwise(ends)]
    return GroupWorld("home-depot-search", *parts, utility=cosine[ends[2] :])


def embed(texts: Sequence[str]) -> Float[torch.Tensor, "n D"]:
    """MiniLM's unit vectors; equal texts are read once, texts of like length together."""
    distinct = sorted(set(texts), key=lambda t: (len(t), t))
    vectors = SentenceEncoder(longest=48)(distinct)
    place = {text: k for k, text in enumerate(distinct)}
    return vectors[[place[t] for t in texts]]
