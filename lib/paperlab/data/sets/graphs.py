"""Messages, edits and co-authorships: temporal graphs, and graphs for influence maximisation."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..catalogue import Entry
from ..formats import parquet
from ..kinds import Graph


def load(
    entry: Entry,
    *,
    part: Literal["collegemsg", "jodie_wikipedia_edits", "nethept", "netphy"] = "collegemsg",
) -> Graph:
    """A graph; nodes are numbered in the order of their ids.

    collegemsg: directed, with times. jodie_wikipedia_edits: users to pages (bipartite), in each
    user's order. nethept, netphy: undirected, an edge once.
    """
    (frame,) = parquet.local(entry, f"{part}.parquet")
    ends = frame.select(frame.columns[:2]).to_numpy()
    name = f"{entry.name}-{part}"
    if part == "jodie_wikipedia_edits":
        (users, left), (pages, right) = (np.unique(ends[:, k], return_inverse=True) for k in (0, 1))
        edges = np.stack([left, right + len(users)], 1)
        return Graph(name, edges, len(users) + len(pages), directed=True, left=len(users))
    nodes, places = np.unique(ends, return_inverse=True)
    times = frame["timestamp"].to_numpy() if part == "collegemsg" else None
    edges = places.reshape(ends.shape)
    return Graph(name, edges, len(nodes), directed=part == "collegemsg", times=times)
