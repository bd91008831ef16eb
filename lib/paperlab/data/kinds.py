"""Tables of the other kinds: preferences, bandit logs, judgments, problems, graphs.

Each is a frozen set of columns of one length, checked when it is made. ``set_aside`` lists the
rows of the source that the table lacks: (line or row from 1, reason).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SetAside = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class PreferenceTexts:
    """Rows of (prompt, chosen, rejected) texts."""

    name: str
    rows: tuple[tuple[str, str, str], ...]
    set_aside: SetAside = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return _summary(self, "pairs")


@dataclass(frozen=True)
class BanditLog:
    """Actions drawn by a logging policy, with their rewards and propensities.

    context: features of each round. action: in 0..actions-1. reward: finite. propensity: probability
    with which the policy drew the action, in (0, 1]. position: slot of the action, from 0.
    item_features: of each action.
    Raises ValueError for columns of different length or values out of range.
    """

    name: str
    context: Float[np.ndarray, "n d"]
    action: Int[np.ndarray, " n"]
    reward: Float[np.ndarray, " n"]
    propensity: Float[np.ndarray, " n"]
    actions: int
    position: Int[np.ndarray, " n"]
    item_features: Float[np.ndarray, "actions k"]
    set_aside: SetAside = ()

    def __post_init__(self):
        columns = ("context", "action", "reward", "propensity", "position")
        _one_length(self.name, {c: getattr(self, c) for c in columns})
        for column in ("context", "reward", "item_features"):
            _finite(self.name, column, getattr(self, column))
        if not ((self.propensity > 0) & (self.propensity <= 1)).all():
            raise ValueError(f"{self.name}: propensity must be in (0, 1]")
        _range(self.name, "action", self.action, self.actions)
        if len(self.item_features) != self.actions:
            raise ValueError(
                f"{self.name}: item_features must have {self.actions} rows, one an action"
            )

    def __len__(self) -> int:
        return len(self.action)

    def __repr__(self) -> str:
        return _summary(self, f"rounds, {self.actions} actions")


@dataclass(frozen=True)
class Judgments:
    """Graded pairs of a query and a document; a higher grade is more relevant.

    document: its text, or its id where the set has no text.
    Raises ValueError for columns of different length or grades that are not finite.
    """

    name: str
    query: tuple[str, ...]
    document: tuple[str, ...]
    grade: Float[np.ndarray, " n"]
    set_aside: SetAside = ()

    def __post_init__(self):
        _one_length(self.name, {c: getattr(self, c) for c in ("query", "document", "grade")})
        _finite(self.name, "grade", self.grade)

    def __len__(self) -> int:
        return len(self.grade)

    def __repr__(self) -> str:
        return _summary(self, f"judgments, {len(set(self.query)):,} queries")


@dataclass(frozen=True)
class Problems:
    """Prompts whose answers a program can verify.

    answer: the reference answer; for code, the tests that a solution must pass.
    Raises ValueError for columns of different length.
    """

    name: str
    prompt: tuple[str, ...]
    answer: tuple[str, ...]
    set_aside: SetAside = ()

    def __post_init__(self):
        _one_length(self.name, {"prompt": self.prompt, "answer": self.answer})

    def __len__(self) -> int:
        return len(self.prompt)

    def __repr__(self) -> str:
        return _summary(self, "problems")


@dataclass(frozen=True)
class Graph:
    """Edges between nodes 0..nodes-1, in the order of the source.

    times: seconds of each edge, or None where there are none. directed: whether (u, v) and (v, u)
    differ. left: number of nodes of the first side, 0..left-1, in a bipartite graph, else None.
    Raises ValueError for nodes out of range.
    """

    name: str
    edges: Int[np.ndarray, "m 2"]
    nodes: int
    directed: bool
    times: Int[np.ndarray, " m"] | None = None
    left: int | None = None
    set_aside: SetAside = ()

    def __post_init__(self):
        if self.times is not None:
            _one_length(self.name, {"edges": self.edges, "times": self.times})
        _range(self.name, "edges", self.edges, self.nodes)

    def __len__(self) -> int:
        return len(self.edges)

    def __repr__(self) -> str:
        return _summary(self, f"edges, {self.nodes:,} nodes")


@dataclass(frozen=True)
class ModelFolder:
    """A language model on disk, as transformers reads it: config, safetensors, tokenizer."""

    name: str
    folder: Path


def _one_length(name: str, columns: dict) -> None:
    lengths = {c: len(v) for c, v in columns.items()}
    if len(set(lengths.values())) > 1 or not min(lengths.values()):
        have = ", ".join(f"{c} {n}" for c, n in lengths.items())
        raise ValueError(f"{name}: columns must have one length of at least 1, got {have}")


def _finite(name: str, column: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: {column} must be finite")


def _range(name: str, column: str, values: np.ndarray, size: int) -> None:
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{name}: {column} must hold integers, got {values.dtype}")
    if not len(values) or values.min() < 0 or values.max() >= size:
        raise ValueError(f"{name}: {column} must lie in 0..{size - 1}")


def _summary(table, what: str) -> str:
    lost = f", {len(table.set_aside):,} rows set aside" if table.set_aside else ""
    return f"{type(table).__name__}({table.name}: {len(table):,} {what}{lost})"
