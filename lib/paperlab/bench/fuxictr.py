"""FuxiCTR's side of the bench: its layers, its loader, its training loop (needs ``.[bench]``).

The wheel has layers and the base model, but not the models of its zoo, so the models are put
together here from its own layers and PyTorch's. Its loop and optimiser run as they are: only the evaluation and
the checkpoint at the end of an epoch are left out, since training alone is timed. Of its loaders we
take the one that holds all rows in memory; the others stream them from npz blocks or through Ray.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders.npz_dataloader import NpzDataLoader
from fuxictr.pytorch.layers import (
    CrossNetV2,
    FactorizationMachine,
    FeatureEmbedding,
    LogisticRegression,
    MLP_Block,
)
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from .. import metrics
from ..data.schema import Schema
from ..data.store import SPLITS, Log, Split
from ..nn.click import ClickModel
from ..nn.embedding import FeatureEmbedding as FusedEmbedding
from .clock import Clock

if TYPE_CHECKING:
    from jaxtyping import Float


class Peer(BaseModel):
    """What the models share: the arguments are those of ours, `forward` takes a dict of columns (B,).

    dim: None for a model without field vectors.
    """

    def __init__(self, schema: Schema, dim: int | None):
        super().__init__(
            feature_map(schema),
            verbose=0,
            model_root="",
            metrics=["AUC"],
            reduce_lr_on_plateau=False,
        )
        if dim is not None:
            self.embedding = FeatureEmbedding(self.feature_map, dim)
            self.width = self.feature_map.num_fields * dim

    def ready(self, lr: float) -> None:
        self.compile("adam", "binary_crossentropy", lr)
        self.reset_parameters()

    def answer(self, logit: Float[Tensor, "B 1"]) -> dict[str, Float[Tensor, "B 1"]]:
        return {"y_pred": self.output_activation(logit)}

    def train_step(self, batch_data: dict[str, Tensor]) -> Float[Tensor, ""]:
        """Its own step; then the clock ticks."""
        loss = super().train_step(batch_data)
        self.clock.tick(len(batch_data[self.feature_map.labels[0]]))
        return loss

    def eval_step(self) -> None:
        """Not during training: the bench scores the test part itself, untimed."""

    def load_weights(self, checkpoint: str) -> None:
        """Nothing to load: without ``eval_step`` there is no checkpoint."""


class LR(Peer):
    def __init__(self, schema: Schema, lr: float):
        super().__init__(schema, None)
        self.lr = LogisticRegression(self.feature_map)
        self.ready(lr)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Float[Tensor, "B 1"]]:
        return self.answer(self.lr(self.get_inputs(inputs)))


class FM(Peer):
    def __init__(self, schema: Schema, lr: float, dim: int):
        super().__init__(schema, dim)
        self.fm = FactorizationMachine(self.feature_map)
        self.ready(lr)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Float[Tensor, "B 1"]]:
        columns = self.get_inputs(inputs)
        return self.answer(self.fm(columns, self.embedding(columns)))


class DeepFM(Peer):
    """FM + DNN on the shared embeddings."""

    def __init__(self, schema: Schema, lr: float, dim: int, widths: list[int]):
        super().__init__(schema, dim)
        self.fm = FactorizationMachine(self.feature_map)
        self.dnn = MLP_Block(self.width, hidden_units=widths, output_dim=1)
        self.ready(lr)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Float[Tensor, "B 1"]]:
        columns = self.get_inputs(inputs)
        x = self.embedding(columns)
        return self.answer(self.fm(columns, x) + self.dnn(x.flatten(1)))


class DCNv2(Peer):
    """Parallel: Linear on [x_L; dnn]."""

    def __init__(self, schema: Schema, lr: float, dim: int, crosses: int, widths: list[int]):
        super().__init__(schema, dim)
        self.cross = CrossNetV2(self.width, crosses)
        self.dnn = MLP_Block(self.width, hidden_units=widths)
        self.out = nn.Linear(self.width + widths[-1], 1)
        self.ready(lr)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Float[Tensor, "B 1"]]:
        x = self.embedding(self.get_inputs(inputs), flatten_emb=True)
        return self.answer(self.out(torch.cat([self.cross(x), self.dnn(x)], dim=1)))


class MaskNet(Peer):
    """Serial: masked blocks in a chain, a LayerNorm a field before the first."""

    def __init__(self, schema: Schema, lr: float, dim: int, widths: list[int], ratio: float):
        super().__init__(schema, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in schema.fields)
        ins = [self.width, *widths[:-1]]
        self.masks = nn.ModuleList(
            MLP_Block(self.width, hidden_units=[int(ratio * n)], output_dim=n) for n in ins
        )
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.Linear(n, m, bias=False), nn.LayerNorm(m), nn.ReLU())
            for n, m in zip(ins, widths, strict=True)
        )
        self.out = nn.Linear(widths[-1], 1)
        self.ready(lr)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Float[Tensor, "B 1"]]:
        fields = self.embedding(self.get_inputs(inputs))
        e = fields.flatten(1)
        v = torch.cat([n(x) for n, x in zip(self.norms, fields.unbind(1), strict=True)], dim=1)
        for mask, hidden in zip(self.masks, self.hidden, strict=True):
            v = hidden(mask(e) * v)
        return self.answer(self.out(v))


class FinalMLP(Peer):
    """Two gated streams and a bilinear form of ``heads`` chunks, as two products, as in its zoo."""

    def __init__(
        self,
        schema: Schema,
        lr: float,
        dim: int,
        widths: list[list[int]],
        heads: int,
        contexts: list[list[str]],
        gate_hidden: int,
    ):
        super().__init__(schema, dim)
        self.streams = nn.ModuleList(
            MLP_Block(self.width, hidden_units=w, batch_norm=True) for w in widths
        )
        d1, d2 = (w[-1] for w in widths)
        self.w1, self.w2 = nn.Linear(d1, 1), nn.Linear(d2, 1)
        self.W = nn.Parameter(torch.empty(heads, d1 // heads, d2 // heads))
        self.gate_embeddings = nn.ModuleList(
            FeatureEmbedding(self.feature_map, dim, required_feature_columns=names)
            for names in contexts
        )
        self.gates = nn.ModuleList(
            MLP_Block(len(names) * dim, hidden_units=[gate_hidden], output_dim=self.width)
            for names in contexts
        )
        self.ready(lr)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Float[Tensor, "B 1"]]:
        columns = self.get_inputs(inputs)
        e = self.embedding(columns, flatten_emb=True)
        o1, o2 = (
            stream(2 * gate(embed(columns, flatten_emb=True)).sigmoid() * e)
            for stream, gate, embed in zip(
                self.streams, self.gates, self.gate_embeddings, strict=True
            )
        )
        heads, h1, h2 = self.W.shape
        chunks = o1.view(-1, heads, 1, h1) @ self.W @ o2.view(-1, heads, h2, 1)
        return self.answer(self.w1(o1) + self.w2(o2) + chunks.sum((1, 2)))


def feature_map(schema: Schema) -> FeatureMap:
    """FuxiCTR's word for a schema; sequences are refused with a ValueError."""
    if schema.sequences:
        raise ValueError("the bench compares categorical and numeric fields, not sequences")
    made = FeatureMap("bench", "")
    for f in schema.fields:
        made.features[f.name] = {"type": f.kind, "source": "", "vocab_size": f.size}
    made.labels = [schema.labels[0]]
    made.num_fields = made.get_num_fields()
    made.set_column_index()
    return made


