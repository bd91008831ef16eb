"""The table of seconds: what is marked, summed and projected, worked by hand."""

import json
from pathlib import Path

import pytest
from helpers import seconds
from helpers.seconds import BUDGETS, excess, is_paper, kind, report

pytest_plugins = ["pytester"]


def row(file: str, cpu: float) -> dict:
    return {"file": file, "kind": kind(file), "cpu": cpu, "wall": 2 * cpu}


ROWS = [
    row("notebooks/101_ssr.ipynb", 60.0),
    row("notebooks/201_tin.ipynb", 20.0),
    row("notebooks/900_ledger.ipynb", 10.0),
    row("tests/ctr/test_ssr.py", 30.0),
    row("tests/test_sweep.py", 50.0),
    row("tests/browser/test_site.py", 70.0),
]


def test_kinds():
    assert [r["kind"] for r in ROWS] == ["notebook"] * 3 + ["paper", "house", "browser"]
    assert [is_paper(r["file"]) for r in ROWS] == [True, True] + [False] * 4
    assert kind("tests/lm/test_hub.py") == kind("tests/faults/test_audit.py") == "house"


def test_what_exceeds_its_budget_is_marked_and_summed():
    lines = report(ROWS)
    marked = {line.split()[3]: line.split()[4] for line in lines if "its budget" in line}
    assert marked == {"notebooks/101_ssr.ipynb": "2.4", "tests/ctr/test_ssr.py": "2.0"}
    assert "   90.0  notebook: 3 files" in lines
    assert "   30.0  paper: 1 files" in lines


def test_ninety_papers_are_projected():
    """(90 + 30) / 2 papers = 60 s each; (90 x 60 + 50 + 70) / 2 workers = 46 minutes."""
    assert report(ROWS)[-2:] == [
        "90 papers as today's, 60 s each: 46 minutes",
        "90 papers at their budgets, 40 s each: 31 minutes",
    ]


def test_only_more_than_twice_a_budget_is_an_excess():
    assert excess(ROWS) == ["notebooks/101_ssr.ipynb: 60.0 CPU seconds, its budget is 25"]
    assert excess([row("tests/test_x.py", 2.0 * BUDGETS["house"])]) == []


@pytest.mark.parametrize("workers", [[], ["-n", "1", "--max-worker-restart", "0"]])
def test_seconds_of_a_run_are_collected_also_from_a_worker(pytester, monkeypatch, workers):
    """A child's CPU counts, and a file's tests are added; the file with most comes first."""
    kept = pytester.path / "seconds.json"
    monkeypatch.setattr(seconds, "KEPT", kept)
    monkeypatch.setattr(seconds, "is_paper", lambda file: True)
    pytester.makeconftest(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from helpers.seconds import Seconds\n"
        "def pytest_configure(config): config.pluginmanager.register(Seconds(), 'seconds')"
    )
    spin = "import time; t = time.process_time()\nwhile time.process_time() < t + 0.3: pass"
    child = f"import subprocess, sys\ndef test_child(): subprocess.run([sys.executable, '-c', {spin!r}])"
    pytester.makepyfile(
        **{"tests/test_a": child + "\ndef test_b(): pass", "tests/test_c": "def test_c(): pass"}
    )
    done = pytester.inline_run("-p", "no:cacheprovider", *workers)
    done.assertoutcome(passed=3)
    found = {r["file"]: r for r in json.loads(kept.read_text())}
    assert list(found) == ["tests/test_a.py", "tests/test_c.py"]
    assert found["tests/test_a.py"]["cpu"] >= 0.3 > found["tests/test_c.py"]["cpu"]
