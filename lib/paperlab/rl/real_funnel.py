"""Click, then follow: the first two stages of RLIV-UA's funnel in KuaiRand's explicit-feedback core.

What this core allows is supervised learning of the funnel. It has 304 follows in 41,828 rows,
authors for 1,115 rows only (the features come from another release), and 6 user-author pairs that
meet twice, so lifelong values of pairs cannot be learned from it. Its rows were selected: they have
a like or a dislike. Gao et al., "KuaiRand", CIKM 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from .. import intervals, loop
from .rliv_ua import RLIVUA, TRANSFERS

if TYPE_CHECKING:
    import polars as pl
    from jaxtyping import Float, Int
    from torch import Tensor

EVENTS = ("is_click", "is_follow", "is_profile_enter")
COUNTS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")


class RealFunnel(NamedTuple):
    """Exposures in the order of time.

    obs: standardised features, see `load`; names: of the features. user: id of the user.
    """

    obs: Float[Tensor, "n d"]
    click: Float[Tensor, " n"]
    follow: Float[Tensor, " n"]
    user: Int[np.ndarray, " n"]
    names: tuple[str, ...]

    def columns(self) -> dict[str, Tensor]:
        """The funnel as agents read it: one action, no gifts, and every pair ends after its row."""
        zero = torch.zeros(len(self.click))
        data = {"obs": self.obs, "next_obs": self.obs, "action": zero.long(), "done": zero + 1}
        return data | {"click": self.click, "follow": self.follow, "gift": zero}

    def folds(self, seed: int) -> Int[np.ndarray, " n"]:
        """A number 0..4 for each row; all rows of a user have the same."""
        users, row = np.unique(self.user, return_inverse=True)
        return (np.random.default_rng(seed).permutation(len(users)) % 5)[row]


def load() -> RealFunnel:
    """Read the core. Features: the user's account; what the user, and what users of this video, did
    strictly earlier in the log (rows, clicks, follows, visits to a profile); the video's length.

    Counts enter as log(1 + n). Nothing that happens during the exposure (watch time, likes) is a
    feature. The account is a snapshot of an unknown day. Raises FileNotFoundError that says which
    file to get.
    """
    import polars as pl

    from ..data.sets import kuairand

    events, users, _ = kuairand.tables("explicit")
    events = events.sort("time_ms", "user_id", "video_id").collect()
    account = [pl.col(name).clip(0).log1p() for name in COUNTS]
    flags = [(pl.col(f"is_{name}") == 1).cast(float) for name in ("video_author", "live_streamer")]
    full = (pl.col("user_active_degree") == "full_active").cast(float)
    account = users.select("user_id", *account, *flags, full).collect()
    rows = events.join(account, on="user_id", how="left", maintain_order="left")
    for key in ("user_id", "video_id"):
        rows = rows.join(earlier(events, key), on=[key, "time_ms"], maintain_order="left")
    length = (pl.col("duration_ms") / 1000).clip(0).log1p().alias("seconds")
    counted = pl.col("^earlier_.*$").log1p()
    table = rows.select(*account.columns[1:], length, counted).fill_null(0)
    obs = torch.from_numpy(table.to_numpy().copy()).float()
    obs = (obs - obs.mean(0)) / obs.std(0).clamp_min(1e-6)
    labels = (torch.from_numpy(rows[name].to_numpy().copy()).float() for name in EVENTS[:2])
    return RealFunnel(obs, *labels, rows["user_id"].to_numpy(), tuple(table.columns))


def earlier(events: pl.DataFrame, key: str) -> pl.DataFrame:
    """For each value of ``key`` and time_ms in ``events``: rows and events before that time.

    Rows of one moment do not count each other. Columns: key, time_ms, earlier_KEY_rows and one for
    each of EVENTS.
    """
    import polars as pl

    at = events.group_by(key, "time_ms").agg(pl.len().alias("rows"), pl.col(EVENTS).sum())
    counts = {
        f"earlier_{key}_{c}": (pl.col(c).cum_sum() - pl.col(c)).over(key) for c in ("rows", *EVENTS)
    }
    return at.sort(key, "time_ms").select(key, "time_ms", **counts)


def follow_scores(
    data: RealFunnel, fold: Int[np.ndarray, " n"], transfer: str, *, steps: int = 150, seed: int = 0
) -> Float[np.ndarray, " n"]:
    """p_click p_follow|click of every row, by a model that saw no row of its user.

    Five models: each is scored on one fold, trained on three, and stopped where the follow's
    log loss on the fifth is least (five checks). transfer: see `rliv_ua.TaskTowers`.
    """
    scores, columns = np.zeros(len(fold), np.float32), data.columns()
    for k in range(5):
        test, valid = torch.from_numpy(fold == k), torch.from_numpy(fold == (k + 1) % 5)
        checks: list[tuple[float, Tensor]] = []

        def watch(agent: RLIVUA, test=test, valid=valid, checks=checks) -> dict:
            p_valid, p_test = (agent.net(data.obs[part]).reward[1, :, 0] for part in (valid, test))
            loss = F.binary_cross_entropy(p_valid, data.follow[valid]).item()
            checks.append((loss, p_test))
            return {"loss": loss}

        rest = ~test & ~valid
        torch.manual_seed(seed)
        d_obs, sizes = data.obs.shape[1], {"bottom": (64, 64), "heads": (32,)}
        agent = RLIVUA(d_obs, costs=(0.0,), gamma=0.0, lr=0.003, transfer=transfer, **sizes)
        how = {"accelerator": "cpu", "precision": "32-true", "gradient_clip_val": 1.0}
        train = {name: column[rest] for name, column in columns.items()}
        loop.fit(agent, train, steps=steps, seed=seed, checks_per_epoch=5, watch=watch, **how)
        scores[test] = min(checks, key=lambda check: check[0])[1]
    return scores


def compare(data: RealFunnel, seeds: Sequence[int]) -> list[dict]:
    """How well models rank follows of users that they never saw: a row a model.

    Keys: model, AUC, and for rivals of ``add`` the gap "add minus it" with the ends ``low`` and
    ``high`` of its 95 % interval, over seeds and users. The rivals: other towers, a logistic
    regression of the follow, and the user's own follows so far. 15,000 of the rows without a follow
    are scored.
    """
    from sklearn.linear_model import LogisticRegression

    X, y = data.obs.numpy(), data.follow.numpy()
    no = np.random.default_rng(0).choice(np.flatnonzero(y == 0), 15_000, replace=False)
    rows = np.concatenate([np.flatnonzero(y), no])
    scores = {}
    for seed in seeds:
        fold, linear = data.folds(seed), np.zeros(len(y))
        for name in TRANSFERS:
            scores[name, seed] = follow_scores(data, fold, name, seed=seed)[rows]
        for k in range(5):
            model = LogisticRegression(C=0.1).fit(X[fold != k], y[fold != k])
            linear[fold == k] = model.predict_proba(X[fold == k])[:, 1]
        scores["logistic regression", seed] = linear[rows]
        scores["past follows", seed] = X[rows, data.names.index("earlier_user_id_is_follow")]
    table, names = [], dict.fromkeys(name for name, _ in scores)
    together = {name: np.stack([scores[name, seed] for seed in seeds]) for name in names}
    for name, s in together.items():
        auc = intervals.auc(y[rows], s, np.zeros_like(s), data.user[rows]).value + 0.5
        gap = intervals.auc(y[rows], together["add"], s, data.user[rows])
        low, high = gap.interval(0.95)
        table.append({"model": name, "AUC": float(auc)})
        if name != "add":
            table[-1] |= {"add minus it": float(gap.value), "low": float(low), "high": float(high)}
    return table
