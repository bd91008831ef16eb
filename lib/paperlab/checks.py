"""Validation of arguments: each check raises ValueError in one line that names what is right.

Values come by keyword, so that the message carries the argument's own name::

    checks.whole(epochs=epochs, batch_size=batch_size)
    checks.inside("[0, 1)", dropout=dropout)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def whole(least: int = 1, **values: int) -> None:
    """Whole numbers of at least ``least``."""
    for name, value in values.items():
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise ValueError(f"{name} must be a whole number, got {value!r}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def positive(**values: float) -> None:
    """Finite numbers above 0."""
    for name, value in values.items():
        if not (_finite(value) and value > 0):
            raise ValueError(f"{name} must be above 0 and finite, got {value!r}")


def at_least(least: float, **values: float) -> None:
    """Finite numbers of at least ``least``."""
    for name, value in values.items():
        if not (_finite(value) and value >= least):
            raise ValueError(f"{name} must be at least {least} and finite, got {value!r}")


def inside(interval: str, **values: float) -> None:
    """Finite numbers in an interval, written as in mathematics: ``"[0, 1)"``."""
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    for name, value in values.items():
        within = _finite(value)
        within = within and (value >= low if interval[0] == "[" else value > low)
        within = within and (value <= high if interval[-1] == "]" else value < high)
        if not within:
            raise ValueError(f"{name} must be in {interval}, got {value!r}")


def multiple(of: int, **values: int) -> None:
    """Whole multiples of a number, at least 1."""
    whole(**values)
    for name, value in values.items():
        if value % of:
            raise ValueError(f"{name} must be a multiple of {of}, got {value}")


def one_of(allowed: Iterable, **values: object) -> None:
    """Members of ``allowed``."""
    allowed = tuple(allowed)
    for name, value in values.items():
        if value not in allowed:
            known = ", ".join(map(str, allowed))
            raise ValueError(f"{name} must be one of {known}, not {value!r}")


def widths(empty: bool = False, **values: Iterable[int]) -> None:
    """Lists of whole numbers of at least 1; with ``empty`` a list may have none."""
    for name, value in values.items():
        sizes = tuple(value)
        if not (sizes or empty) or not all(isinstance(n, Integral) and n >= 1 for n in sizes):
            many = "whole numbers" if empty else "one or more whole numbers"
            raise ValueError(f"{name} must be {many} of at least 1, got {value}")


def finite(**tensors: Tensor) -> None:
    """Tensors without NaN and infinity."""
    for name, tensor in tensors.items():
        wrong = int((~tensor.isfinite()).sum())
        if wrong:
            raise ValueError(f"{name} must be finite, {wrong:,} of {tensor.numel():,} are not")


def _finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
