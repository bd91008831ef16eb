"""Times until an event that some runs never reach: the log-rank test.

Sources: Mantel 1966; the hazard ratio is Peto's (Peto and Peto 1972).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .intervals import FEWEST, Student

if TYPE_CHECKING:
    from jaxtyping import Bool, Num


def log_rank(
    a: Num[np.ndarray, " n"],
    b: Num[np.ndarray, " m"],
    a_reached: Bool[np.ndarray, " n"],
    b_reached: Bool[np.ndarray, " m"],
) -> Student:
    """Log hazard ratio of two sets of times: above 0 where a's runs reach the event sooner.

    a, b: time of the event, or of the end of a run that never reached it (reached False: censored).
    Peto's estimate (observed - expected) / V with error 1 / sqrt(V). Student's t on events - 2
    degrees of freedom stands in for the normal, which is too narrow for a handful of runs. The error
    is unknown with a time that is not finite, with fewer than 3 events and with fewer than 3 runs.
    Raises ValueError where times and flags differ in length.
    """
    if len(a) != len(a_reached) or len(b) != len(b_reached):
        raise ValueError("reached must hold True or False for every time")
    times = np.concatenate([a, b]).astype(float)
    reached = np.concatenate([a_reached, b_reached]).astype(bool)
    mine = np.arange(len(times)) < len(a)
    observed = expected = variance = 0.0
    for t in np.unique(times[reached]):
        risk, event = times >= t, (times == t) & reached
        n, k, d = max(risk.sum(), 1), (risk & mine).sum(), event.sum()
        observed += (event & mine).sum()
        expected += d * k / n
        variance += d * k * (n - k) * (n - d) / (n**2 * max(n - 1, 1))
    events, n = int(reached.sum()), min(len(a), len(b))
    if not (variance and np.isfinite(times).all()) or events < FEWEST or n < FEWEST:
        return Student(np.nan, np.inf, 1.0, n)
    return Student((observed - expected) / variance, variance**-0.5, events - 2.0, n)
