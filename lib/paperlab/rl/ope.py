"""Off-policy evaluation: the value of a policy from another one's log.

Estimators: normalised capped importance sampling (Swaminathan and Joachims, "The Self-Normalized
Estimator", 2015; capped as in Gilotte et al., "Offline A/B Testing", WSDM 2018), per-decision
weighted importance sampling (Precup, Sutton, Singh, ICML 2000), fitted Q evaluation (Le, Voloshin,
Yue, ICML 2019) for numbered states, and the score of SL-MGAC's released code, which knows no
propensities.

Rows of a log are steps of trajectories in any order; ``trajectory`` says which (any integers),
``step`` which step of it, counted from 0. ``ratio`` is pi(a|s) / mu(a|s) of the logged action.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def ratios(
    policy: Float[np.ndarray, "S A"],
    state: Int[np.ndarray, " n"],
    action: Int[np.ndarray, " n"],
    mu: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    """pi(a|s) / mu(a|s) of logged actions.

    mu: the propensities with which they were taken, in (0, 1].
    Raises ValueError for a missing or impossible propensity.
    """
    mu = np.asarray(mu, np.float64)
    if mu.shape != np.shape(state) or not np.all((mu > 0) & (mu <= 1)):
        raise ValueError("mu must hold a propensity in (0, 1] for every row of the log")
    return np.asarray(policy, np.float64)[state, action] / mu


def ncis(
    reward: Float[np.ndarray, " n"],
    ratio: Float[np.ndarray, " n"],
    cap: float = np.inf,
    trajectory: Int[np.ndarray, " n"] | None = None,
) -> float:
    """sum_i w_i r_i / sum_i w_i with w = min(cap, ratio): the mean reward of a step.

    trajectory: given, the ratio of sums is taken in each one, and averaged over them. States
    stay those of the logging policy: only the action is corrected. cap > 0.
    """
    if cap <= 0:
        raise ValueError(f"cap must be above 0, got {cap}")
    weight = np.minimum(cap, _ratio(ratio, reward))
    return _normalised(weight, reward, trajectory)


def released_score(
    reward: Float[np.ndarray, " n"],
    probability: Float[np.ndarray, " n"],
    trajectory: Int[np.ndarray, " n"],
) -> float:
    """mean_u sum_t (pi_t / sum_t' pi_t') r_t, with pi_t the policy's probability of the action.

    What SL-MGAC's code reports, but for a mean over trajectories instead of a sum. It is `ncis` if
    and only if the log was uniform: no propensity enters.
    """
    return _normalised(np.asarray(probability, np.float64), reward, trajectory)


class Estimate(NamedTuple):
    """A value and how many trajectories it rests on."""

    value: float
    effective: Float[np.ndarray, " T"]  # (sum w)^2 / sum w^2 of the weights, by step


def per_decision_wis(
    reward: Float[np.ndarray, " n"],
    ratio: Float[np.ndarray, " n"],
    trajectory: Int[np.ndarray, " n"],
    step: Int[np.ndarray, " n"],
    ended: Bool[np.ndarray, " n"],
    gamma: float,
) -> Estimate:
    """sum_t gamma^t sum_i w_it r_it / sum_i w_it with w_it = prod_{k <= t} ratio_ik.

    A trajectory that has ended keeps its last weight and earns nothing. One that the log merely
    broke off would be taken for one that earned nothing more: leave it out, by when it started and
    not by how it went. ended: True on the last step of each trajectory. gamma: in [0, 1].
    Raises ValueError where a trajectory lacks a step, has it twice, or does not end.
    """
    _discount(gamma)
    ratio = _ratio(ratio, reward)
    _, row = np.unique(trajectory, return_inverse=True)
    shape = (row.max() + 1, int(np.max(step)) + 1)
    filled = np.zeros(shape, int)
    np.add.at(filled, (row, step), 1)
    length = filled.sum(1)
    if not np.array_equal(filled, np.arange(shape[1]) < length[:, None]):
        raise ValueError("step must count every trajectory's rows from 0, each once")
    if not np.array_equal(np.asarray(ended, bool), np.asarray(step) == length[row] - 1):
        raise ValueError("ended must be True on the last step of every trajectory, and only there")
    weight, gain = np.ones(shape), np.zeros(shape)
    weight[row, step], gain[row, step] = ratio, reward
    weight = weight.cumprod(1)
    total = weight.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(total > 0, (weight * gain).sum(0) / total, 0.0)
        effective = total**2 / (weight**2).sum(0)
    return Estimate(float(mean @ gamma ** np.arange(shape[1])), effective)


class Counts(NamedTuple):
    """A log of numbered states, added up; what `fqe` needs of it."""

    transition: Float[np.ndarray, "A S S"]  # share of next states; leaving is what lacks to 1
    reward: Float[np.ndarray, "A S"]  # mean; 0 where never tried
    visits: Int[np.ndarray, "A S"]


def count(
    state: Int[np.ndarray, " n"],
    action: Int[np.ndarray, " n"],
    reward: Float[np.ndarray, " n"],
    next_state: Int[np.ndarray, " n"],
    done: Bool[np.ndarray, " n"],
    n_states: int,
    n_actions: int,
) -> Counts:
    """Add up a log once, for any number of policies."""
    cell = np.asarray(action, np.int64) * n_states + state
    size = n_states * n_actions
    visits = np.bincount(cell, minlength=size)
    go_on = np.bincount(
        cell * n_states + next_state, weights=~np.asarray(done, bool), minlength=size * n_states
    )
    total = np.bincount(cell, weights=reward, minlength=size)
    seen = np.maximum(visits, 1)
    return Counts(
        (go_on.reshape(size, n_states) / seen[:, None]).reshape(n_actions, n_states, n_states),
        (total / seen).reshape(n_actions, n_states),
        visits.reshape(n_actions, n_states),
    )


def fqe(
    counts: Counts, policy: Float[np.ndarray, "S A"], gamma: float, tolerance: float = 1e-8
) -> Float[np.ndarray, "A S"]:
    """Q of a policy by regressing r + gamma Q(s', pi) on (s, a) again and again, until it rests.

    With an indicator for every (state, action) the regression is a mean over the log's rows, so
    that the fixed point is the value in the counted process. gamma: in [0, 1).
    Raises ValueError where the policy does what the log never did in a state that it visits.
    """
    _discount(gamma, below_one=True)
    policy = np.asarray(policy, np.float64)
    visited = counts.visits.sum(0) > 0
    if np.any((policy.T > 0) & (counts.visits == 0) & visited):
        raise ValueError("policy must not act where the log never did: no row tells what follows")
    q = np.zeros_like(counts.reward)
    while True:
        new = counts.reward + gamma * counts.transition @ (policy * q.T).sum(1)
        if np.abs(new - q).max() < tolerance * (1 - gamma):
            return new
        q = new


def _normalised(weight: np.ndarray, reward: np.ndarray, trajectory: np.ndarray | None) -> float:
    reward = np.asarray(reward, np.float64)
    if trajectory is None:
        return float((weight * reward).sum() / weight.sum())
    _, row = np.unique(trajectory, return_inverse=True)
    total = np.bincount(row, weights=weight)
    gain = np.bincount(row, weights=weight * reward)
    return float((gain[total > 0] / total[total > 0]).mean())


def _ratio(ratio: np.ndarray, reward: np.ndarray) -> np.ndarray:
    ratio = np.asarray(ratio, np.float64)
    if ratio.shape != np.shape(reward) or not np.all(np.isfinite(ratio) & (ratio >= 0)):
        raise ValueError("ratio must hold a finite number >= 0 for every row of the log")
    return ratio


def _discount(gamma: float, below_one: bool = False) -> None:
    if not (0 <= gamma < 1 or (gamma == 1 and not below_one)):
        raise ValueError(f"gamma must be in [0, 1{')' if below_one else ']'}, got {gamma}")
