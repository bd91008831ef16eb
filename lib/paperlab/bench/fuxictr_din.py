"""FuxiCTR's side of the bench on sequences: its DIN from its own layers (needs ``.[bench]``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import DIN_Attention, FeatureEmbeddingDict, MLP_Block
from torch import Tensor, nn

from ..data.schema import Schema
from ..data.store import SPLITS, Log
from ..interest.baselines.din import DIN as OurDIN
from .fuxictr import Peer

if TYPE_CHECKING:
    from jaxtyping import Float


class DIN(Peer):
    """DIN as the zoo puts it together, history and target of all sequence fields side by side."""

    def __init__(
        self, schema: Schema, dim: int, lr: float, attention: list[int], widths: list[int]
    ):
        super(Peer, self).__init__(
            feature_map(schema),
            verbose=0,
            model_root="",
            metrics=["AUC"],
            reduce_lr_on_plateau=False,
        )
        self.sequences = [f.name for f in schema.sequences]
        self.targets = [f.shares for f in schema.sequences]
        d = dim * len(self.sequences)
        self.embedding = FeatureEmbeddingDict(self.feature_map, dim)
        self.attention = DIN_Attention(d, attention, hidden_activations="Dice", use_softmax=True)
        self.dnn = MLP_Block(2 * d, hidden_units=widths, output_dim=1)
        self.ready(lr)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Float[Tensor, "B 1"]]:
        columns = self.get_inputs(inputs)
        found = self.embedding(columns)
        target = torch.cat([found[f] for f in self.targets], -1)
        events = torch.cat([found[f] for f in self.sequences], -1)
        mask = columns[self.sequences[0]].long() != 0
        u = self.attention(target, events, mask)
        return {"y_pred": self.output_activation(self.dnn(torch.cat([u, target], -1)))}


def feature_map(schema: Schema) -> FeatureMap:
    """FuxiCTR's word for a schema of categorical fields and sequences that share their tables."""
    made = FeatureMap("bench", "")
    sizes = {f.name: f.size for f in schema.categorical}
    for f in schema.categorical:
        made.features[f.name] = {"type": "categorical", "source": "", "vocab_size": f.size}
    for f in schema.sequences:
        made.features[f.name] = {"type": "sequence", "source": "", "vocab_size": sizes[f.shares]}
        made.features[f.name] |= {"share_embedding": f.shares, "max_len": f.length}
    made.labels = [schema.labels[0]]
    made.num_fields = made.get_num_fields()
    made.set_column_index()
    return made


def save_npz(log: Log, folder: Path) -> None:
    """The parts of a log as its loader reads them: a column a field, ``length`` a sequence.

    float32 for ids too, for the reason that `paperlab.bench.fuxictr.save_npz` gives.
    """
    for part in SPLITS:
        rows = getattr(log, part).take(slice(None))
        short = log.schema.length - rows.history.shape[1]  # T is the longest history of the part
        history = np.pad(rows.history.numpy(), ((0, 0), (short, 0), (0, 0)))
        columns = dict(zip([f.name for f in log.schema.categorical], rows.ids.T, strict=True))
        columns |= {f.name: history[:, :, k] for k, f in enumerate(log.schema.sequences)}
        columns[log.schema.labels[0]] = rows.labels[:, 0]
        np.savez(
            folder / f"{part}.npz", **{n: np.asarray(c, np.float32) for n, c in columns.items()}
        )


@torch.no_grad()
def copy_weights(ours: OurDIN, theirs: DIN) -> None:
    """Make both the same function: Linears in order of place, tables field by field.

    Raises ValueError when the Linears differ.
    """
    mine, peers = ([m for m in x.modules() if isinstance(m, nn.Linear)] for x in (ours, theirs))
    shapes = [[tuple(m.weight.shape) for m in side] for side in (mine, peers)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"not the same model: Linears {shapes[0]} here, {shapes[1]} in FuxiCTR")
    for a, b in zip(mine, peers, strict=True):
        b.load_state_dict(a.state_dict())
    fields = ours.schema.categorical
    parts = ours.embed.table.weight.split([f.size for f in fields])
    for f, part in zip(fields, parts, strict=True):
        theirs.embedding.embedding_layers[f.name].weight.copy_(part)
