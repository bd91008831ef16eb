"""Policies for a bandit log, and what each would have earned: an off-policy evaluation.

One part of the log fits a reward model r(x, a) and the policies made from it, the other part
estimates their values. With w = pi(a|x) / mu(a|x) of the logged action and v = sum_a pi(a|x) r(x, a),

    DM     mean v                             direct method: as good as the model
    IPS    mean w r                           unbiased, as wide as the weights
    SNIPS  sum w r / sum w                    Swaminathan and Joachims, NeurIPS 2015
    DR     mean v + mean w (r - r(x, a))      Dudik, Langford, Li, ICML 2011: unbiased

The last three need true propensities and a logging policy that takes every action at times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import checks
from ..data.kinds import BanditLog

if TYPE_CHECKING:
    from jaxtyping import Float, Int

FEWEST = 100  # rounds of a log, and draws of a bootstrap
ESTIMATORS = ("DM", "IPS", "SNIPS", "DR")
ETA = 2.0  # SL-MGAC's teacher: softmax(ETA Q), with Q in [0, 1] where nothing follows


def evaluate(log: BanditLog, *, share: float = 0.5, draws: int = 1000, seed: int = 0) -> list[dict]:
    """Fit policies on a random part of a bandit log and estimate their values on the rest.

    Policies: ``logging``, the one that made the log; ``uniform``; ``greedy`` in the reward model;
    ``softmax`` of it, at a temperature of its spread over actions; ``SL-MGAC``, the softmax at
    temperature 1/2 that the paper's actor copies, here of rewards scaled to [0, 1].

    share: of the rounds that fit, in (0, 1). draws: of the bootstrap, at least 100.

    Returns a row for each policy and estimator: ``value`` with ``low`` and ``high``, its 95 %
    percentile interval over redrawn rounds (the fitted model stays, so that DM's leaves out the
    model's error); ``gain``, ``gain low``, ``gain high``, the same for value minus the mean reward
    of the log; ``effective`` sample size of the weights, and ``rounds``. A value is NaN where the
    log never took what the policy does.
    Raises ValueError for another table, fewer than 100 rounds, a single action, a part whose reward
    is constant, and values out of range.
    """
    checks.whole(FEWEST, draws=draws)
    rng = np.random.default_rng(seed)
    columns, reward, predicted = _columns(log, share, seed, rng)
    parts = [np.stack([w, w * reward, v, w * (reward - predicted)], 1) for w, v in columns.values()]
    terms = np.stack([*parts, np.tile(reward[:, None], 4)], 1)  # (rounds, policies and the log, 4)
    numbers, rows, rounds = iter(_bootstrap(terms, draws, rng)), [], len(reward)
    for name, (weight, _) in columns.items():
        size = float(weight.sum() ** 2 / max((weight**2).sum(), np.finfo(float).tiny))
        for kind in ESTIMATORS:
            end = {"effective": float(rounds) if kind == "DM" else size, "rounds": rounds}
            rows.append({"policy": name, "estimator": kind} | next(numbers) | end)
    return rows


def by_round(
    log: BanditLog, *, share: float = 0.5, seed: int = 0
) -> dict[str, Float[np.ndarray, " rounds"]]:
    """What each policy of `evaluate` earns in each round that it is judged on: the summands of DR."""
    columns, reward, predicted = _columns(log, share, seed, np.random.default_rng(seed))
    return {name: v + w * (reward - predicted) for name, (w, v) in columns.items()}


def _columns(log: BanditLog, share: float, seed: int, rng: np.random.Generator):
    """Each policy's weights w and model values v on the judged rounds; their rewards, predictions."""
    _check(log, share)
    order = rng.permutation(len(log))
    fit, rest = np.split(order, [round(share * len(log))])
    low, high = log.reward[fit].min(), log.reward[fit].max()
    if low == high:
        raise ValueError(f"{log.name}: reward must vary within the {len(fit)} rounds that fit")
    predict = reward_model(log, fit, seed)
    spread = float(_centred(predict(fit)).std()) or 1.0
    q, action, reward = predict(rest), log.action[rest], log.reward[rest].astype(float)
    policies = {
        "uniform": np.full(q.shape, 1 / log.actions),
        "greedy": np.eye(log.actions)[q.argmax(1)],
        "softmax": _softmax(q / spread),
        "SL-MGAC": _softmax(ETA * (q - low) / (high - low)),
    }
    taken = np.arange(len(rest)), action
    columns = {"logging": (np.ones(len(rest)), q[taken])}
    for name, policy in policies.items():
        columns[name] = policy[taken] / log.propensity[rest], (policy * q).sum(1)
    return columns, reward, q[taken]


def reward_model(log: BanditLog, rounds: Int[np.ndarray, " n"], seed: int):
    """Fit boosted trees to the rewards of some rounds; return rounds -> r(x, a) (rounds, actions).

    They read the context, the position, the action's features and its number.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    def features(rounds, action):
        parts = log.context[rounds], log.position[rounds], log.item_features[action], action
        return np.column_stack(parts)

    trees = HistGradientBoostingRegressor(
        learning_rate=0.05, max_iter=60, max_leaf_nodes=15, early_stopping=False, random_state=seed
    )
    trees.fit(features(rounds, log.action[rounds]), log.reward[rounds])

    def predict(rounds) -> Float[np.ndarray, "rounds actions"]:
        each = (features(rounds, np.full(len(rounds), a)) for a in range(log.actions))
        return np.stack([trees.predict(x) for x in each], 1)

    return predict


def _bootstrap(terms: Float[np.ndarray, "n policies 4"], draws: int, rng) -> list[dict]:
    """Estimates, gains over the last column's reward, and their intervals, policy by policy."""
    n, flat = len(terms), terms.reshape(len(terms), -1)
    size, drawn = max(1, 4_000_000 // n), []
    for start in range(0, draws, size):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(size, draws - start))
        drawn.append(counts @ flat / n)
    point, every = flat.mean(0)[None], np.concatenate(drawn)
    (value, gain), (values, gains) = (
        _estimates(x.reshape(-1, *terms.shape[1:])) for x in (point, every)
    )
    ends = [np.nanquantile(x, (0.025, 0.975), axis=0) for x in (values, gains)]
    names = ("value", "low", "high", "gain", "gain low", "gain high")
    rows = np.stack([value[0], *ends[0], gain[0], *ends[1]], -1)
    return [dict(zip(names, map(float, row), strict=True)) for row in rows.round(12)]


def _estimates(mean: Float[np.ndarray, "draws policies 4"]) -> tuple[np.ndarray, np.ndarray]:
    """Values by policy and estimator, and what they are above the log's mean reward."""
    w, wr, v, missed = np.moveaxis(mean[:, :-1], -1, 0)
    ratio = np.divide(wr, w, where=w > 0, out=np.full(w.shape, np.nan))
    values = np.stack([v, wr, ratio, v + missed], -1).reshape(len(mean), -1)
    return values, values - mean[:, -1, :1]


def _centred(q: Float[np.ndarray, "n A"]) -> Float[np.ndarray, "n A"]:
    return q - q.mean(1, keepdims=True)


def _softmax(logits: Float[np.ndarray, "n A"]) -> Float[np.ndarray, "n A"]:
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def _check(log, share: float) -> None:
    if not isinstance(log, BanditLog):
        raise ValueError(f"log must be a BanditLog, got {type(log).__name__}")
    if len(log) < FEWEST:
        raise ValueError(f"{log.name}: log must have at least {FEWEST} rounds, got {len(log)}")
    if log.actions < 2:
        raise ValueError(f"{log.name}: log must have at least 2 actions, got {log.actions}")
    checks.inside("(0, 1)", share=share)


def contenders() -> dict[str, None]:
    """The policies of `evaluate`, which `paperlab.tryout` compares."""
    return dict.fromkeys(("SL-MGAC", "greedy", "softmax", "uniform", "logging"))
