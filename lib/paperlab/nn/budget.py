"""Equal budgets: widths of equal dense weights, and what a sample costs in FLOPs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..data.store import Batch
from .click import ClickModel

TOLERANCE = 0.05


def width_for(
    build: Callable[[int], nn.Module], target: int, low: int = 1, high: int = 4096
) -> int:
    """The width in [low, high] whose model has the number of dense weights nearest ``target``.

    build: width -> model with ``count_parameters``, whose dense weights must grow with the width.
        It is called under the meta device, so that no memory is filled and no random number is
        drawn. Where widths must be multiples of something, let ``build`` multiply.
    Raises ValueError when the nearest is more than 5 % away from ``target``.
    """

    def dense(width: int) -> int:
        with torch.device("meta"):
            return build(width).count_parameters()["dense"]

    first, last = low, high
    while low < high:  # the first width that reaches the target
        middle = (low + high) // 2
        low, high = (middle + 1, high) if dense(middle) < target else (low, middle)
    counts = {width: dense(width) for width in (max(first, low - 1), low)}
    width = min(counts, key=lambda w: abs(counts[w] - target))
    if abs(counts[width] - target) > TOLERANCE * target:
        raise ValueError(
            f"no width in [{first}, {last}] gives {target:,} dense weights within 5 %: "
            f"the nearest, {width}, gives {counts[width]:,}"
        )
    return width


@torch.no_grad()
def flops(model: ClickModel, batch: Batch) -> float:
    """Floating-point operations a sample of a forward pass on ``batch`` (B rows).

    Of matrix products and convolutions, 2 a multiply-add, as PyTorch counts them: lookups, sums and
    elementwise steps are left out. The model is scored as it is served (eval mode).
    """
    training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model(batch)
    model.train(training)
    return counter.get_total_flops() / len(batch.labels)
