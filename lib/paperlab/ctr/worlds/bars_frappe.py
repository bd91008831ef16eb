"""Frappe as BARS's protocol describes it, from the set at hand: negatives redrawn, rows split 7:2:1.

BARS's own files are not at hand. In them a negative's app is any app; in ours it is one that the user
never used, which is easier to rank.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from ...data.store import Log

MOVED = 8  # one training row of so many goes to the validation part: 8:1:1 becomes 7:2:1


def bars_frappe(log: Log, seed: int = 0) -> Log:
    """Frappe with negatives' apps drawn evenly from all apps, an eighth of training rows validating.

    log: `paperlab.data.load("frappe")`, or any log with a field ``item`` that is split 8:1:1.
    seed: of the apps drawn and of the rows moved. Labels, users and the test rows' order stay.
    Raises ValueError for a log without a field ``item``.
    """
    names = [f.name for f in log.schema.categorical]
    if "item" not in names:
        raise ValueError(f"log must have a field item, got {', '.join(names)}")
    draw, column, parts = np.random.default_rng(seed), names.index("item"), {}
    apps = np.unique(log.train.ids[log.train.labels[:, 0] == 1, column].numpy())
    for part in ("train", "valid", "test"):
        split = getattr(log, part)
        ids, negative = split.ids.clone(), split.labels[:, 0] == 0
        ids[negative, column] = torch.from_numpy(draw.choice(apps, int(negative.sum()))).to(
            ids.dtype
        )
        parts[part] = replace(split, ids=ids)
    order = torch.from_numpy(draw.permutation(len(parts["train"])))
    moved, left = (parts["train"].rows(i) for i in order.tensor_split([len(order) // MOVED]))
    columns = [k for k in ("ids", "values", "users") if getattr(left, k) is not None]
    valid = {k: torch.cat([getattr(parts["valid"], k), getattr(moved, k)]) for k in columns}
    return replace(log, train=left, valid=replace(parts["valid"], **valid), test=parts["test"])
