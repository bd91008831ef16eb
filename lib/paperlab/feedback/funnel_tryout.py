"""What `paperlab.tryout` compares on a reader's funnel: the models of notebook 301's real section."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .baselines.linear import LogisticRegression
from .real_multitask import ARMS, PARTS

if TYPE_CHECKING:
    from ..data.schema import Schema


def contenders() -> dict[str, Callable | None]:
    """Builders of a schema and a width; "click score" needs no training of its own."""
    return ARMS | PARTS | {"click score": None, "logistic regression": _logistic_regression}


def _logistic_regression(schema: Schema, width: int | None) -> LogisticRegression:
    return LogisticRegression(schema)