def save_npz(log: Log, folder: Path) -> None:
    """The parts of a log as its loader reads them: one array a column.

    float32 for ids too (exact below 2^24): the loader stacks all columns into one matrix, which
    mixed types would turn into float64, twice the bytes to collate.
    """
    for part in SPLITS:
        split: Split = getattr(log, part)
        names = [f.name for f in log.schema.fields] + [log.schema.labels[0]]
        columns = np.hstack([split.ids.numpy(), split.values.numpy()]).astype(np.float32)
        np.savez(folder / f"{part}.npz", **dict(zip(names, columns.T, strict=False)))


def loader(features: FeatureMap, folder: Path, part: str, batch_size: int) -> NpzDataLoader:
    """Its in-memory loader over a part that ``save_npz`` wrote; only ``train`` is shuffled."""
    return NpzDataLoader(
        features,
        str(folder / f"{part}.npz"),
        batch_size=batch_size,
        shuffle=part == "train",
        num_workers=0,
    )


@torch.no_grad()
def copy_weights(ours: ClickModel, theirs: Peer) -> None:
    """Make both the same function: Linears in order of shape and place, tables field by field.

    LR, FM and DeepFM here hold the first-order weights in column 0 of their one table, and there in
    tables of width 1. Biases outside Linears and norms start alike on both sides and are left alone.
    Raises ValueError when the Linears or the tables differ.
    """
    mine, peers = _linears(ours), _linears(theirs)
    shapes = [[tuple(m.weight.shape) for m in side] for side in (mine, peers)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"not the same model: Linears {shapes[0]} here, {shapes[1]} in FuxiCTR")
    for a, b in zip(mine, peers, strict=True):
        b.load_state_dict(a.state_dict())
    if isinstance(theirs, FinalMLP):
        theirs.W.copy_(ours.fusion.W)
    embeds = [m for m in ours.modules() if isinstance(m, FusedEmbedding)]
    tables = [m for m in theirs.modules() if isinstance(m, FeatureEmbedding)]
    groups = [sorted(tables, key=_width)] if len(embeds) == 1 else [[t] for t in tables]
    widths = [sum(map(_width, group)) for group in groups]
    if widths != [e.dim for e in embeds]:
        raise ValueError(
            f"not the same model: tables of {[e.dim for e in embeds]} columns here, "
            f"of {[list(map(_width, g)) for g in groups]} in FuxiCTR"
        )
    for embed, group in zip(embeds, groups, strict=True):
        _copy_tables(ours.schema, embed, group)


