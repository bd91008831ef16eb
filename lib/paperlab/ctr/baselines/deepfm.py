"""DeepFM: Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR", IJCAI 2017."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ...data.schema import Schema
from ...data.store import Batch
from ...nn.mlp import MLP
from .fm import FM, first_order, pairwise

if TYPE_CHECKING:
    from jaxtyping import Float


class DeepFM(FM):
    """FM + MLP on the same field vectors. widths, dropout, batch_norm: see `MLP`; options: `ClickModel`."""

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        widths: Sequence[int] = (400, 400, 400),
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options,
    ):
        super().__init__(schema, dim, **options)
        self.mlp = MLP(self.d_in, widths, out=1, dropout=dropout, batch_norm=batch_norm)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        w, e = first_order(self.embed(batch))
        return self.bias + w + pairwise(e) + self.mlp(e.flatten(1)).squeeze(1)
