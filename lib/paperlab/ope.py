"""Off-policy evaluation: the value of a policy from another one's log.

Rows of a log are steps of trajectories in any order; ``trajectory`` says which (any integers),
``step`` which step of it, counted from 0. ``ratio`` is pi(a|s) / mu(a|s) of the logged action.
Weights are kept as logarithms where they are products, and divided by their largest before they
are summed, so that none overflows, and none that counts underflows.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import checks
from .mdp import Counts, policy_table, policy_values, whole_numbers

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    Reals, Whole = Float[np.ndarray, " n"], Int[np.ndarray, " n"]  # a row of the log each


class Estimate(NamedTuple):
    """A value, and the effective sample sizes of the weighted means that make it."""

    value: float  # NaN, with a warning, where weights of 0 leave nothing to average
    effective: Float[np.ndarray, " M"]  # (sum w)^2 / sum w^2, by step or by trajectory


def ratios(policy: Float[np.ndarray, "S A"], state: Whole, action: Whole, mu: Reals) -> Reals:
    """pi(a|s) / mu(a|s) of logged actions.

    mu: the propensities with which they were taken, in (0, 1].
    Raises ValueError for a policy that is none, a state or action outside it, and a missing or
    impossible propensity.
    """
    policy = np.asarray(policy, np.float64)
    policy = policy_table(policy, *(policy.shape if policy.ndim == 2 else (len(policy), 1)))
    state, action = (
        whole_numbers(name, value, size)
        for name, value, size in zip(
            ("state", "action"), (state, action), policy.shape, strict=True
        )
    )
    mu = np.asarray(mu, np.float64)
    if mu.shape != np.shape(state) or not np.all((mu > 0) & (mu <= 1)):
        raise ValueError("mu must hold a propensity in (0, 1] for every row of the log")
    return policy[state, action] / mu


def ncis(
    reward: Reals, ratio: Reals, cap: float = np.inf, trajectory: Whole | None = None
) -> Estimate:
    """sum_i w_i r_i / sum_i w_i with w = min(cap, ratio): the mean reward of a step.

    Normalised (Swaminathan and Joachims, "The Self-Normalized Estimator", 2015) capped (Gilotte et
    al., "Offline A/B Testing", WSDM 2018) importance sampling. States stay those of the logging
    policy: only the action is corrected.

    cap: above 0.
    trajectory: given, the ratio of sums is taken in each one, and averaged over those with a weight
        above 0; a warning counts the others.
    """
    if not cap > 0:
        raise ValueError(f"cap must be above 0, got {cap}")
    weight, row = np.minimum(cap, _checked(ratio, reward)), np.zeros(len(ratio), int)
    if trajectory is not None:
        _, row = np.unique(trajectory, return_inverse=True)
    largest = np.zeros(row.max() + 1)
    np.maximum.at(largest, row, weight)
    weight = weight / np.where(largest > 0, largest, 1)[row]
    total, gain, squares = (np.bincount(row, w) for w in (weight, weight * reward, weight**2))
    known = _known(total, "trajectories")
    value = (gain[known] / total[known]).mean() if known.any() else np.nan
    return Estimate(float(value), total[known] ** 2 / squares[known])


def released_score(reward: Reals, probability: Reals, trajectory: Whole) -> Estimate:
    """mean_u sum_t (pi_t / sum_t' pi_t') r_t, with pi_t the policy's probability of the action.

    What SL-MGAC's code reports, but for a mean over trajectories instead of a sum. It is `ncis` if
    and only if the log was uniform: no propensity enters.
    """
    return ncis(reward, probability, trajectory=trajectory)


def per_decision_wis(
    reward: Reals,
    ratio: Reals,
    trajectory: Whole,
    step: Whole,
    ended: Bool[np.ndarray, " n"],
    gamma: float,
) -> Estimate:
    """sum_t gamma^t sum_i w_it r_it / sum_i w_it with w_it = prod_{k <= t} ratio_ik.

    Per-decision weighted importance sampling (Precup, Sutton, Singh, ICML 2000). A trajectory that
    has ended keeps its last weight and earns nothing. One that the log merely broke off would be
    taken for one that earned nothing more: leave it out, by when it started and not by how it went.

    ended: True on the last step of each trajectory. gamma: in [0, 1].
    A step at which all weights are 0 makes the value NaN.
    Raises ValueError where a trajectory lacks a step, has it twice, or does not end.
    """
    checks.inside("[0, 1]", gamma=gamma)
    ratio = _checked(ratio, reward)
    step = whole_numbers("step", step, len(ratio))
    _, row = np.unique(trajectory, return_inverse=True)
    shape = (row.max() + 1, int(np.max(step)) + 1)
    filled = np.zeros(shape, int)
    np.add.at(filled, (row, step), 1)
    length = filled.sum(1)
    if not np.array_equal(filled, np.arange(shape[1]) < length[:, None]):
        raise ValueError("step must count every trajectory's rows from 0, each once")
    if not np.array_equal(np.asarray(ended, bool), np.asarray(step) == length[row] - 1):
        raise ValueError("ended must be True on the last step of every trajectory, and only there")
    weight, gain = np.zeros(shape), np.zeros(shape)
    with np.errstate(divide="ignore"):
        weight[row, step], gain[row, step] = np.log(ratio), reward
    weight = weight.cumsum(1)
    largest = weight.max(0)
    weight = np.exp(weight - np.where(largest > -np.inf, largest, 0))
    total = weight.sum(0)
    known = _known(total, "steps")
    mean = np.divide((weight * gain).sum(0), total, where=known, out=np.full(shape[1], np.nan))
    effective = np.divide(total**2, (weight**2).sum(0), where=known, out=np.zeros(shape[1]))
    return Estimate(float(mean @ gamma ** np.arange(shape[1])), effective)


def fqe(counts: Counts, policy: Float[np.ndarray, "S A"], gamma: float) -> Float[np.ndarray, " S"]:
    """The value of a policy where regressing r + gamma Q(s', pi) on (s, a) comes to rest.

    Fitted Q evaluation (Le, Voloshin, Yue, ICML 2019) for numbered states. With an indicator for
    every (state, action) the regression is a mean over the log's rows, so that the fixed point is
    the value in the counted process, here by a linear solve. An action that the log never took in a
    state that it visited is left out there, and the policy's others are scaled to sum to 1.

    counts: `mdp.count` of a log, undiscounted. gamma: in [0, 1).
    Raises ValueError for a policy that is none, and where that leaves no action.
    """
    checks.inside("[0, 1)", gamma=gamma)
    seen = counts.visits.T > 0
    kept = policy_table(np.asarray(policy, np.float64), *seen.shape) * (
        seen | ~seen.any(1, keepdims=True)
    )
    if not kept.any(1).all():
        raise ValueError("policy must act where the log did in every state that the log visited")
    kept /= kept.sum(1, keepdims=True)
    return policy_values(gamma * counts.transition, counts.reward, kept)


def _known(total: Float[np.ndarray, " M"], what: str) -> Bool[np.ndarray, " M"]:
    """Which sums of weights say anything; a warning where some do not."""
    if lacking := int((total == 0).sum()):
        warnings.warn(f"all weights are 0 in {lacking} of {len(total)} {what}", stacklevel=3)
    return total > 0


def _checked(ratio: Reals, reward: Reals) -> Reals:
    ratio = np.asarray(ratio, np.float64)
    if not ratio.size:
        raise ValueError("the log must hold at least one row")
    if ratio.shape != np.shape(reward) or not np.all(np.isfinite(ratio) & (ratio >= 0)):
        raise ValueError("ratio must hold a finite number >= 0 for every row of the log")
    if not np.all(np.isfinite(reward)):
        raise ValueError("reward must hold a finite number for every row of the log")
    return ratio
