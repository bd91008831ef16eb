"""RecBole 1.2.1's DIN and SASRec on our rows (``make bench`` installs it without its old pins).

RecBole reads its own files and drives its own trainer. Here its models and losses run as they are,
with torch's Adam, on batches that ours gathers. DIN gets our attention's widths; the rest is at the
sizes of the bench. SASRec ranks the target against a random item, so there is no AUC to compare.
Importing RecBole's sequential models turns torch's anomaly detection on for the whole process, which
checks every gradient for NaN; here it is off again, so that no peer pays for it.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from recbole.data.interaction import Interaction
from recbole.model.layers import SequenceAttLayer
from recbole.model.sequential_recommender.din import DIN
from recbole.model.sequential_recommender.sasrec import SASRec
from recbole.utils import FeatureType
from torch import Tensor

from .. import metrics
from ..data.batches import Batches
from ..data.store import Batch, Log
from .clock import Clock

torch.autograd.set_detect_anomaly(False)  # a module of RecBole's turns it on when imported

NAMES = {"USER_ID_FIELD": "user", "ITEM_ID_FIELD": "item", "LIST_SUFFIX": "_list"}
NAMES |= {"ITEM_LIST_LENGTH_FIELD": "length", "NEG_PREFIX": "neg_", "LABEL_FIELD": "label"}


def build(name: str, log: Log, dim: int, widths: list[int], attention: list[int]) -> DIN | SASRec:
    """A model over items and their categories, of the same sizes as ours.

    name: ``DIN`` or ``SASRec``. dim: of a field's vector; an event is item and category side by side.
    """
    items, categories = (f.size for f in log.schema.categorical)
    events = log.train.take(slice(None)).history.flatten(0, 1).long()
    category = torch.zeros(items, dtype=torch.long)
    category[events[:, 0]] = events[:, 1]
    features = {
        "user": Interaction({"user": torch.arange(2)}),
        "item": Interaction({"item": torch.arange(items), "category": category}),
    }
    data = SimpleNamespace(
        num={"user": 2, "item": items, "category": categories}.__getitem__,
        field2type=dict.fromkeys(("user", "item", "category"), FeatureType.TOKEN),
        config={"numerical_features": []},
        get_user_feature=lambda: features["user"],
        get_item_feature=lambda: features["item"],
    )
    shape = {"MAX_ITEM_LIST_LENGTH": log.schema.length, "device": "cpu", "numerical_features": []}
    if name == "DIN":
        size = {"embedding_size": dim, "mlp_hidden_size": widths, "dropout_prob": 0.0}
        model = DIN(NAMES | shape | size | {"pooling_mode": "mean"}, data)
        places = torch.arange(log.schema.length).view(1, -1)
        model.attention = SequenceAttLayer(
            places, [8 * dim, *attention], "Sigmoid", softmax_stag=False, return_seq_weight=False
        )
        return model
    return sasrec(items, log.schema.length, 2 * dim, 2 * dim, layers=2, heads=2)


def sasrec(items: int, length: int, dim: int, feed: int, layers: int, heads: int) -> SASRec:
    """SASRec without dropout over ``items`` ids; feed: units of a layer's feed-forward part."""
    size = {"n_layers": layers, "n_heads": heads, "hidden_size": dim, "inner_size": feed}
    size |= {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "hidden_act": "gelu"}
    size |= {"layer_norm_eps": 1e-12, "initializer_range": 0.02, "loss_type": "BPR"}
    shape = {"MAX_ITEM_LIST_LENGTH": length, "device": "cpu"}
    return SASRec(NAMES | shape | size, SimpleNamespace(num={"user": 2, "item": items}.__getitem__))


def rows(batch: Batch, items: int) -> dict[str, Tensor]:
    """A batch as RecBole names its columns, with a random item to rank against."""
    history, target = batch.history[..., 0].long(), batch.ids[:, 0].long()
    return {
        "user": torch.ones_like(target),
        "item": target,
        "neg_item": torch.randint(1, items, target.shape),
        "item_list": history,
        "length": (history > 0).sum(1),
        "label": batch.labels[:, 0],
    }


def train(
    model: DIN | SASRec, log: Log, lr: float, batch_size: int, seed: int
) -> dict[str, float | None]:
    """One epoch: processor seconds, rows trained on in them, test AUC of DIN."""
    items, clock = log.schema.categorical[0].size, Clock()
    adam = torch.optim.Adam(model.parameters(), lr)
    model.train()
    for batch in Batches(log.train, batch_size, seed):
        adam.zero_grad()
        model.calculate_loss(rows(batch, items)).backward()
        adam.step()
        clock.tick(len(batch.labels))
    if isinstance(model, SASRec):
        return clock.run() | {"auc": None}
    model.eval()
    with torch.no_grad():
        scores = model.predict(rows(log.test.take(slice(None)), items))
    return clock.run() | {"auc": metrics.auc(scores, log.test.labels[:, 0])}
