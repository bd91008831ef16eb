"""What `paperlab.tryout` compares on a reader's funnel: notebook 301's arms and other multi-task models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .baselines.aitm import AITM
from .baselines.mmoe import MMoE
from .baselines.ple import PLE
from .resflow_studies import ARMS, tower

OTHERS = {  # sizes of the same order as the towers'
    "ResFlow, clamped": partial(tower, clamp=True),
    "MMoE": MMoE,
    "PLE": partial(PLE, expert=(64,), widths=(32,)),
    "AITM": partial(AITM, widths=(64, 32)),
}


def contenders() -> dict[str, Callable | None]:
    """Builders of all arms, and "click score", which needs no training of its own."""
    return ARMS | {"click score": None} | OTHERS
