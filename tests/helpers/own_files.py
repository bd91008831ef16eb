"""A table of clicks of one's own, in every form that a file may have."""

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl

OPTIONS = {"label": "click", "user": "user_id", "time": "ts"}


def clicks(rows: int = 1500, seed: int = 0) -> pl.DataFrame:
    """Users who come late, a category, a price of which some are missing, a constant."""
    draw = np.random.default_rng(seed)
    users = draw.integers(0, 80, rows) + np.arange(rows) // 100
    price = [
        None if k % 40 == 7 else round(float(x), 3) for k, x in enumerate(draw.lognormal(size=rows))
    ]
    return pl.DataFrame(
        {
            "user_id": [f"u{u}" for u in users],
            "ts": draw.permutation(rows) + 1_700_000_000,
            "city": draw.choice(list("abcde"), rows),
            "price": price,
            "source": ["web"] * rows,
            "click": draw.integers(0, 2, rows),
        }
    )


def written(frame: pl.DataFrame, folder: Path, form: str) -> Path:
    """The table as a file of a form (csv, tsv.gz, ...), or as a "folder" of three of them."""
    if form == "folder":
        (folder / "parts").mkdir()
        for k, part in enumerate((frame[:500], frame[500:501], frame[501:])):
            written(part, folder / "parts", ("csv", "parquet", "jsonl.gz")[k]).rename(
                folder / f"parts/{k}.{('csv', 'parquet', 'jsonl.gz')[k]}"
            )
        return folder / "parts"
    path, kind = folder / f"clicks.{form}", form.removesuffix(".gz")
    if kind == "parquet":
        frame.write_parquet(path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dicts()))
    else:
        mark = {"csv": ",", "tsv": "\t", "semicolon.csv": ";"}[kind]
        path.write_text(frame.write_csv(separator=mark))
    if form.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path
