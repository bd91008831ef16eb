"""Small files of clicks with counts and categories, and their stores."""

from pathlib import Path

import numpy as np
from paperlab.data import open_store, prepare, recipe, sources

COLUMNS = ("label", "n", "a", "b")
RECIPE = recipe.Recipe("label", ("a", "b"), ("n",), min_count=2)


def text(rows: int, seed: int = 0) -> str:
    draw = np.random.default_rng(seed)
    lines = [
        f"{draw.integers(2)}\t{draw.integers(-1, 400) if draw.random() < 0.8 else ''}\ta{draw.integers(9)}\tb{int(rows ** draw.random())}"
        for _ in range(rows)
    ]
    return "\n".join(lines) + "\n"


def made(path: Path, folder: Path, **options):
    prepare.prepare(sources.TextSource(path, COLUMNS, **options), RECIPE, folder, {"title": "x"})
    return open_store(folder)
