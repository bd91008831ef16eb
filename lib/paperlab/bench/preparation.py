"""Raw Criteo-shaped text to a column store: rows a second and peak memory of the two passes."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from ..machine import peak_memory_mb
from .criteo_shaped import HASHES, INTEGERS
from .processes import alone

ROWS, CHUNK = 1_000_000, 500_000
EVERY = 100_000  # a row in so many is malformed


def measure(rows: int = ROWS, times: int = 3) -> dict:
    """Write ``rows`` >= 1 rows as a file, prepare it in fresh processes, and count what came out.

    Seconds are the processor's, of all threads, median of ``times`` >= 1.
    """
    if rows < 1:
        raise ValueError(f"preparation bench needs rows >= 1, got {rows}")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "train.txt"
        write_text(source, rows)
        size = source.stat().st_size
        runs = [alone(prepare_once, str(source)) for _ in range(times)]
    seconds = statistics.median(r["seconds"] for r in runs)
    row = {"lines": rows, "bytes": size, **runs[0], "seconds": seconds}
    row |= {"speed": rows / seconds, "peak_mb": max(r["peak_mb"] for r in runs)}
    return {"times": times, "rows": [row]}


def write_text(path: Path, rows: int, seed: int = 0) -> None:
    """Rows in the Kaggle layout: label, 13 counts, 26 hashes; a tenth of the cells empty."""
    import polars as pl

    draw = np.random.default_rng(seed)
    with path.open("wb") as file:
        for start in range(0, rows, CHUNK):
            n = min(CHUNK, rows - start)
            columns = {"label": (draw.random(n, np.float32) < 0.25).astype(np.int8)}
            for k, size in enumerate((*INTEGERS, *HASHES)):
                value = (size ** draw.random(n, np.float32)).astype(np.int64) - 1  # Zipf's law
                if k >= len(INTEGERS):  # a hash: eight hexadecimal digits, the same for a value
                    value = (value * 2_654_435_761 + k) % 2**32
                text = pl.Series(value)
                if k >= len(INTEGERS):
                    text = _hex(value)
                columns[f"f{k}"] = text.zip_with(
                    pl.Series(draw.random(n, np.float32) < 0.9), pl.Series([None], dtype=text.dtype)
                )
            block = pl.DataFrame(columns).write_csv(separator="\t", include_header=False).encode()
            lines = block.split(b"\n")
            for bad in range(EVERY - 1, n, EVERY):
                lines[bad] = lines[bad].rpartition(b"\t")[0]
            file.write(b"\n".join(lines))


def prepare_once(source: str) -> dict:
    """Prepare a file beside it: seconds, peak memory of this process, rows stored and put aside."""
    import json
    import warnings

    from ..data.formats import criteo
    from ..data.prepare import prepare
    from ..data.sources import TextSource

    path = Path(source)
    store = path.with_name("store")
    shutil.rmtree(store, ignore_errors=True)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*malformed rows.*")  # they are what is counted here
        prepare(TextSource(path, criteo.COLUMNS), criteo.recipe(min_count=10), store, {})
    seconds = time.process_time() - start
    notes = json.loads((store / "notes.json").read_text())
    return {
        "seconds": seconds,
        "peak_mb": round(peak_memory_mb()),
        "stored": notes["rows"],
        "rejected": notes["rejected"],
    }


def _hex(value: np.ndarray):
    """Numbers below 2^32 as eight hexadecimal digits, without Python per row."""
    import polars as pl

    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    nibbles = (value[:, None] >> np.arange(28, -1, -4)) & 15
    return pl.Series(digits[nibbles].view("S8").ravel().astype("U8"))
