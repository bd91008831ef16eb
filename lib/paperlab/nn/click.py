"""The base of every model that predicts a click: a thin Lightning shell around a logit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import checks, metrics
from ..data.batches import Batches
from ..data.schema import Schema
from ..data.store import Batch, Log, Split
from .embedding import FeatureEmbedding
from .optim import RowAdam

if TYPE_CHECKING:
    from jaxtyping import Float


CHECKED = 100_000  # training rows of a memory-mapped log whose labels are checked before training


class ClickModel(L.LightningModule):
    """A model from a `Batch` to a logit; subclasses build layers and define ``forward``.

    The embedding ``self.embed`` maps a batch to (B, F, dim); F is ``self.n_fields`` and F * dim is
    ``self.d_in``. The sigmoid is never in the model: the loss is cross-entropy with logits on the
    schema's first label.

    dim: width of a field vector. lr: Adam's learning rate.
    std: standard deviation of the tables' initial normal weights.
    embedding_l2: lambda of ``lambda / 2 * |table|^2`` added to the loss, over the whole table as
        in BARS; it makes the table's gradient dense.
    Raises ValueError for values out of range.
    """

    select = ("auc", "higher")

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        std: float = 0.01,
        lr: float = 1e-3,
        embedding_l2: float = 0.0,
    ):
        checks.positive(lr=lr)
        checks.at_least(0, embedding_l2=embedding_l2)
        super().__init__()
        self.schema, self.std, self.lr, self.embedding_l2 = schema, std, lr, embedding_l2
        self.embed = FeatureEmbedding(schema, dim, sparse=not embedding_l2, std=std)
        self.n_fields = self.embed.n_fields
        self.d_in = self.n_fields * dim

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        """Logits."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Mean cross-entropy of the first label, plus the embedding penalty."""
        loss = F.binary_cross_entropy_with_logits(self(batch).float(), batch.labels[:, 0])
        if self.embedding_l2:
            loss = loss + self.embedding_l2 / 2 * self.embed.table.weight.square().sum()
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        return self.loss(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return RowAdam(self, lr=self.lr)

    def configure_gradient_clipping(
        self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None
    ) -> None:
        """Lightning's clipping by norm or by value, also where a table's gradient is sparse.

        Torch's own takes dense ones only.
        """
        read = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        if not any(p.grad.is_sparse for p in read) or (gradient_clip_val or 0) <= 0:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        for p in (p for p in read if p.grad.is_sparse):
            p.grad = p.grad.coalesce()  # of a row read twice the parts must be added first
        values = [p.grad._values() if p.grad.is_sparse else p.grad for p in read]
        if gradient_clip_algorithm == "value":
            for value in values:
                value.clamp_(-gradient_clip_val, gradient_clip_val)
        else:
            norm = torch.nn.utils.get_total_norm(values)
            for value in values:
                value.mul_((gradient_clip_val / (norm + 1e-6)).clamp(max=1))

    # training: see `paperlab.loop.Trainable` ---------------------------------------------------

    def check(self, log: Log) -> None:
        """Refuse labels that are not 0 or 1, and a validation part that no AUC can judge."""
        rows = CHECKED if log.train.mapped else None
        seen = {"train": log.train.labels[:rows, 0], "valid": log.valid.labels[:, 0]}
        for part, labels in seen.items():
            wrong = labels[(labels != 0) & (labels != 1)]
            if len(wrong):
                raise ValueError(f"{log.name}.{part}: labels must be 0 or 1, got {wrong[0]:g}")
        if len(seen["valid"].unique()) < 2:
            raise ValueError(
                f"{log.name}.valid must hold both classes, for an AUC to choose weights by: it has "
                f"{len(seen['valid']):,} rows of one class"
            )

    def batches(self, split: Split, batch_size: int, seed: int) -> Batches:
        return Batches(split, batch_size, seed)

    def count(self, batch: Batch) -> int:
        return len(batch.labels)

    def evaluate(self, log: Log, part: str = "test") -> dict[str, float]:
        """AUC, logloss and, where the log has users, GAUC on a part of a log.

        Raises FloatingPointError where a logit is NaN.
        """
        split: Split = getattr(log, part)
        logits, labels = self.predict(split), split.labels[:, 0]
        if logits.isnan().any():
            raise FloatingPointError(f"{log.name}.{part}: logits are NaN; training has diverged")
        scores = {"auc": metrics.auc(logits, labels), "logloss": metrics.logloss(logits, labels)}
        users = log.user(part)
        if users is not None:
            scores["gauc"] = metrics.gauc(logits, labels, users)
        return scores

    @torch.no_grad()
    def predict(self, split: Split, batch_size: int = 8192) -> Float[Tensor, " n"]:
        """Logits in float32 on the CPU, in eval mode, in the order of the split's rows.

        Rows with histories are scored by length, in smaller batches the longer they are, so that
        padding and memory stay bounded: at most 16 events for each of ``batch_size`` rows.
        """
        training, device = self.training, next(self.parameters()).device
        self.eval()
        scores = torch.empty(len(split))
        if split.spans is None:
            batches = [slice(i, i + batch_size) for i in range(0, len(split), batch_size)]
        else:
            order = split.lengths.argsort(stable=True)
            batches = order.split(max(1, batch_size * 16 // max(16, split.length)))
        for rows in batches:
            scores[rows] = self(split.take(rows).to(device)).float().cpu()
        self.train(training)
        return scores

    def count_parameters(self) -> dict[str, int]:
        """Trainable weights, dense and embedding apart (embedding: tables and numeric vectors)."""
        total = sum(p.numel() for p in self.parameters() if p.requires_grad)
        embedding = sum(
            p.numel()
            for m in self.modules()
            if isinstance(m, FeatureEmbedding)
            for p in m.parameters()
        )
        return {"dense": total - embedding, "embedding": embedding}
