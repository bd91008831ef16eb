"""Policies made from a bandit log, valued on the rounds that did not make them: doubly robust."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import checks
from ..rl import bandit
from .scores import Scores

if TYPE_CHECKING:
    from ..data.kinds import BanditLog


def score(
    data: BanditLog,
    contenders: Mapping[str, None],
    *,
    seeds: Sequence[int],
    tell: Callable[[str], None],
    share: float = 0.5,
    blocks: int = 40,
) -> Scores:
    """The value of each policy over the log's mean reward, in ``blocks`` parts of the judged rounds.

    A log whose mean reward is not above 0 is measured in standard deviations of its reward.

    contenders: policies of `paperlab.rl.bandit.evaluate`. seeds: the first divides the log. share: of
        the rounds that make the policies. blocks: parts, 3 or more, whose means are independent.
    The interval is over rounds: the policies, once made, are fixed.
    Raises ValueError for what `evaluate` refuses and for fewer than 5 rounds a block.
    """
    checks.whole(3, blocks=blocks)
    worth = bandit.by_round(data, share=share, seed=seeds[0])
    rounds = len(worth["logging"])
    if rounds < 5 * blocks:
        raise ValueError(f"{data.name}: {blocks} blocks need {5 * blocks} rounds, it has {rounds}")
    unit = float(data.reward.mean()) if data.reward.mean() > 0 else float(data.reward.std())
    rows = [
        {"model": name, "block": k, "value": float(part.mean()) / unit}
        for name in contenders
        for k, part in enumerate(np.array_split(worth[name], blocks))
    ]
    for line in bandit.evaluate(data, share=share, seed=seeds[0]):
        if line["policy"] in contenders and line["estimator"] in ("SNIPS", "DR"):
            span = f"{line['value']:.4f} [{line['low']:.4f}, {line['high']:.4f}]"
            tell(
                f"{line['policy']}, {line['estimator']}: {span}, {line['effective']:.0f} effective rounds"
            )
    note = (
        f"policies from {len(data) - rounds:,} rounds, judged on {rounds:,} by DR; 1 is {unit:.4g}"
    )
    return Scores(rows, "value", {}, "t", [], pair="block", notes=[note])
