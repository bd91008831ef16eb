"""How far the teaching worlds are from a real feed, and presets that are nearer.

Targets are moments of KuaiRand (Gao et al., CIKM 2022): clicks, follows per click, video seconds by
how active a user is, and, where every video's author is known, the gap between two meetings of a
pair. Gifts per click are KuaiLive's published counts (72,646 of 4,909,515; its users were chosen
for having gifted, so this is an upper bound). Nothing else of the worlds is fitted, and no realism
is claimed beyond `table`.

``PRESETS`` holds constructor arguments: ``teaching`` is the defaults; ``kuai`` has the moments of
the ``explicit`` part, by one shift of each rate's intercepts and each band's video seconds. Its
rows are of 664 users who liked or hated the video: their clicks are far above those of a feed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .worlds.funnel import CLICK, FOLLOW, GIFT, FunnelModel
from .worlds.live import LiveModel

if TYPE_CHECKING:
    import polars as pl

GIFTS_PER_CLICK = 72_646 / 4_909_515  # KuaiLive
EXPOSURES = 60  # a pair is followed for so long, from a stranger, under uniform boosts
REQUEST = 8  # videos: turns a user's exposures into requests
# Six groups of LiveAlloc, three bands of activity.
BANDS = {"full_active": (0, 1), "high_active": (2, 3), "less active": (4, 5)}
PRESETS: dict[str, dict[str, dict]] = {
    "teaching": {"funnel": {}, "live": {}},
    "kuai": {
        "funnel": {
            "click": (-0.6297, 0.3703, 1.3703, 2.1703),
            "follow": (-5.6927, -4.6927),
            "gift": (-9.3243, -7.8243, -4.8243, -2.3243),
        },
        "live": {"video_seconds": (23.1943, 23.2823, 20.4579, 20.5408, 19.8635, 19.8954)},
    },
}


def targets(part: str = "explicit") -> dict[str, float]:
    """Moments of a part of KuaiRand, by name.

    part: ``explicit`` (a copy of 41,828 selected rows) or an official log: pure, 1k, 27k.
    Raises ValueError for another part, FileNotFoundError that says which file to get.
    """
    import polars as pl

    from ..data.sets import kuairand

    events, users, authors = kuairand.tables(part)
    click, follow = pl.col("is_click"), pl.col("is_follow")
    rates = events.select(click.mean(), (follow * click).sum() / click.sum()).collect()
    moments = {"clicks per exposure": rates[0, 0], "follows per click": rates[0, 1]}
    moments["gifts per click"] = GIFTS_PER_CLICK
    active = pl.col("user_active_degree")
    band = pl.when(active.is_in([*BANDS])).then(active).otherwise(pl.lit("less active"))
    seconds = (
        events.join(users, on="user_id", how="left")
        .group_by(band.alias("band"))
        .agg(pl.col("play_time_ms").mean() / 1000)
        .collect()
    )
    for name, value in seconds.sort("band").iter_rows():
        moments[f"seconds a video, {name}"] = value
    if authors is not None:
        turn = pl.int_range(pl.len()).over("user_id")
        meetings = events.join(authors, on="video_id").sort("time_ms").with_columns(turn=turn)
        gap = pl.col("turn").diff().over("user_id", "author_id")
        moments["requests between exposures"] = (
            meetings.select(gap.mean() / REQUEST).collect().item()
        )
    return moments


def simulated(preset: dict[str, dict]) -> dict[str, float]:
    """The same moments of the two worlds, exactly: a value of `PRESETS`, or one like it."""
    funnel, live = FunnelModel(**preset["funnel"]), LiveModel(**preset["live"])
    uniform = funnel.outcomes.mean(1)  # (6, K, Z)
    moves, z = funnel.P.mean(0), np.eye(4)[0] * np.ones((4, 1)) / 4  # share of pairs [k, z]
    spent, after = np.zeros((4, 4)), np.zeros(4)
    for _ in range(EXPOSURES):
        spent += z
        landed = np.einsum("kz,kzy->ky", z, moves)
        after += landed.sum(0)
        z = landed @ funnel.gap_operator() / funnel.discount
    clicks, follows, gifts = (
        (flag[:, None, None] * uniform * spent).sum() for flag in (CLICK, FOLLOW, GIFT)
    )
    moments = {"clicks per exposure": clicks / EXPOSURES, "follows per click": follows / clicks}
    moments["gifts per click"] = gifts / clicks
    seconds = live.video_seconds * _freshness(live)
    for name, groups in BANDS.items():
        moments[f"seconds a video, {name}"] = seconds[list(groups)].mean()
    moments["requests between exposures"] = after @ funnel.gap_means / EXPOSURES
    return moments


def table(wanted: dict[str, float], preset: dict[str, dict]) -> pl.DataFrame:
    """target | simulated | relative error, a moment a row."""
    import polars as pl

    moments = simulated(preset)
    rows = [
        {"moment": k, "target": v, "simulated": moments[k], "relative error": moments[k] / v - 1}
        for k, v in wanted.items()
    ]
    return pl.DataFrame(rows)


def _freshness(live: LiveModel) -> np.ndarray:
    """By group: a page's video seconds as a share of an unsatiated user's, actions by a coin."""
    chain = live.transitions(discount=1.0).mean(0)
    visits = np.linalg.inv(np.eye(len(chain)) - chain)[live.starts()]
    return visits @ (live.v / live.video_seconds[live.group]) / visits.sum(1)
