"""Estimates of a difference with what is known of their error, and tests that hold many at 5 %.

Every estimate answers three questions: its interval at a level, and how likely data so far above,
or so far below, a value would be if that value were the truth. `Student` does so by the t
distribution, for one number or for an array of any shape; `SignedRanks` without a distribution.

- `paired`: one difference a seed. Student's t needs differences that are roughly normal: take
  logs or `ranks` where tails are heavy.
- `two_level`, `auc`, `resampled`: seeds and test units (rows, users, queries, sessions) both vary.
  The variances of the two levels are added; what varies by unit and seed at once is in both, so
  that the sum is never short. Degrees of freedom follow Satterthwaite (1946).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

ALPHA = 0.05  # error rate of a whole notebook
FEWEST = 3  # pairs below which a standard deviation says nothing
ROUNDING = 1e-12  # relative size below which a spread is rounding


@dataclass(frozen=True)
class Student:
    """An estimate whose error over its standard error follows Student's t; numbers or arrays.

    value: the estimate; se: its standard error, inf where it is unknown, 0 where it is exact;
    df: degrees of freedom; n: independent pairs; seed_share: part of se**2 that more seeds reduce.
    """

    value: Float[np.ndarray, ...]
    se: Float[np.ndarray, ...]
    df: Float[np.ndarray, ...]
    n: int
    seed_share: Float[np.ndarray, ...] = 1.0

    def above(self, bound: float) -> Float[np.ndarray, ...]:
        """One-sided p-value against "the truth is at most bound"."""
        return _tail((np.asarray(self.value) - bound), self.se, self.df)

    def below(self, bound: float) -> Float[np.ndarray, ...]:
        """One-sided p-value against "the truth is at least bound"."""
        return _tail((bound - np.asarray(self.value)), self.se, self.df)

    def interval(
        self, level: float = 0.95
    ) -> tuple[Float[np.ndarray, ...], Float[np.ndarray, ...]]:
        """Two-sided interval at a level in (0, 1); infinite where the error is unknown."""
        half = t_quantile(self.df, level) * self.se
        return self.value - half, self.value + half

    def reverse(self) -> Student:
        """The same estimate with the two sides swapped."""
        return Student(-self.value, self.se, self.df, self.n, self.seed_share)


@dataclass(frozen=True)
class SignedRanks:
    """The Hodges-Lehmann median of differences with Wilcoxon's signed-rank test (1945).

    walsh: sorted means of all pairs of differences, each with itself too; n: differences;
    se, df: those of the mean, for `power` only. Tied means count against every finding.
    """

    walsh: Float[np.ndarray, " n*(n+1)/2"]
    n: int
    se: float
    df: float
    seed_share: float = 1.0

    @property
    def value(self) -> float:
        return float(np.median(self.walsh))

    def above(self, bound: float) -> float:
        """One-sided p-value against "the truth is at most bound"."""
        return float(_rank_chances(self.n)[int((self.walsh > bound).sum()) :].sum())

    def below(self, bound: float) -> float:
        """One-sided p-value against "the truth is at least bound"."""
        return float(_rank_chances(self.n)[int((self.walsh < bound).sum()) :].sum())

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided interval at least at a level in (0, 1); infinite with too few differences."""
        tails = np.cumsum(_rank_chances(self.n))  # P(W <= k)
        cut = int((tails <= (1 - level) / 2).sum())
        if not cut:
            return -np.inf, np.inf
        return float(self.walsh[cut - 1]), float(self.walsh[-cut])

    def reverse(self) -> SignedRanks:
        """The same estimate with the two sides swapped."""
        return SignedRanks(-self.walsh[::-1], self.n, self.se, self.df, self.seed_share)


def t_quantile(df: Float[np.ndarray, ...], level: float = 0.95) -> Float[np.ndarray, ...]:
    """The t with P(|T| < t) = level for ``df`` >= 1 degrees of freedom, inf for the normal."""
    from scipy.special import stdtrit

    return stdtrit(np.minimum(df, 1e9), (1 + np.asarray(level)) / 2)


