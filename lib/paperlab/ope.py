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
    influence: Float[np.ndarray, " N"]  # of each trajectory on the value; they sum to 0

    @property
    def error(self) -> float:
        """Standard error over trajectories, the limit of a bootstrap of them."""
        n = len(self.influence)
        return float((self.influence @ self.influence * n / (n - 1)) ** 0.5) if n > 1 else np.nan


class _Steps(NamedTuple):
    """Rows as a table of N trajectories and T steps."""

    row: Int[np.ndarray, " n"]
    step: Int[np.ndarray, " n"]
    log_weight: Float[np.ndarray, "N T"]  # log w_it; a trajectory that has ended keeps its last


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
    mean = gain[known] / total[known]
    value = float(mean.mean()) if known.any() else np.nan
    if trajectory is None:  # a ratio of sums over rows
        influence = weight * (np.asarray(reward, np.float64) - value) / total
    else:
        influence = (mean - value) / max(len(mean), 1)
    return Estimate(value, total[known] ** 2 / squares[known], influence)


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
    rows = _steps(reward, ratio, trajectory, step, ended, gamma)
    return _per_decision(rows, reward, gamma)


def doubly_robust(
    reward: Reals,
    ratio: Reals,
    q: Reals,
    v: Reals,
    trajectory: Whole,
    step: Whole,
    ended: Bool[np.ndarray, " n"],
    gamma: float,
) -> Estimate:
    """sum_t gamma^t sum_i [u_it (r_it - q_it) + u_i,t-1 v_it], u_it = w_it / sum_j w_jt.

    Weighted doubly robust (Thomas and Brunskill, ICML 2016, equation 7): self-normalised weights
    w as in `per_decision_wis`, which corrects a model by what it missed. An exact model leaves only
    the spread of the first states; q = v = 0 is `per_decision_wis`.

    q: the model's Q(s, a) of the logged action. v: its sum_a pi(a|s) Q(s, a). Other arguments and
    errors: `per_decision_wis`'s.
    """
    rows = _steps(reward, ratio, trajectory, step, ended, gamma)
    found = _per_decision(rows, np.asarray(reward, np.float64) - _finite("q", q, reward), gamma)
    before = _Steps(rows.row, rows.step, np.roll(rows.log_weight, 1, 1))
    before.log_weight[:, 0] = 0
    base = _per_decision(before, _finite("v", v, reward), gamma)
    influence = found.influence + base.influence
    return Estimate(found.value + base.value, found.effective, influence)


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


def _steps(reward, ratio, trajectory, step, ended, gamma: float) -> _Steps:
    """Checked rows; raises ValueError as `per_decision_wis` says."""
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
    log_weight = np.zeros(shape)
    with np.errstate(divide="ignore"):
        log_weight[row, step] = np.log(ratio)
    return _Steps(row, np.asarray(step), log_weight.cumsum(1))


def _per_decision(rows: _Steps, reward: Reals, gamma: float) -> Estimate:
    """sum_t gamma^t times the weighted mean of step t's rewards."""
    weight, gain = rows.log_weight, np.zeros(rows.log_weight.shape)
    gain[rows.row, rows.step] = reward
    largest = weight.max(0)
    weight = np.exp(weight - np.where(largest > -np.inf, largest, 0))
    total = weight.sum(0)
    known = _known(total, "steps")
    mean = np.divide((weight * gain).sum(0), total, where=known, out=np.full(len(total), np.nan))
    effective = np.divide(total**2, (weight**2).sum(0), where=known, out=np.zeros(len(total)))
    discount = gamma ** np.arange(len(total))
    share = np.divide(weight, total, where=known, out=np.zeros(weight.shape))
    return Estimate(float(mean @ discount), effective, (share * (gain - mean)) @ discount)


def _known(total: Float[np.ndarray, " M"], what: str) -> Bool[np.ndarray, " M"]:
    """Which sums of weights say anything; a warning where some do not."""
    if lacking := int((total == 0).sum()):
        warnings.warn(f"all weights are 0 in {lacking} of {len(total)} {what}", stacklevel=3)
    return total > 0


def _finite(name: str, values: Reals, reward: Reals) -> Reals:
    values = np.asarray(values, np.float64)
    if values.shape != np.shape(reward) or not np.all(np.isfinite(values)):
        raise ValueError(f"{name} must hold a finite number for every row of the log")
    return values


def _checked(ratio: Reals, reward: Reals) -> Reals:
    ratio = np.asarray(ratio, np.float64)
    if not ratio.size:
        raise ValueError("the log must hold at least one row")
    if ratio.shape != np.shape(reward) or not np.all(np.isfinite(ratio) & (ratio >= 0)):
        raise ValueError("ratio must hold a finite number >= 0 for every row of the log")
    if not np.all(np.isfinite(reward)):
        raise ValueError("reward must hold a finite number for every row of the log")
    return ratio
