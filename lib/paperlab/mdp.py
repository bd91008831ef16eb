"""Finite Markov decision processes: counted from logs, solved exactly, sampled quickly.

Transition matrices include the discount and the end of episodes: a row of ``P`` sums to at most the
discount. So one solver serves discounts per step, discounts per unit of time, and sessions that end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import checks

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    Moves, Policy = Float[np.ndarray, "A S S"], Float[np.ndarray, "S A"]
    Rewards, Values = Float[np.ndarray, "*tasks A S"], Float[np.ndarray, "*tasks S"]
    Whole = Int[np.ndarray, " n"]


class Choices:
    """Draws from the rows of a probability table, one uniform number a draw (Walker's aliases).

    Each of C columns, C a power of two, is split between two outcomes; a draw picks a column and
    a side. A draw takes constant time for any number of outcomes.
    """

    def __init__(self, table: Float[np.ndarray, "rows n"]):
        rows, self.n = table.shape
        if not (np.all(np.isfinite(table) & (table >= 0)) and np.all(table.sum(1) > 0)):
            raise ValueError("table must hold finite numbers >= 0, in every row one above 0")
        self.columns = 1 << (self.n - 1).bit_length()
        self.accept = np.ones((rows, self.columns))
        sides = np.arange(self.columns).repeat(2).reshape(1, -1, 2).repeat(rows, 0)
        for accept, side, chances in zip(self.accept, sides, table, strict=True):
            left = np.zeros(self.columns)
            left[: self.n] = chances * (self.columns / chances.sum())
            poor = [c for c in range(self.columns) if left[c] < 1]
            rich = [c for c in range(self.columns) if left[c] >= 1]
            while poor and rich:  # fill a column that lacks mass from one that has too much
                low, high = poor.pop(), rich[-1]
                accept[low], side[low, 1] = left[low], high
                left[high] -= 1 - left[low]
                if left[high] < 1:
                    poor.append(rich.pop())
            # what rounding leaves in poor or rich is a full column
        first = self.n * np.arange(rows)[:, None, None]
        self.accept = self.accept.ravel()
        self.sides = (first + np.minimum(sides, self.n - 1)).ravel()

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


def policy_table(policy, n_states: int, n_actions: int) -> Policy:
    """Probabilities of actions from a policy in any form.

    policy: ``"uniform"``, one action for all states, an action a state (S,), or probabilities
        (S, A) whose rows sum to 1. States may fill several axes, as [k][z].
    Raises ValueError for other shapes, actions out of range, rows that do not sum to 1.
    """
    if isinstance(policy, str):
        if policy != "uniform":
            raise ValueError(f"policy must be 'uniform', actions or probabilities, got {policy!r}")
        return np.full((n_states, n_actions), 1 / n_actions)
    given = np.asarray(policy)
    if np.issubdtype(given.dtype, np.integer) and given.size in (1, n_states):
        if given.min() < 0 or given.max() >= n_actions:
            raise ValueError(f"policy must hold actions in 0..{n_actions - 1}, got {policy}")
        return np.eye(n_actions)[np.broadcast_to(given.ravel(), n_states)]
    if given.size != n_states * n_actions or given.shape[-1] != n_actions:
        raise ValueError(
            f"policy must have shape {(n_states, n_actions)} or {(n_states,)}, got {given.shape}"
        )
    if not np.all(given >= 0) or np.abs(given.sum(-1) - 1).max() > 1e-6:
        raise ValueError("policy must hold probabilities in [0, 1] that sum to 1 over actions")
    return given.reshape(n_states, n_actions).astype(np.float64)


def policy_values(P: Moves, R: Rewards, policy: Policy) -> Values:
    """V = (I - P_pi)^-1 r_pi, for each of the rewards in R."""
    chain = np.einsum("sa,ast->st", policy, P)
    reward = np.einsum("sa,...as->s...", policy, R)
    flat = np.linalg.solve(np.eye(len(chain)) - chain, reward.reshape(len(chain), -1))
    return np.moveaxis(flat.reshape(reward.shape), 0, -1)


def action_values(P: Moves, R: Rewards, V: Values) -> Rewards:
    """Q = R + P V."""
    return R + np.einsum("ast,...t->...as", P, V)


def policy_iteration(P: Moves, R: Float[np.ndarray, "A S"]) -> Int[np.ndarray, " S"]:
    """An optimal action a state (Howard, 1960): exact after a handful of linear solves.

    An action is left only for one that is better by more than rounding, so that ties do not cycle
    and the lowest of equal actions is kept.
    """
    n_actions, n_states = R.shape
    actions = np.zeros(n_states, int)
    while True:
        Q = action_values(P, R, policy_values(P, R, np.eye(n_actions)[actions]))
        now = np.take_along_axis(Q, actions[None], 0)[0]
        better = Q.max(0) > now + 1e-10 * np.maximum(1, np.abs(now))
        if not better.any():
            return actions
        actions = np.where(better, Q.argmax(0), actions)


class Counts(NamedTuple):
    """A log of numbered states, added up."""

    transition: Float[np.ndarray, "A S S"]  # share of next states; the end lacks to 1
    reward: Float[np.ndarray, "A S"]  # mean; 0 where never tried
    visits: Int[np.ndarray, "A S"]


def count(
    state: Whole,
    action: Whole,
    reward: Float[np.ndarray, " n"],
    next_state: Whole,
    done: Bool[np.ndarray, " n"],
    n_states: int,
    n_actions: int,
) -> Counts:
    """Add up a log once, for any number of policies.

    Raises ValueError for columns of different lengths, states and actions out of range, and rewards
    that are not finite.
    """
    state = whole_numbers("state", state, n_states)
    next_state = whole_numbers("next_state", next_state, n_states)
    action, reward = whole_numbers("action", action, n_actions), np.asarray(reward, np.float64)
    if len({x.shape for x in (state, action, reward, next_state, np.asarray(done))}) > 1:
        raise ValueError("state, action, reward, next_state and done must have one length")
    if not np.isfinite(reward).all():
        raise ValueError("reward must hold a finite number for every row of the log")
    cell = action * n_states + state
    size = n_states * n_actions
    visits = np.bincount(cell, minlength=size)
    flow = np.bincount(cell * n_states + next_state, ~np.asarray(done, bool), size * n_states)
    seen = np.maximum(visits, 1)
    return Counts(
        (flow.reshape(size, -1) / seen[:, None]).reshape(n_actions, n_states, n_states),
        (np.bincount(cell, reward, size) / seen).reshape(n_actions, n_states),
        visits.reshape(n_actions, n_states),
    )


def whole_numbers(name: str, values, size: int) -> Int[np.ndarray, " n"]:
    """A vector of integers in 0..size-1 as int64, or a ValueError that says so."""
    array = np.asarray(values)
    right = array.ndim == 1 and array.dtype.kind in "iu"
    if not right or (array.size and not 0 <= array.min() <= array.max() < size):
        raise ValueError(f"{name} must hold integers in 0..{size - 1}, one a row of the log")
    return array.astype(np.int64, copy=False)


def valid_actions(actions, shape: tuple[int, ...], n_actions: int) -> Int[np.ndarray, "*shape"]:
    """Actions as an array, or a ValueError that says which are allowed."""
    try:
        array = np.asarray(actions)
    except ValueError:  # lists of different lengths
        array = np.asarray(str(actions))
    right = array.shape == shape and array.dtype.kind in "iu"
    if not (right and array.min() >= 0 and array.max() < n_actions):
        got = " ".join(np.array2string(array, threshold=8, edgeitems=2).split())
        raise ValueError(
            f"actions must be integers in 0..{n_actions - 1} of shape {shape}, got {got}"
        )
    return array


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def numbers(name: str, value, interval: str, length: int | None = None) -> np.ndarray:
    """A number or a vector inside an interval such as ``"[0, inf)"``, or a ValueError."""
    array = np.asarray(value, np.float64)
    if length is not None and array.shape != (length,):
        raise ValueError(f"{name} must hold {length} numbers, got {value}")
    for each in array.flat:
        checks.inside(interval, **{name: float(each)})
    return array
