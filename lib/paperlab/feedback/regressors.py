"""Predictors of an amount, such as watch time, from one encoder: the rivals of generative regression.

The absolute error is least at the conditional *median*, so each of them predicts a median:

- `L1Regressor`: one number, trained on the absolute error itself;
- `QuantileBins`: a softmax over bins with equal shares of the training rows, and the median of the
  distribution that it gives;
- `OrdinalBins`: a logit P(y > t) for each edge t between those bins, as in CREAD (arXiv
  2401.07521), whose own edges and whose losses besides the cross-entropy are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import checks, metrics
from ..data.schema import Schema
from ..data.store import Batch, Log, Split
from ..nn.click import ClickModel
from ..nn.mlp import MLP

if TYPE_CHECKING:
    from jaxtyping import Float


class AmountModel(ClickModel):
    """A model from a `Batch` to an amount >= 0, chosen by its validation MAE; subclasses add a head.

    The encoder: all field vectors side by side -> Linear 64, ReLU -> Linear ``memory``, ReLU. The
    released code of generative regression averages user and item fields first, and has no other
    activation.

    dim: width of a field vector. memory: width of the encoder's output. dropout: after each ReLU.
    lr, std: see `ClickModel`. Raises ValueError for values out of range.
    """

    select = ("mae", "lower")

    def __init__(
        self,
        schema: Schema,
        *,
        dim: int = 8,
        memory: int = 32,
        dropout: float = 0.1,
        std: float = 0.1,
        lr: float = 3e-3,
    ):
        checks.whole(dim=dim, memory=memory)
        super().__init__(schema, dim, std=std, lr=lr)
        self.encoder = MLP(self.d_in, (64, memory), dropout=dropout)

    def encode(self, batch: Batch) -> Float[Tensor, "B memory"]:
        return self.encoder(self.embed(batch).flatten(1))

    def check(self, log: Log) -> None:
        """Refuse amounts below 0."""
        for part in ("train", "valid"):
            least = getattr(log, part).labels[:, 0].min()
            if least < 0:
                raise ValueError(f"{log.name}.{part}: amounts must be at least 0, got {least:g}")

    def evaluate(self, log: Log, part: str = "test") -> dict[str, float]:
        """Mean absolute error, in the label's unit, and XAUC.

        Raises FloatingPointError where a prediction is NaN.
        """
        split = getattr(log, part)
        predicted, amounts = self.predict(split), split.labels[:, 0]
        if predicted.isnan().any():
            raise FloatingPointError(f"{log.name}.{part}: predictions are NaN")
        mae = (predicted - amounts).abs().mean().item()
        return {"mae": mae, "xauc": float(metrics.xauc(predicted, amounts))}


class L1Regressor(AmountModel):
    """median + scale * MLP(memory), floored at 0, with the absolute error as its loss.

    amounts: of the training rows; their median and mean absolute deviation set the start.
    width: of the head's two hidden layers. options: see `AmountModel`.
    """

    def __init__(self, schema: Schema, amounts: Float[Tensor, " n"], *, width: int = 64, **options):
        super().__init__(schema, **options)
        self.head = MLP(self.encoder.d_out, (width, width), out=1)
        self.median = amounts.median().item()
        self.scale = max((amounts - self.median).abs().mean().item(), 1e-6)

    def _score(self, batch: Batch) -> Float[Tensor, " B"]:
        return self.median + self.scale * self.head(self.encode(batch))[:, 0]

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        return self._score(batch).clamp(min=0)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Mean absolute error, over the scale; without the floor, whose gradient is 0."""
        return (self._score(batch) - batch.labels[:, 0]).abs().mean() / self.scale


def quantile_edges(amounts: Float[Tensor, " n"], bins: int) -> Float[Tensor, " K+1"]:
    """0, the inner edges of ``bins`` >= 2 equal shares of the amounts, and their maximum.

    Edges that coincide become one, so that there may be fewer bins. Bin k holds (edge k, edge k + 1],
    the first also 0. Raises ValueError where nothing is left to tell apart.
    """
    checks.whole(2, bins=bins)
    inner = amounts.double().quantile(torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:])
    edges = torch.cat([torch.zeros(1), inner.float()]).unique()
    if len(edges) < 3:
        raise ValueError("amounts must hold at least two values above 0")
    return edges


