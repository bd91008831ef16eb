"""Finite decision processes solved exactly: linear solves and Howard's policy iteration.

The discount, and whatever ends an episode, are inside the transition matrices: a row of ``P`` sums
to at most the discount. Gamma never appears beside them, so that one solver serves discounts per
step, per unit of time, and sessions that simply end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Choices:
    """Draws from the rows of a probability table, one uniform number a draw (Walker's aliases).

    Each of C columns, C a power of two, is split between two outcomes; a draw picks a column and
    a side. Constant time a draw, whatever the number of outcomes.
    """

    def __init__(self, table: Float[np.ndarray, "rows n"]):
        rows, self.n = table.shape
        self.columns = 1 << (self.n - 1).bit_length()
        self.accept = np.ones(rows * self.columns)
        self.sides = np.zeros((rows * self.columns, 2), np.intp)
        for row, chances in enumerate(table):
            left = np.zeros(self.columns)
            left[: self.n] = chances * (self.columns / chances.sum())
            poor = [c for c in range(self.columns) if left[c] < 1]
            rich = [c for c in range(self.columns) if left[c] >= 1]
            sides, accept = np.arange(self.columns)[:, None].repeat(2, 1), np.ones(self.columns)
            while poor and rich:  # fill a column that lacks mass from one that has too much
                low, high = poor.pop(), rich[-1]
                accept[low], sides[low, 1] = left[low], high
                left[high] -= 1 - left[low]
                if left[high] < 1:
                    poor.append(rich.pop())
            # what rounding leaves in poor or rich is a full column
            at = slice(row * self.columns, (row + 1) * self.columns)
            self.accept[at] = accept
            self.sides[at] = row * self.n + np.minimum(sides, self.n - 1)
        self.sides = self.sides.ravel()

    def draw(self, draw: np.random.Generator, row: Int[np.ndarray, " B"]) -> Int[np.ndarray, " B"]:
        """Flat indices into the table, row * n + outcome, one for each entry of ``row``."""
        u = draw.random(len(row))
        u *= self.columns
        column = u.astype(np.intp)
        u -= column
        column += row * np.intp(self.columns)
        over = u >= self.accept.take(column, mode="clip")
        column *= 2
        column += over
        return self.sides.take(column, mode="clip")


def policy_table(policy, n_states: int, n_actions: int) -> Float[np.ndarray, "S A"]:
    """Probabilities of actions from a policy in any form.

    policy: one action for all states, an action a state (S,), or probabilities (S, A) whose rows
        sum to 1. Raises ValueError for other shapes, actions out of range, rows that do not sum to 1.
    """
    given = np.asarray(policy)
    if given.ndim < 2 and np.issubdtype(given.dtype, np.integer):
        if given.shape not in ((), (n_states,)):
            raise ValueError(f"policy must hold {n_states} actions, got shape {given.shape}")
        if given.min() < 0 or given.max() >= n_actions:
            raise ValueError(f"policy must hold actions in 0..{n_actions - 1}, got {policy}")
        return np.eye(n_actions)[np.broadcast_to(given, n_states)]
    if given.shape != (n_states, n_actions):
        raise ValueError(
            f"policy must have shape {(n_states, n_actions)} or {(n_states,)}, got {given.shape}"
        )
    if not np.all(given >= 0) or np.abs(given.sum(1) - 1).max() > 1e-6:
        raise ValueError("policy must hold probabilities in [0, 1] that sum to 1 over actions")
    return given.astype(np.float64)


def policy_values(
    P: Float[np.ndarray, "A S S"],
    R: Float[np.ndarray, "*tasks A S"],
    policy: Float[np.ndarray, "S A"],
) -> Float[np.ndarray, "*tasks S"]:
    """V = (I - P_pi)^-1 r_pi, for each of the rewards in R."""
    chain = np.einsum("sa,ast->st", policy, P)
    reward = np.einsum("sa,...as->s...", policy, R)
    flat = np.linalg.solve(np.eye(len(chain)) - chain, reward.reshape(len(chain), -1))
    return np.moveaxis(flat.reshape(reward.shape), 0, -1)


def action_values(
    P: Float[np.ndarray, "A S S"],
    R: Float[np.ndarray, "*tasks A S"],
    V: Float[np.ndarray, "*tasks S"],
) -> Float[np.ndarray, "*tasks A S"]:
    """Q = R + P V."""
    return R + np.einsum("ast,...t->...as", P, V)


def policy_iteration(
    P: Float[np.ndarray, "A S S"],
    R: Float[np.ndarray, "A S"],
    start: Int[np.ndarray, " S"] | None = None,
) -> Int[np.ndarray, " S"]:
    """An optimal action a state. Exact after a handful of linear solves, whatever the discount.

    An action is left only for one that is better by more than rounding, so that ties do not cycle
    and the lowest of equal actions is kept.
    """
    n_actions, n_states = R.shape
    actions = np.zeros(n_states, int) if start is None else np.array(start)
    while True:
        V = policy_values(P, R, np.eye(n_actions)[actions])
        Q = action_values(P, R, V)
        now = np.take_along_axis(Q, actions[None], 0)[0]
        better = Q.max(0) > now + 1e-10 * np.maximum(1, np.abs(now))
        if not better.any():
            return actions
        actions = np.where(better, Q.argmax(0), actions)


def value_iteration(
    P: Float[np.ndarray, "A S S"], R: Float[np.ndarray, "A S"], tolerance: float = 1e-10
) -> Float[np.ndarray, " S"]:
    """The optimal values by repeated Bellman backups, until none moves a value by ``tolerance``.

    Slower than `policy_iteration` by the horizon, and independent of it: each checks the other.
    """
    V = np.zeros(R.shape[1])
    while True:
        new = action_values(P, R, V).max(0)
        if np.abs(new - V).max() < tolerance:
            return new
        V = new


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def numbers(
    name: str, value, low: float, high: float, length: int | None = None, ends: str = "[]"
) -> np.ndarray:
    """A finite number or vector from low to high, or a ValueError that says so.

    ends: "(" and ")" leave that end out; infinity is always left out.
    """
    array = np.asarray(value, np.float64)
    if length is not None and array.shape != (length,):
        raise ValueError(f"{name} must hold {length} numbers, got {value}")
    left = "(" if np.isinf(low) else ends[0]
    right = ")" if np.isinf(high) else ends[1]
    above = array > low if left == "(" else array >= low
    below = array < high if right == ")" else array <= high
    if not np.all(above & below):
        raise ValueError(f"{name} must be in {left}{low:g}, {high:g}{right}, got {value}")
    return array
