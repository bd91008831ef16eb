"""Next-item models: causal layers over a history, cosine scores, sampled softmax at every position.

The frame of HSTU's public experiments (arXiv 2402.17152, released code), the same for its rivals:

    x_t = sqrt(d) E[i_t] + P[t],   layers,   score of item i = cos(x_t, E[i]) / temperature

Layers have the call of `hstu.HSTULayer`. An item that the user has met may be left out of the
ranking, as the released evaluation does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from ..data.batches import Batches
from ..data.in_order import InOrder
from ..nn.transformer import causal_mask
from .hstu import sampled_softmax

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class Sequences:
    """Items of R histories, padded on the left with 0, and what comes after each.

    target: 0 where a position has none, as at padding. times: seconds of the items; asked: of the
    targets. met: items that the ranking leaves out, column 0 too.
    """

    items: Int[Tensor, "R N"]
    target: Int[Tensor, "R N"]
    times: Int[Tensor, "R N"] | None = None
    asked: Int[Tensor, "R N"] | None = None
    met: Bool[Tensor, "R V"] | None = None

    def __len__(self) -> int:
        return len(self.items)

    def take(self, rows: Tensor | slice) -> Sequences:
        """The histories ``rows``."""
        return Sequences(**{k: None if c is None else c[rows] for k, c in vars(self).items()})


@dataclass(frozen=True)
class SequenceParts:
    """Histories in three parts; vocabulary: items and padding, ids 0..vocabulary - 1.

    ordered: whether training reads rows in their order. truth: what a generator knows.
    """

    name: str
    vocabulary: int
    train: Sequences
    valid: Sequences
    test: Sequences
    ordered: bool = False
    truth: object = None

    @property
    def length(self) -> int:
        return self.train.items.shape[1]


def ranks(scores: Float[Tensor, "n V"], target: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Items that score at least as much as the target, itself not counted: 0 is the first place."""
    own = scores.gather(1, target[:, None])
    return (scores >= own).sum(1) - 1


def hit(rank: Int[Tensor, " n"], k: int = 10) -> Float[Tensor, " n"]:
    """HR@k of each target: 1 within the first k, else 0."""
    return (rank < k).float()


def ndcg(rank: Int[Tensor, " n"], k: int = 10) -> Float[Tensor, " n"]:
    """NDCG@k of each target, the only relevant item: 1 / log2(rank + 2) within the first k, else 0."""
    return hit(rank, k) / (rank + 2.0).log2()


class NextItem(L.LightningModule):
    """Predict each position's next item.

    vocabulary: ids of items from 0, which is padding. length: N of the positions.
    layers: of one call with `hstu.HSTULayer`.
    negatives: R >= 1, drawn uniformly for each sequence and step. request_time: whether a query's
        time is its target's (the paper, who know when they are asked) or its own item's.
    select: see `paperlab.loop.Trainable`.
    Raises ValueError for numbers out of range.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        dim: int,
        layers: Iterable[nn.Module],
        *,
        negatives: int = 128,
        temperature: float = 0.05,
        dropout: float = 0.0,
        request_time: bool = True,
        select: tuple[str, Literal["higher", "lower"]] | None = None,
        lr: float = 1e-3,
    ):
        checks.whole(2, vocabulary=vocabulary)
        checks.whole(length=length, dim=dim, negatives=negatives)
        checks.positive(temperature=temperature, lr=lr)
        checks.inside("[0, 1)", dropout=dropout)
        super().__init__()
        self.negatives, self.temperature, self.dropout = negatives, temperature, dropout
        self.request_time, self.select, self.lr = request_time, select, lr
        self.items, self.places = nn.Embedding(vocabulary, dim), nn.Embedding(length, dim)
        nn.init.trunc_normal_(self.items.weight, 0, 0.02)
        nn.init.trunc_normal_(self.places.weight, 0, dim**-0.5)
        self.layers = nn.ModuleList(layers)

    def forward(self, batch: Sequences) -> Float[Tensor, "B T D"]:
        """What each position says of its next item."""
        items = batch.items
        there, at = items > 0, torch.arange(items.shape[1], device=items.device)
        x = math.sqrt(self.items.embedding_dim) * self.items(items) + self.places(at)
        x = F.dropout(x, self.dropout, self.training) * there[:, :, None]
        mask = causal_mask(len(at)).to(items.device) & there[:, None]
        times = None
        if batch.times is not None:
            times = (batch.asked if self.request_time else batch.times, batch.times)
        for layer in self.layers:
            x, _ = layer(x, mask, at, times)
        return x

    def loss(self, batch: Sequences) -> Float[Tensor, ""]:
        """`hstu.sampled_softmax` of all positions that have a target."""
        shape, device = (len(batch), self.negatives), batch.items.device
        drawn = torch.randint(1, self.items.num_embeddings, shape, device=device)
        table = self.items.weight
        return sampled_softmax(self(batch), table, batch.target, drawn, self.temperature)

    @torch.no_grad()
    def ranks(self, part: Sequences, rows: int = 512) -> Int[Tensor, " n"]:
        """Rank of every target of a part among all items but padding and those met, row by row."""
        table, found = F.normalize(self.items.weight, dim=-1), []
        for start in range(0, len(part), rows):
            batch = part.take(slice(start, start + rows))
            row, step = batch.target.nonzero(as_tuple=True)
            target = batch.target[row, step]
            scores = self(batch)[row, step] @ table.T
            scores[:, 0] = -torch.inf
            if batch.met is not None:
                own = scores.gather(1, target[:, None])
                scores = scores.masked_fill(batch.met[row], -torch.inf)
                scores = scores.scatter(1, target[:, None], own)
            found.append(ranks(scores, target))
        return torch.cat(found)

    # training: see `paperlab.loop.Trainable` ---------------------------------------------------

    def training_step(self, batch: Sequences, batch_idx: int) -> Float[Tensor, ""]:
        return self.loss(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr, betas=(0.9, 0.98), weight_decay=0.0)

    def check(self, data: SequenceParts) -> None:
        """Refuse histories of another length and unknown items."""
        if data.length != self.places.num_embeddings:
            raise ValueError(
                f"length must be {data.length}, as of {data.name}, not {self.places.num_embeddings}"
            )
        if data.vocabulary > self.items.num_embeddings:
            raise ValueError(f"vocabulary must be at least {data.vocabulary}, as of {data.name}")
        self.ordered = data.ordered

    def batches(self, part: Sequences, batch_size: int, seed: int) -> Batches | InOrder:
        return InOrder(part, batch_size) if self.ordered else Batches(part, batch_size, seed)

    def count(self, batch: Sequences) -> int:
        return int((batch.target > 0).sum())

    def evaluate(self, data: SequenceParts, part: str = "test") -> dict[str, float]:
        """HR@10 and NDCG@10 over all targets of a part."""
        found = self.ranks(getattr(data, part))
        return {"HR@10": hit(found).mean().item(), "NDCG@10": ndcg(found).mean().item()}

    def count_parameters(self) -> dict[str, int]:
        table = self.items.weight.numel()
        return {"dense": sum(p.numel() for p in self.parameters()) - table, "embedding": table}

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return Sequences(**{k: c if c is None else c.to(device) for k, c in vars(batch).items()})
