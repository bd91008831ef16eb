"""Tables in the form of KuaiRand's explicit-feedback core."""

import datetime as dt

import numpy as np
import polars as pl
from paperlab.feedback import real_watch_time as real


def kuairand_tables(n=300, seed=0):
    rng = np.random.default_rng(seed)
    days = [
        int((dt.date(2022, 4, 8) + dt.timedelta(int(d))).strftime("%Y%m%d"))
        for d in rng.integers(14, size=n)
    ]
    events = pl.DataFrame({
        "user_id": rng.integers(9, size=n), "video_id": rng.integers(90, size=n), "date": days,
        "play_time_ms": rng.integers(50_000, size=n),
        "duration_ms": rng.integers(2, size=n) * rng.integers(90_000, size=n),
    })  # fmt: skip
    users = pl.DataFrame({"user_id": range(8)} | {c: ["a", "b"] * 4 for c in real.ACCOUNT})
    return events, users
