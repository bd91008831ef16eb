"""What all models of a history share: events, a target, and one head on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.schema import Schema
from ..data.store import Batch
from ..nn.click import ClickModel
from ..nn.mlp import MLP

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


class InterestModel(ClickModel):
    """logit = MLP [interest; other fields]; a subclass says what ``interest`` makes of a history.

    An event is its fields' vectors side by side (item, category, ...), D = ``d_event`` wide, and so
    is the target, from the same tables. The head is the same for all models, so that two of them
    differ only in how a history becomes a vector.

    dim: width of a field's vector. std: of the initial normal weights of tables, also of positions.
    options: see `ClickModel`.
    Raises ValueError when the schema has no sequence, or one that shares no categorical field.
    """

    product = False  # whether the head sees events multiplied by the target

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        std: float = 0.05,
        **options,
    ):
        if not schema.sequences or any(f.shares is None for f in schema.sequences):
            raise ValueError("schema: needs sequences, each with shares=<a categorical field>")
        super().__init__(schema, dim, std=std, **options)
        self.d_event = self.embed.d_events

    def head_on(self, d_interest: int, widths: Sequence[int], dropout: float) -> MLP:
        """The head of every model: (B, d_interest + others) to (B, 1)."""
        return MLP(d_interest + self.embed.d_others, widths, out=1, dropout=dropout)

    def encode(
        self,
        events: Float[Tensor, "B T D"],
        target: Float[Tensor, "B D"],
        mask: Bool[Tensor, "B T"],
        elapsed: Float[Tensor, "B T"] | None,
    ) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B E"]]:
        """Events and target with what the model adds to them for time; here nothing."""
        return events, target

    def interest(
        self,
        events: Float[Tensor, "B T D"],
        target: Float[Tensor, "B D"],
        mask: Bool[Tensor, "B T"],
        elapsed: Float[Tensor, "B T"] | None,
    ) -> Float[Tensor, "B I"]:
        """What the head reads of history and target."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        events, target, mask, others = self.embed.sequence(batch)
        u = self.interest(events, target, mask, batch.elapsed)
        return self.head(torch.cat([u, others], 1)).squeeze(1)
