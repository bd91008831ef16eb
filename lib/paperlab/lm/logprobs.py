"""Log-probabilities of tokens under a language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def token_logps(
    logits: Float[Tensor, "N T V"], ids: Int[Tensor, "N T"], mask: Bool[Tensor, "N T"]
) -> Float[Tensor, "N T-1"]:
    """log p(ids[t] | ids[:t]) for t = 1..T-1, in nats; 0 where ``mask`` is false.

    mask: true on completion tokens, the end-of-text token included. Half precisions are raised to
    float32 first; float32 and float64 stay. No gradient reaches the logits of masked tokens.
    """
    if logits.dtype.itemsize < 4:
        logits = logits.float()
    targets = ids[:, 1:].masked_fill(
        ~mask[:, 1:].bool(), -100
    )  # the index that cross_entropy skips
    nll = F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), reduction="none")
    return -nll.view(targets.shape)
