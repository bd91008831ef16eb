"""Open Bandit Dataset: clicks on items that a random or a Bernoulli Thompson sampling policy showed."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
import polars.selectors as cs

from ..catalogue import Entry
from ..formats import parquet
from ..kinds import BanditLog


def load(
    entry: Entry,
    *,
    policy: Literal["random", "bts"] = "random",
    campaign: Literal["men", "women"] = "men",
) -> BanditLog:
    """The log of a policy in a campaign, in order of time.

    context: user features, one-hot in the order of their sorted values, then affinities to each item.
    item_features: the item's number, then its categories, one-hot.
    """
    names = f"{policy}_{campaign}.parquet", f"item_context_{campaign}.parquet"
    log, items = parquet.local(entry, *names)
    log, items = log.sort("timestamp", "row"), items.sort("item_id")
    features = log.select(cs.starts_with("user_feature"))
    context = np.hstack(
        [_one_hot(features), log.select(cs.starts_with("user-item_affinity")).to_numpy()]
    )
    return BanditLog(
        f"{entry.name}-{policy}-{campaign}",
        context.astype(np.float32),
        log["item_id"].to_numpy(),
        log["click"].cast(pl.Float64).to_numpy(),
        log["propensity_score"].to_numpy(),
        items.height,
        log["position"].to_numpy() - 1,
        np.hstack(
            [items.select("item_feature_0").to_numpy(), _one_hot(items.select(cs.string()))]
        ).astype(np.float32),
    )


def _one_hot(frame: pl.DataFrame) -> np.ndarray:
    values = [(c, sorted(c.unique().to_list())) for c in frame.cast(pl.String).fill_null("")]
    return np.stack([(c == v).to_numpy() for c, known in values for v in known], 1)
