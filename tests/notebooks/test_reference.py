"""Committed records: a trivial predictor falls outside every band that they give."""

import json
import math
from pathlib import Path

import pytest
import torch
from paperlab import metrics, records
from paperlab.verdict import t_quantile

ROOT = records.project_root(Path(__file__))
RECORDS = [p for p in sorted((ROOT / "data/reference").glob("[0-9]*.json"))]


def bands(rows: list[dict]) -> dict[tuple, tuple[float, float]]:
    """95 % prediction band of a new seed's AUC, for every log and model with at least 5 seeds."""
    found = {}
    for key in {(r["log"], r["model"]) for r in rows}:
        values = [r["auc"] for r in rows if (r["log"], r["model"]) == key]
        n, mean = len(values), sum(values) / len(values)
        assert n >= 5, f"{key}: {n} seeds"
        sd = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
        half = t_quantile(n - 1) * sd * math.sqrt(1 + 1 / n)
        found[key] = (mean - half, mean + half)
    return found


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_a_kept_record_is_whole(path):
    record = json.loads(path.read_text())
    assert record["status"] == "ok"
    assert record["code"]["dirty"] is False
    assert len(record["parameters"]["seeds"]) >= 5
    assert record["machine"]
    assert record["verdicts"]


@pytest.mark.parametrize(
    "path", [p for p in RECORDS if p.stem == "101_ssr_full"], ids=lambda p: p.stem
)
def test_trivial_predictors_fall_outside_every_band_on_real_clicks(path):
    """A constant has AUC 1/2 exactly; shuffled labels have it up to sampling noise."""
    rows = json.loads(path.read_text())["metrics"]["clicks"]
    constant = metrics.auc(torch.zeros(100), torch.arange(100) % 2)
    draw = torch.Generator().manual_seed(0)
    labels = (torch.rand(8000, generator=draw) < 0.1).float()
    shuffled = metrics.auc(torch.rand(8000, generator=draw), labels)
    found = bands(rows)
    assert len(found) >= 20
    for key, (low, high) in found.items():
        assert not low <= constant <= high, key
        assert not low <= shuffled <= high, key
