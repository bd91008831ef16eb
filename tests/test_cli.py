"""The command as a user types it: what goes wrong is one line, an exit code, and a marked record."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers.manifests import write_manifest
from helpers.project import COMMAND, paperlab, project
from paperlab import machine, records, runs
from paperlab.parameters import inspect


def only_record(folder: Path) -> dict:
    (path,) = (folder / "data/runs").glob("*/record.json")
    return json.loads(path.read_text())


def test_a_notebook_that_stores_nothing_runs_all_the_same(tmp_path):
    """Comments with "=" and lists over several lines bring no warning of papermill's."""
    cell = "n: int = 3  # rows, a = b = 3 (rows, 1..9)\nsizes: list[int] = [\n    1,\n    2,\n]  # (1..9)"
    project(tmp_path, "print(n, sizes)", cell=cell)
    done = paperlab(tmp_path, "run", "small", "--set", "n=7")
    assert done.returncode == 0, done.stderr
    assert "101_small.ipynb" in done.stdout
    assert not [line for line in done.stderr.splitlines() if "%|" not in line and line.strip()]
    executed = next((tmp_path / "data/runs").glob("*/101_small.ipynb")).read_text()
    assert "7 [1, 2]" in executed and "a = b = 3" in executed
    record = only_record(tmp_path)
    assert (record["status"], record["metrics"], record["verdicts"]) == ("ok", {}, [])
    assert record["parameters"]["n"] == 7


def test_a_killed_kernel_is_one_line_and_a_failed_record(tmp_path):
    project(tmp_path, "x = 1", "import os\nos._exit(9)", "y = 2")
    done = paperlab(tmp_path, "run", "small")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("paperlab: 101_small failed in cell 3: ")
    assert (only_record(tmp_path)["status"], only_record(tmp_path)["error"]["cell"]) == (
        "failed",
        3,
    )


def test_a_cell_before_the_parameters_has_its_own_number(tmp_path):
    path = project(tmp_path)
    book = json.loads(path.read_text())
    first = {"cell_type": "code", "id": "first", "metadata": {}, "source": "1 / 0"}
    book["cells"].insert(1, first | {"outputs": [], "execution_count": None})
    path.write_text(json.dumps(book))
    with pytest.raises(runs.RunFailed, match="failed in cell 1: ZeroDivisionError"):
        runs.run(path, tmp_path)


def test_a_run_is_running_until_it_is_killed(tmp_path):
    project(tmp_path, "open('begun', 'w').close()\nimport time\ntime.sleep(300)")
    run = subprocess.Popen([*COMMAND, "run", "small"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if (tmp_path / "notebooks/begun").exists():
                break
            time.sleep(0.1)
        (record,) = records.every(tmp_path).values()
        assert (record["status"], record.get("error")) == ("running", None)
        run.kill()
        run.wait()
        (record,) = records.every(tmp_path).values()
        assert record["status"] == "failed"
        assert record["error"]["message"].startswith("killed")
    finally:
        run.kill()
        run.wait()


def test_ctrl_c_marks_the_record_and_says_so(tmp_path):
    project(tmp_path, "open('begun', 'w').close()\nimport time\ntime.sleep(300)")
    run = subprocess.Popen(
        [*COMMAND, "run", "small"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        for _ in range(600):
            if (tmp_path / "notebooks/begun").exists():
                break
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        _, stderr = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130
    assert "paperlab: interrupted" in stderr
    assert only_record(tmp_path)["status"] == "failed"
    assert only_record(tmp_path)["error"]["message"] == "interrupted"


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ("[profiles.full", "101_small.toml: not TOML"),
        ("[profiles]\nfull = 3\n", "101_small.toml: profiles: must be dict"),
        ("[profiles.full]\nm = 2\n", "101_small.toml: profiles.full: small has no parameter 'm'"),
        ('[profiles.full]\nn = "many"\n', "101_small.toml: profiles.full: n=many: n takes int"),
    ],
)
def test_a_broken_profile_is_refused_before_a_kernel(tmp_path, profiles, message):
    write_manifest(project(tmp_path), profiles)
    done = paperlab(tmp_path, "run", "small", "--profile", "full")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert message in line
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "cell", ["a: int = (", "a: int = 'x", "x.y: int = 3", "  a: int = 1\n b = 2"]
)
def test_a_parameters_cell_that_is_not_python_is_refused(tmp_path, cell):
    path = project(tmp_path)
    book = json.loads(path.read_text())
    book["cells"][1]["source"] = cell
    path.write_text(json.dumps(book))
    with pytest.raises(runs.BadInput, match=r"101_small\.ipynb, parameters") as error:
        inspect(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["[]", "5..2", "0..999999999999", "0.." + "9" * 5000])
def test_a_list_that_cannot_be_run_is_refused(tmp_path, value):
    with pytest.raises(runs.BadInput, match="takes list") as error:
        runs.settle(project(tmp_path), "quick", {"seeds": value})
    assert len(str(error.value)) < 200


def test_a_list_that_is_empty_by_default_may_be_empty(tmp_path):
    path = project(tmp_path, cell="real: list[str] = []  # logs")
    assert runs.settle(path, "quick", {"real": "[]"}) == {"real": []}


def test_a_number_too_large_for_a_float_is_refused(tmp_path):
    path = project(tmp_path, cell="rate: float = 1.0  # of learning (per step, 0.0..)")
    for value in ("1" + "0" * 400, "1e999"):
        with pytest.raises(runs.BadInput, match="takes float"):
            runs.settle(path, "quick", {"rate": value})


def test_a_copy_that_jupyterlab_made_is_in_nobodys_way(tmp_path):
    path = project(tmp_path)
    (path.parent / "101_small-Copy1.ipynb").write_text(path.read_text())
    write_manifest(path)
    assert runs.find("small", tmp_path) == path
    assert paperlab(tmp_path, "list").stdout.count("101_small") == 1


def test_a_notebook_elsewhere_is_not_taken_for_its_namesake(tmp_path):
    path = project(tmp_path)
    other = tmp_path / "101_small.ipynb"
    other.write_text(path.read_text())
    with pytest.raises(runs.BadInput, match="no notebook"):
        runs.find(str(other), tmp_path)
    assert runs.find(str(path), tmp_path) == path


def test_without_git_the_code_counts_as_not_committed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.code_version(tmp_path) == {"commit": "", "dirty": True}


def test_options_of_a_loader_are_checked_in_one_line(tmp_path):
    for option, told in (
        ("lunch=3", "census-income takes min_count, seed, not lunch"),
        ("min_count=-3", "min_count must be at least 1, got -3"),
        ("min_count=nan", "min_count must be a whole number, got nan"),
        ("min_count", "--set min_count: write --set NAME=VALUE"),
    ):
        done = paperlab(tmp_path, "data", "census-income", "--set", option)
        assert done.returncode == 2
        assert done.stderr.strip() == f"paperlab: {told}"
