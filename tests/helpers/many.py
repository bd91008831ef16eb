"""A project with many small notebooks and their committed records, whose truth is known."""

import json
import random
from pathlib import Path

from paperlab import manifest, records, verdict

MANIFEST = """
name = "Paper {number}"
question = "does it work?"
claim = "It works."
status = "no paper"
family = "{family}"
quick_data = "none"
data = []
[profiles.full]
seeds = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
"""


def notebook(folder: Path, stem: str, *cells: str) -> Path:
    """A notebook with a parameters cell and these code cells, not executed, and its manifest."""
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").touch()
    code = [("seeds: list[int] = [0]  # paired runs (seed, 0..)", ["parameters"])]
    code += [(cell, []) for cell in cells]
    book = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}}
    book["cells"] = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {"tags": tags}, "source": source,
         "outputs": [], "execution_count": None}
        for i, (source, tags) in enumerate(code)
    ]  # fmt: skip
    path = folder / f"notebooks/{stem}.ipynb"
    path.write_text(json.dumps(book))
    text = MANIFEST.format(number=stem[:3], family=manifest.FAMILIES[stem[0]].folder)
    path.with_suffix(".toml").write_text(text)
    return path


def recorded(stem: str, effects: dict[str, float], seeds: int = 10, profile: str = "full") -> dict:
    """A record with a claim for each effect: B minus A in its condition, noise of 0.01 a seed."""
    draw, record = random.Random(stem), records.Record(stem, 1, "cpu")
    rows = [
        {"model": m, "world": text, "seed": s, "auc": 0.7 + e * (m == "B") + draw.gauss(0, 0.01)}
        for text, e in effects.items()
        for m in ("A", "B", "C")
        for s in range(seeds)
    ]
    record.table("main", rows, where=["world"])
    claims = [
        verdict.claim(record, text, "main", "B", "A", delta=0.01, where={"world": text})
        for text in effects
    ]
    made = {"notebook": stem, "profile": profile, "status": "ok", "seconds": 600.0}
    made |= {"parameters": {"seeds": list(range(seeds))}, "machine": "a chip, 2 cores"}
    made |= {"started": "2026-11-01T00:00:00+00:00", "peak_memory_mb": 900}
    made |= {"metrics": record.metrics, "tables": record.tables}
    return made | {"verdicts": [j.stored() for j in verdict.judge(claims)]}


def write_record(folder: Path, record: dict) -> Path:
    path = folder / f"data/reference/{record['notebook']}_{record['profile']}.json"
    records.write(path, record)
    return path


def many(folder: Path, count: int) -> list[str]:
    """``count`` notebooks with five claims each, spread over eight families; returns their stems."""
    stems = [f"{1 + i % 8}{i // 8:02d}_paper_{i}" for i in range(count)]
    effects = (0.05, 0.0, -0.05, 0.012, 0.02)
    for i, stem in enumerate(stems):
        texts = [
            f"Claim {k} of {stem}: the method ranks better than its baseline where it is said to"
            for k in range(5)
        ]
        claims = {t: effects[(i + k) % 5] for k, t in enumerate(texts)}
        notebook(folder, stem, f"claims = {texts!r}")
        write_record(folder, recorded(stem, claims))
    return stems
