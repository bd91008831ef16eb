"""The leaderboard's best settings as profile files: what its committed record says, and runnable.

After a new full record of 110: python tests/notebooks/test_settings.py writes the files anew.
"""

import json
import tomllib
from pathlib import Path

import pytest
from paperlab import records, runs

ROOT = records.project_root(Path(__file__))
BOOK = ROOT / "notebooks/110_ctr_leaderboard.ipynb"
RECORD = json.loads((ROOT / "data/reference/110_ctr_leaderboard_full.json").read_text())
FOLDER = ROOT / "data/reference/settings"


def text(name: str) -> str:
    """The settings of one real log: the rate of each model, as its validation part chose it."""
    rows, kept = RECORD["metrics"][name], RECORD["parameters"]
    rates = {row["model"]: f"{row['lr']:g}" for row in rows}
    ends = sum({row["model"]: row["edge"] for row in rows}.values())
    models = "".join(f'    "{model}@{rate}",\n' for model, rate in rates.items())
    return (
        f"# Learning rates on {name}, chosen by validation AUC: 110_ctr_leaderboard_full.json,\n"
        f"# {RECORD['started'][:10]}; at most {kept['real_epochs']} passes, until validation stops improving; "
        f"{ends} of {len(rates)} at the lowest or highest rate tried.\n"
        f"# paperlab run ctr_leaderboard --profile data/reference/settings/110_{name}.toml\n"
        f'real = ["{name}"]\nreal_budget = {kept["real_budget"]}\nmodels = [\n{models}]\n'
    )


@pytest.mark.parametrize("name", RECORD["parameters"]["real"])
def test_a_settings_file_is_what_the_record_says_and_what_run_takes(name):
    path = FOLDER / f"110_{name}.toml"
    assert path.read_text() == text(name), f"write it anew: python {Path(__file__).name}"
    chosen = runs.settle(BOOK, str(path))
    assert chosen["real"] == [name]
    assert [m.split("@")[0] for m in chosen["models"]] == list(
        dict.fromkeys(r["model"] for r in RECORD["metrics"][name])
    )
    assert chosen["models"] == tomllib.loads(path.read_text())["models"]


def test_there_is_no_other_settings_file():
    known = {f"110_{name}.toml" for name in RECORD["parameters"]["real"]}
    assert {p.name for p in FOLDER.glob("110_*.toml")} == known


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for stale in FOLDER.glob("110_*.toml"):
        stale.unlink()
    for log in RECORD["parameters"]["real"]:
        (FOLDER / f"110_{log}.toml").write_text(text(log))
