"""Wide & Deep: Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016.

BARS's form: the wide part is LR, without the paper's hand-made crosses of columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ...data.store import Batch
from .deepfm import DeepFM
from .fm import first_order

if TYPE_CHECKING:
    from jaxtyping import Float


class WideAndDeep(DeepFM):
    """LR + MLP: DeepFM without its products of pairs, on the same table and with its options."""

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        w, e = first_order(self.embed(batch))
        return self.bias + w + self.mlp(e.flatten(1)).squeeze(1)
