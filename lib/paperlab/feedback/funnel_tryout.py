"""What `paperlab.tryout` compares on a reader's funnel: the arms of notebook 301's real section."""

from __future__ import annotations

from collections.abc import Callable

from .resflow_studies import ARMS, OTHERS


def contenders() -> dict[str, Callable | None]:
    """Builders of all arms, and "click score", which needs no training of its own."""
    return ARMS | {"click score": None} | OTHERS