def median_of_bins(
    at_most: Float[Tensor, "B K"], edges: Float[Tensor, " K+1"]
) -> Float[Tensor, " B"]:
    """The median of a distribution that is uniform within bins.

    at_most: P(y <= edge k) for k = 1..K, not falling, the last 1.
    """
    after = (at_most < 0.5).sum(1).clamp(max=at_most.shape[1] - 1)[:, None]
    before = torch.cat([torch.zeros_like(at_most[:, :1]), at_most], 1).gather(1, after)[:, 0]
    mass = at_most.gather(1, after)[:, 0] - before
    share = ((0.5 - before) / mass.clamp(min=1e-9)).clamp(0, 1)
    low, high = edges[after[:, 0]], edges[after[:, 0] + 1]
    return low + share * (high - low)


class _Bins(AmountModel):
    """What both models of bins share: edges, head and median. outputs: of the head, less than bins."""

    def __init__(
        self, schema: Schema, edges: Float[Tensor, " K+1"], fewer: int, width: int, **options
    ):
        super().__init__(schema, **options)
        self.register_buffer("edges", edges, persistent=False)
        self.head = MLP(self.encoder.d_out, (width, width), out=len(edges) - 1 - fewer)

    def at_most(self, batch: Batch) -> Float[Tensor, "B K"]:
        """P(y <= edge k) for the edges after 0."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        return median_of_bins(self.at_most(batch), self.edges)

    @torch.no_grad()
    def probability(self, split: Split, amount: float) -> Float[Tensor, " n"]:
        """P(y <= amount) of each row, uniform within bins; 0 <= amount < the last edge."""
        self.eval()
        at_most = self.at_most(split.take(slice(0, len(split))))
        k = int(torch.searchsorted(self.edges, amount, right=True)) - 1
        low = at_most[:, k - 1] if k else torch.zeros(len(split))
        share = (amount - self.edges[k]) / (self.edges[k + 1] - self.edges[k])
        return low + share * (at_most[:, k] - low)


class QuantileBins(_Bins):
    """A softmax over bins and the median of its distribution.

    edges: see `quantile_edges`. width: of the head's two hidden layers. options: see `AmountModel`.
    """

    def __init__(self, schema: Schema, edges: Float[Tensor, " K+1"], *, width: int = 64, **options):
        super().__init__(schema, edges, 0, width, **options)

    def at_most(self, batch: Batch) -> Float[Tensor, "B K"]:
        below = self.head(self.encode(batch)).softmax(1).cumsum(1)
        return torch.cat([below[:, :-1], torch.ones_like(below[:, :1])], 1)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Mean cross-entropy of the row's bin."""
        bins = torch.bucketize(batch.labels[:, 0].contiguous(), self.edges[1:-1])
        return F.cross_entropy(self.head(self.encode(batch)), bins)


class OrdinalBins(_Bins):
    """A logit P(y > t) for each inner edge t, and the median of the distribution they give.

    Where the probabilities rise with t, P(y <= t) takes the largest so far.
    edges: see `quantile_edges`. width: of the head's two hidden layers. options: see `AmountModel`.
    """

    def __init__(self, schema: Schema, edges: Float[Tensor, " K+1"], *, width: int = 64, **options):
        super().__init__(schema, edges, 1, width, **options)

    def at_most(self, batch: Batch) -> Float[Tensor, "B K"]:
        below = (-self.head(self.encode(batch))).sigmoid().cummax(1).values
        return torch.cat([below, torch.ones_like(below[:, :1])], 1)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Mean over rows of the cross-entropies of all edges, summed."""
        above = (batch.labels > self.edges[1:-1]).float()
        logits = self.head(self.encode(batch))
        return F.binary_cross_entropy_with_logits(logits, above, reduction="none").sum(1).mean()