def _copy_tables(schema: Schema, embed: FusedEmbedding, tables: list[FeatureEmbedding]) -> None:
    """The columns of one embedding here to one or several tables there."""
    known = tables[0].embedding_layer.embedding_layers
    fields = [f for f in (*schema.categorical, *schema.numeric) if f.name in known]
    parts = embed.table.weight.split([f.size for f in fields if f.kind == "categorical"])
    if embed.numeric is not None:
        parts += embed.numeric.split(1)
    widths = [_width(t) for t in tables]
    for f, part in zip(fields, parts, strict=True):
        for table, columns in zip(tables, part.split(widths, dim=1), strict=True):
            weight = table.embedding_layer.embedding_layers[f.name].weight
            weight.copy_(columns.t() if f.kind == "numeric" else columns)


def train(theirs: Peer, log: Log, folder: Path, batch_size: int) -> dict[str, float]:
    """One epoch of its own ``fit`` over ``folder/train.npz``.

    Returns processor seconds of training, rows trained on in them, AUC on the test part.
    """
    theirs.clock = Clock()
    theirs.fit(loader(theirs.feature_map, folder, "train", batch_size), epochs=1)
    test = loader(theirs.feature_map, folder, "test", batch_size)
    scores = torch.from_numpy(theirs.predict(test))
    return theirs.clock.run() | {"auc": metrics.auc(scores, log.test.labels[:, 0])}


def _linears(model: nn.Module) -> list[nn.Linear]:
    """Those of a network, by shape; FuxiCTR's numeric fields are Linears of one input."""
    found = (m for m in model.modules() if isinstance(m, nn.Linear) and m.in_features > 1)
    return sorted(found, key=lambda m: m.weight.shape)


def _width(embedding: FeatureEmbedding) -> int:
    first = next(iter(embedding.embedding_layer.embedding_layers.values()))
    return first.out_features if isinstance(first, nn.Linear) else first.embedding_dim
