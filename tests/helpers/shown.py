"""A log of shown requests, as a table of one row a candidate."""

import numpy as np
import polars as pl

NAMES = {"request": "req", "user": "who", "item": "sku", "time": "ts", "label": "click"}


def shown(many: int = 60, users: int = 6, size: int = 4, alone: int = 3, seed: int = 0):
    """Requests of ``size`` candidates, each user's after ``alone`` requests of one candidate.

    A new moment every second request; a numeric feature of which some are missing, and a category.
    """
    draw, rows = np.random.default_rng(seed), []
    whose = [*np.repeat(np.arange(users), alone), *draw.integers(0, users, many)]
    for k, user in enumerate(whose):
        few = 1 if k < users * alone else size
        for item in draw.choice(20, few, replace=False):
            price = None if draw.random() < 0.1 else round(float(draw.normal()), 2)
            click = int(draw.random() < 0.2 + 0.5 * (item % 2))
            rows.append((f"r{k}", f"u{user}", int(item), 1_700_000_000 + k // 2, price, click))
    frame = pl.DataFrame(rows, ["req", "who", "sku", "ts", "price", "click"], orient="row")
    return frame.with_columns(shelf=pl.Series(list("abc")).gather(frame["sku"] % 3))
