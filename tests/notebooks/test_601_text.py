"""What the text of notebook 601 says of its full record holds in the rows of that record."""

import json
from pathlib import Path
from statistics import mean

import pytest
from paperlab import records

ROOT = records.project_root(Path(__file__))
FOUND = json.loads((ROOT / "data/reference/601_otpo_full.json").read_text())["metrics"]


def of(what: str, rows: list[dict], **keys) -> list[float]:
    return [
        r[what] for r in rows if r["lr"] is not None and all(r[k] == v for k, v in keys.items())
    ]


def test_601_sampled_length_follows_the_rate():
    cued = [r for r in FOUND["lengths"] if r["lr"] is not None and r["cue"] == 0.8]
    high = [r for r in cued if r["lr"] >= 0.01]
    low = [r for r in cued if r["lr"] <= 0.001]
    assert min(r["length"] for r in high) > 43 > 20 >= round(max(r["length"] for r in low), 1)
    assert mean(r["accuracy"] for r in high) > mean(r["accuracy"] for r in low)


def test_601_validation_gave_dpo_the_lowest_rate_in_five_of_eight_seeds():
    rates = of("lr", FOUND["lengths"], model="DPO", cue=0.8)
    assert len(rates) == 8
    assert sum(rate < 0.001 for rate in rates) == 5
    edges = of("edge", FOUND["lengths"], cue=0.8)
    assert sum(edges) > len(edges) / 2


@pytest.mark.parametrize("cue", [0.0, 0.8])
def test_601_slope_of_otpo_is_larger_by_mean_size(cue):
    size = {
        m: mean(of("size of slope", FOUND["lengths"], model=m, cue=cue)) for m in ("OTPO", "DPO")
    }
    assert size["OTPO"] > size["DPO"]


def test_601_clean_validation_pairs_help_dpo_at_a_price_and_harm_the_uniform_budget():
    def change(what: str, model: str) -> float:
        cued = of(what, FOUND["lengths"], model=model, cue=0.8)
        return mean(of(what, FOUND["clean validation"], model=model)) - mean(cued)

    assert change("accuracy", "DPO") > 0 > change("accuracy", "uniform budget")
    assert change("slope", "DPO") > 0
    assert sum(n > 46 for n in of("length", FOUND["clean validation"], model="DPO")) == 7


def test_601_token_states():
    sharing = [r for r in FOUND["sharing"] if r["states"] == "token" and r["eps_1"] == 0.1]
    auc = [r["auc"] for r in sharing]
    assert (round(min(auc), 2), round(max(auc), 2)) == (0.24, 0.87)
    for row in FOUND["decisive"]:
        if row["model"] == "OTPO token":
            assert row["weight"] < row["others"] / 2
