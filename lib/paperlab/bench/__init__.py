"""How fast we train, next to FuxiCTR on the same model and rows; how fast we start (ours).

Every training run is one epoch in a fresh process, ours and theirs in turn, so that neither warms a
cache or an allocator for the other; what is reported is the median over pairs. Making data and
scoring are not timed. FuxiCTR trains through its in-memory loader with 0 or 1 worker processes,
whichever trial run is faster on the machine at hand.
"""

from __future__ import annotations

import json
import tempfile
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from .. import records
from ..data.store import save
from . import speed
from .startup import startup

ROOT = Path(__file__).resolve().parents[3]
MARKERS = ("<!-- bench -->", "<!-- /bench -->")
PAIRS, ROWS, IDS = 5, 400_000, 1_090_000
AUC_GAP = 0.001  # above this the two sides did not learn the same


def main(pairs: int = PAIRS, rows: int = ROWS, profile: str | None = None) -> dict | None:
    """Measure, print the tables, and return the record.

    The record goes to data/reference/bench.json and into the README only when pairs and rows are at
    least the defaults; anything less is a trial.
    pairs: runs of each side, >= 1. rows: of the generated log, all parts together, >= 1000.
    profile: the name of a model, in any case: print its most costly operators instead.

    Raises ValueError for values out of range, ModuleNotFoundError without FuxiCTR.
    """
    if pairs < 1 or rows < 1000:
        raise ValueError(f"bench needs pairs >= 1 and rows >= 1000, got {pairs} and {rows}")
    from ..data.criteo_shaped import criteo_shaped

    if profile is not None:
        from .profile import model_name, print_profile

        name = model_name(profile)
        print_profile(name, criteo_shaped(rows=rows, ids=IDS, seed=0))
        return None
    if find_spec("fuxictr") is None:
        raise ModuleNotFoundError("bench needs FuxiCTR: pip install -e '.[bench]'")
    from .fuxictr import save_npz

    log = criteo_shaped(rows=rows, ids=IDS, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        save(log, Path(folder))
        save_npz(log, Path(folder))
        found = {
            "machine": records.machine(),
            "date": date.today().isoformat(),
            "versions": {p: version(p) for p in ("paperlab", "torch", "lightning", "fuxictr")},
            "log": repr(log),
            "pairs": pairs,
            "dim": speed.DIM,
            "batch_size": speed.BATCH_SIZE,
            "threads": speed.THREADS,
            "rows": [speed.measure(name, folder, pairs) for name in speed.MODELS],
            "startup": startup(),
        }
    print_tables(found)
    if pairs < PAIRS or rows < ROWS:
        print(f"A trial, not recorded: that takes at least {PAIRS} pairs of {ROWS:,} rows.")
        return found
    record = ROOT / "data" / "reference" / "bench.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(found, indent=1) + "\n")
    if not rewrite(ROOT / "README.md", markdown(found)):
        print(f"README.md holds no {MARKERS[0]} and {MARKERS[1]}: left as it is.")
    return found


def cells(row: dict) -> list[str]:
    """A model's line in both tables."""
    low, high = row["ratio_range"]
    return [
        row["name"],
        f"{row['ours']:,.0f}",
        f"{row['theirs']:,.0f}",
        f"{row['ratio']:.1f} ({low:.1f}–{high:.1f})",
        f"{row['auc_ours']:.4f}",
        f"{row['auc_theirs']:.4f}",
    ]


TITLES = ("model", "ours, samples/s", "FuxiCTR, samples/s", "ratio", "AUC ours", "AUC FuxiCTR")


def print_tables(found: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    training = Table()
    for k, title in enumerate(TITLES):
        training.add_column(title, justify="right" if k else "left")
    for row in found["rows"]:
        training.add_row(*cells(row))
    starting = Table("start", "seconds")
    for row in found["startup"]:
        starting.add_row(row["name"], f"{row['seconds']:.2f}")
    console = Console()
    console.print(training)
    console.print(caption(found))
    for row in found["rows"]:
        if abs(row["auc_ours"] - row["auc_theirs"]) > AUC_GAP:
            console.print(f"{row['name']}: test AUC differs by more than {AUC_GAP}")
    console.print(starting)


def markdown(found: dict) -> str:
    """The README's tables: training, then start-up."""
    table = [TITLES, ["---", *["---:"] * (len(TITLES) - 1)], *map(cells, found["rows"])]
    starts = [("start", "seconds"), ("---", "---:")]
    starts += [(f"`{r['name']}`", f"{r['seconds']:.2f}") for r in found["startup"]]
    lines = [["| " + " | ".join(row) + " |" for row in t] for t in (table, starts)]
    return "\n".join([*lines[0], "", caption(found), "", *lines[1]])


def caption(found: dict) -> str:
    workers = ", ".join(f"{r['name']} {r['workers']}" for r in found["rows"])
    versions = ", ".join(f"{p} {v}" for p, v in found["versions"].items())
    return (
        f"{found['machine']}, {found['date']}; {versions}. {found['log']}, E={found['dim']}, batch "
        f"{found['batch_size']}, {found['threads']} threads; medians of {found['pairs']} alternating "
        f"pairs, ratio with its range; worker processes of FuxiCTR's loader: {workers}."
    )


def rewrite(file: Path, text: str) -> bool:
    """Put a text between the markers of a file; False, and nothing done, when it has none."""
    before, opened, rest = file.read_text().partition(MARKERS[0]) if file.is_file() else ("",) * 3
    _, closed, after = rest.partition(MARKERS[1])
    if not opened or not closed:
        return False
    file.write_text(f"{before}{opened}\n{text}\n{closed}{after}")
    return True
