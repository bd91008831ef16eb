"""DNN: a multilayer perceptron on the concatenated fields (BARS lists it as YoutubeDNN)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ...data.schema import Schema
from ...data.store import Batch
from ...nn.click import ClickModel
from ...nn.mlp import MLP

if TYPE_CHECKING:
    from jaxtyping import Float


class DNN(ClickModel):
    """MLP(e), e the F field vectors end to end. See `MLP` and, for options, `ClickModel`."""

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
        return self.mlp(self.embed(batch).flatten(1)).squeeze(1)