def paired(a: Float[np.ndarray, "... n"], b: Float[np.ndarray, "... n"]) -> Student:
    """Mean of a - b over n pairs, with Student's t on n - 1 degrees of freedom.

    The error is unknown (se inf) with fewer than 3 pairs, with a value that is not finite, and
    where nothing varies between the pairs: identical differences say nothing of the noise. It is 0
    where all differences are exactly 0 while the values themselves vary: the sides are the same.
    """
    a, b = np.broadcast_arrays(np.asarray(a, float), np.asarray(b, float))
    n = a.shape[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        d = a - b
        value = d.mean(-1) if n else np.full(d.shape[:-1], np.nan)
        se = d.std(-1, ddof=1) / np.sqrt(n) if n >= FEWEST else np.full(d.shape[:-1], np.inf)
        scale = ROUNDING * np.maximum(np.abs(a), np.abs(b)).max(-1, initial=0)
        varied = np.ptp(a, -1) > scale if n else False
        same = varied & (d == 0).all(-1) & (n >= FEWEST)
        se = np.where(same, 0.0, np.where(se > scale, se, np.inf))  # NaN: unknown
    return Student(value[()], se[()], float(max(n - 1, 1)), n)


def ranks(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> SignedRanks | Student:
    """Hodges-Lehmann median of a - b over n <= 2000 pairs.

    With n pairs no two-sided p-value is below 2 / 2**n: with fewer than 6 nothing is significant.
    The error is unknown with fewer than 3 pairs and with a value that is not finite.
    """
    with np.errstate(invalid="ignore"):
        d = np.asarray(a, float) - np.asarray(b, float)
    n = len(d)
    if n > 2000:
        raise ValueError(f"ranks take at most 2000 pairs, got {n:,}")
    if n < FEWEST or not np.isfinite(d).all():
        return _unknown(n)
    i, j = np.triu_indices(n)
    return SignedRanks(np.sort((d[i] + d[j]) / 2), n, float(d.std(ddof=1) / n**0.5), n - 1.0)


def two_level(
    a: Float[np.ndarray, "... seeds units"],
    b: Float[np.ndarray, "... seeds units"],
    weights: Float[np.ndarray, " units"] | None = None,
    clusters: Int[np.ndarray, " units"] | None = None,
) -> Student:
    """Difference of two metrics that are ratios of sums over test units, over seeds and units.

    The metric of one seed is sum(a) / sum(weights): a mean with weights of 1, a grouped AUC with
    a user's AUC times rows in a and its rows in weights. clusters: which units belong together
    (rows of one user); the variance is that of whole clusters. The units' part is the ratio's
    linearisation, the limit of a bootstrap of units. With one seed it covers the test units only.
    The error is unknown with one cluster and with a value that is not finite. Raises ValueError for
    weights below 0, or with a sum that is 0 or not finite.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    weights = np.ones(a.shape[-1]) if weights is None else np.asarray(weights, float)
    if not ((weights >= 0).all() and 0 < weights.sum() < np.inf):
        raise ValueError("weights must be at least 0, with a finite sum above 0")
    with np.errstate(divide="ignore", invalid="ignore"):
        by_seed = (a - b).sum(-1) / weights.sum()
        d, value = (a - b).mean(-2), by_seed.mean(-1)
        if clusters is not None:
            d, weights = _by_cluster(d, clusters), _by_cluster(weights, clusters)
        units = d.shape[-1]
        influence = (d - value[..., None] * weights) / weights.mean()
        variance = (influence**2).sum(-1) / (units * (units - 1))
    return _joined(by_seed, variance, units, max(np.abs(a).max(), np.abs(b).max()))


def auc(
    labels: Bool[np.ndarray, " rows"],
    a: Float[np.ndarray, "seeds rows"],
    b: Float[np.ndarray, "seeds rows"],
    clusters: Int[np.ndarray, " rows"] | None = None,
) -> Student:
    """Difference in AUC of two sets of scores on the same test rows, over seeds and rows.

    The rows' part is DeLong's (1988); with clusters (users, sessions) it is Obuchowski's (1997). The
    error is unknown with one cluster and with a score that is NaN. Raises ValueError for labels other
    than 0 and 1, and for a class with fewer than two rows.
    """
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    labels = np.asarray(labels, bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if min(positives, negatives) < 2:
        raise ValueError(f"AUC needs two rows a class, got {positives} and {negatives}")
    if np.isnan(a).any() or np.isnan(b).any():
        return _unknown(len(a))
    places = [_placements(labels, one) - _placements(labels, two) for one, two in zip(a, b, strict=True)]  # fmt: skip
    by_seed = np.array([p[labels].mean() for p in places])
    rows = np.mean(places, axis=0) - by_seed.mean()
    rows /= np.where(labels, (positives * (positives - 1)) ** 0.5, (negatives * (negatives - 1)) ** 0.5)  # fmt: skip
    units, correction = min(positives, negatives), 1.0
    if clusters is not None:
        rows = _by_cluster(rows, clusters)
        units, correction = len(rows), len(rows) / max(len(rows) - 1, 1)
    return _joined(by_seed, correction * (rows**2).sum(), units)


def resampled(
    statistic: Callable[[Float[np.ndarray, "draws units"]], Float[np.ndarray, "draws seeds"]],
    units: int,
    draws: int = 1000,
    seed: int = 0,
) -> Student:
    """Any difference that can be computed from weighted test units: bootstrap of units, t of seeds.

    statistic: differences of every seed under rows of weights (how often each unit is drawn).
    Use `two_level` or `auc` where they apply: they need no draws.
    """
    rng = np.random.default_rng(seed)
    by_seed = np.asarray(statistic(np.ones((1, units))))[0]
    chunk, means = max(1, 4_000_000 // units), []
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        weights = rng.multinomial(units, np.full(units, 1 / units), size=size)
        means.append(np.asarray(statistic(weights)).mean(-1))
    return _joined(by_seed, np.concatenate(means).var(ddof=1), units)


def holm(p: Float[np.ndarray, "... m"], alpha: float = ALPHA) -> Float[np.ndarray, "... m"]:
    """The level at which each of m p-values is tested, so that all m hold together at alpha.

    Holm (1979): the k-th smallest at alpha / (m - k + 1), until one fails; those after it at the
    level of that one. So p <= level exactly where Holm rejects, and the interval at 1 - level
    leaves out 0 exactly there.
    """
    p = np.asarray(p, float)
    m = p.shape[-1]
    order = np.argsort(p, axis=-1, kind="stable")
    steps = np.broadcast_to(alpha / (m - np.arange(m)), p.shape)
    fails = np.take_along_axis(p, order, -1) > steps
    first = np.where(fails.any(-1), fails.argmax(-1), m - 1)[..., None]
    levels = np.empty_like(p)
    np.put_along_axis(levels, order, np.take_along_axis(steps, np.minimum(np.arange(m), first), -1), -1)  # fmt: skip
    return levels


def power(
    estimate: Student | SignedRanks, effect: float, alpha: float, n: int | None = None
) -> float:
    """Chance that a two-sided test at alpha finds a true effect > 0, with n pairs instead.

    Normal noise of the size seen (noncentral t); 0 where the error is unknown.
    """
    from scipy.special import nctdtr, ndtr

    if not np.isfinite(estimate.se):
        return 0.0
    if not estimate.se:
        return 1.0
    n = n or estimate.n
    share = estimate.seed_share
    se = estimate.se * (share * estimate.n / n + 1 - share) ** 0.5
    df, ratio = max(estimate.df + n - estimate.n, 1.0), effect / se
    critical = t_quantile(df, 1 - alpha)
    if df > 100 or ratio > 50:  # scipy's noncentral t fails far out
        return float(ndtr(ratio - critical))
    return float(1 - nctdtr(df, ratio, critical))


def pairs_needed(estimate: Student | SignedRanks, effect: float, alpha: float, wanted: float = 0.8) -> int | None:  # fmt: skip
    """Fewest pairs with which `power` reaches ``wanted``; None where 10,000 are not enough."""
    low, high = FEWEST - 1, 10_000
    if power(estimate, effect, alpha, high) < wanted:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(estimate, effect, alpha, middle) >= wanted else (middle, high)  # fmt: skip
    return high


def _unknown(n: int) -> Student:
    """No estimate: a value is missing, or there are too few."""
    return Student(np.nan, np.inf, 1.0, n)


def _tail(distance, se, df):
    """P(T >= distance / se): 1 where the error is unknown; 0 or 1 where it is exact."""
    from scipy.special import stdtr

    with np.errstate(divide="ignore", invalid="ignore"):
        p = stdtr(np.minimum(df, 1e9), -np.asarray(distance / np.where(np.equal(se, 0), 1.0, se)))
    p = np.where(np.equal(se, 0), np.where(np.greater(distance, 0), 0.0, 1.0), p)
    return np.where(np.isfinite(se) & np.isfinite(distance), p, 1.0)[()]


def _joined(by_seed, unit_variance, units: int, scale=1.0) -> Student:
    """Mean over seeds, with the variances of seeds and of test units added.

    Degrees of freedom are Satterthwaite's with the seeds' variance at its upper 90 % bound. Taken
    as it is, three seeds that are close by chance pass for a large sample (see test_verdict_calibration).
    """
    from scipy.special import chdtri

    seeds, units_df = by_seed.shape[-1], max(units - 1, 1)
    value = by_seed.mean(-1)
    noise = (ROUNDING * scale) ** 2  # less variance than this is rounding: nothing varies
    if seeds == 1:
        se = np.where(unit_variance > noise, np.sqrt(unit_variance), np.inf)[()]
        return Student(value[()], se, float(units_df), units, 0.0)
    between = by_seed.var(-1, ddof=1) / seeds
    total, bound = between + unit_variance, between * (seeds - 1) / chdtri(seeds - 1, 0.9)
    known = (total > noise) & np.isfinite(total) & (min(seeds, units) >= FEWEST)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = (bound + unit_variance) ** 2
        df /= bound**2 / (seeds - 1) + unit_variance**2 / units_df
        share = between / total
    se, df, share = (np.where(known, x, y)[()] for x, y in ((np.sqrt(total), np.inf), (df, 1.0), (share, 1.0)))  # fmt: skip
    return Student(value[()], se, df, seeds, share)


def _by_cluster(values: Float[np.ndarray, "... units"], clusters) -> Float[np.ndarray, "... c"]:
    """Sums of values over the units of each cluster."""
    _, index = np.unique(clusters, return_inverse=True)
    flat = values.reshape(-1, values.shape[-1])
    sums = np.stack([np.bincount(index, weights=row) for row in flat])
    return sums.reshape(*values.shape[:-1], -1)


def _placements(labels, scores) -> Float[np.ndarray, " rows"]:
    """Share of the other class that each row is ranked rightly against; ties count one half."""
    scores = np.asarray(scores, float)
    up, down = np.sort(scores[labels]), np.sort(scores[~labels])
    place = lambda others, x: (np.searchsorted(others, x, "left") + np.searchsorted(others, x, "right")) / (2 * len(others))  # noqa: E731  # fmt: skip
    found = np.empty(len(scores))
    found[labels], found[~labels] = place(down, scores[labels]), 1 - place(up, scores[~labels])
    return found


def _rank_chances(n: int) -> Float[np.ndarray, n * (n + 1) / 2 + 1]:
    """P(W = k) of the signed-rank sum of n differences without an effect; normal above n = 50."""
    if n > 50:
        k = np.arange(n * (n + 1) // 2 + 1)
        sd = (n * (n + 1) * (2 * n + 1) / 24) ** 0.5
        chances = np.exp(-(((k - n * (n + 1) / 4) / sd) ** 2) / 2)
        return chances / chances.sum()
    counts = np.zeros(n * (n + 1) // 2 + 1)
    counts[0] = 1
    for rank in range(1, n + 1):
        counts[rank:] += counts[:-rank].copy()
    return counts / 2.0**n
