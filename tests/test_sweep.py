"""Sweeps: typed grids, one record a run whatever is killed, and one path for local and far workers."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.project import project
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import digest, records, runs, sweep
from paperlab.parameters import Parameter, inspect

COMMAND = [sys.executable, "-c", "from paperlab.cli import main; main()", "sweep", "small"]
NOTE = """
import os, time
with open(f"log-{n}", "a") as log:
    log.write(f"{os.getppid()} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES', 0)}\\n")
if os.path.exists("slow"):
    time.sleep(60)
if n == 2:
    raise OSError("two is bad")
"""


def start(folder: Path, *words: str, **options) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*COMMAND, *words], cwd=folder, **pipes, **options)


def call(folder: Path, *words: str) -> tuple[int, str, str]:
    process = start(folder, *words, env=os.environ | {"COLUMNS": "200"})
    stdout, stderr = process.communicate(timeout=300)
    return process.returncode, stdout, stderr


def all_records(folder: Path) -> list[dict]:
    paths = sorted((folder / "data/runs").glob("*/record.json"))
    return [json.loads(path.read_text()) for path in paths]  # raises where one is half written


def until(condition, seconds: float = 120):
    for _ in range(int(seconds * 20)):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it never came")


def kernels(folder: Path, n: int) -> list[list[int]]:
    """(worker, kernel, GPU) of every time that the run of this n got to its cell."""
    path = folder / f"notebooks/log-{n}"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [[int(x) for x in line.split()] for line in lines]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("n", "1..3", [1, 2, 3]),
        ("n", "1..2, 9", [1, 2, 9]),
        ("rate", "1e-3,1", [0.001, 1.0]),
        ("name", "a,b", ["a", "b"]),
        ("fast", "true,False", [True, False]),
        ("seeds", "0..2", [[0], [1], [2]]),
        ("seeds", "5,7", [[5], [7]]),
        ("seeds", "[0,1],[2..3]", None),
        ("seeds", "[0, 1],4", [[0, 1], [4]]),
    ],
)
def test_a_grid_is_typed_and_a_list_gives_a_run_an_item(tmp_path, name, text, expected):
    parameter = inspect(project(tmp_path))[name]
    if expected is None:
        with pytest.raises(runs.BadInput, match="takes list"):
            sweep.grid_values(parameter, text)
    else:
        assert sweep.grid_values(parameter, text) == expected


@pytest.mark.parametrize(
    ("grid", "fixed", "message"),
    [
        ([("seed", "0..4")], {}, "did you mean seeds"),
        ([("n", "0,1")], {}, r"n takes int in 1\.\.10,000"),
        ([("n", "1,,2")], {}, "n takes int"),
        ([("n", "")], {}, "n takes int"),
        ([("n", "3..1")], {}, r"n takes int in"),
        ([("n", "0..2")], {}, r"n takes int in"),
        ([("seeds", "")], {}, "write NAME=V1,V2"),
        ([("n", "1"), ("N", "2")], {}, "n is set twice"),
        ([("n", "1")], {"N": "2"}, "n is set twice"),
        ([("n", "1..9999"), ("seeds", "0..9999")], {}, "99,990,000 runs; a sweep takes at most"),
        ([("n", "1")], {"rate": "9"}, "rate takes float"),
    ],
)
def test_a_bad_grid_is_refused_in_one_line(tmp_path, grid, fixed, message):
    with pytest.raises(runs.BadInput, match=message) as error:
        sweep.plan(project(tmp_path), "quick", fixed, grid)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


@settings(deadline=None, max_examples=80)
@given(st.text(alphabet="0123456789.,[]-ea' x", max_size=14))
def test_any_text_gives_typed_values_or_one_line(text):
    for kind, default in (("int", 1), ("float", 0.5), ("str", "a"), ("list[int]", [0])):
        parameter = Parameter("p", kind, default, "")
        try:
            values = sweep.grid_values(parameter, text)
        except runs.BadInput as error:
            assert "\n" not in str(error)
        else:
            assert values
            assert [parameter.cast(v) for v in values] == values


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.lists(st.integers(0, 5), min_size=1))
def test_a_plan_is_the_product_without_repeats(tmp_path_factory, ns, seeds):
    path = project(tmp_path_factory.mktemp("plan"))
    grid = [("n", ",".join(map(str, ns))), ("seeds", ",".join(map(str, seeds)))]
    points = sweep.plan(path, "full", {"rate": "0.5"}, grid)
    pairs = [(p.values["n"], *p.values["seeds"]) for p in points]
    assert sorted(pairs) == sorted({(n, s) for n in ns for s in seeds})
    assert len({p.key for p in points}) == len(points)
    assert {p.values["rate"] for p in points} == {0.5}


def test_the_key_is_that_of_the_record_and_changes_with_code_and_values(tmp_path):
    path = project(tmp_path, "print(n)")
    (point,) = sweep.plan(path, "quick", {}, [("n", "9")])
    settled = runs.settle(path, "full")  # n is 9 there as well: the same run
    assert records.begin("101_small", "full", settled, tmp_path)["key"] == point.key
    (other,) = sweep.plan(path, "quick", {}, [("n", "8")])
    path.write_text(path.read_text().replace("print(n)", "print(n + 1)"))
    (edited,) = sweep.plan(path, "quick", {}, [("n", "9")])
    assert len({point.key, other.key, edited.key}) == 3


def test_one_failing_run_stops_no_other_and_done_ones_are_not_repeated(tmp_path):
    project(tmp_path, NOTE)
    words = ["--grid", "n=1..3", "--workers", "2"]
    code, stdout, _ = call(tmp_path, *words, "--dry-run")
    assert (code, stdout.count("to do")) == (0, 3)
    assert not (tmp_path / "data").exists()
    code, stdout, stderr = call(tmp_path, *words)
    assert (code, stderr) == (1, "")
    assert "2 done (0 of them before), 0 running, 1 failed, 3 in all" in stdout
    line = " ".join(stdout.split())
    assert re.search(r"n=2 failed 101_small failed in cell 2: OSError: two is bad", line)
    assert re.search(r"see data/runs/\S+ and data/runs/.sweep/\w+.log", line)
    assert sorted((r["parameters"]["n"], r["status"]) for r in all_records(tmp_path)) == [
        (1, "ok"),
        (2, "failed"),
        (3, "ok"),
    ]
    code, stdout, _ = call(tmp_path, "--grid", "n=1,3")
    assert (code, "2 done (2 of them before)" in stdout) == (0, True)
    assert [len(kernels(tmp_path, n)) for n in (1, 2, 3)] == [1, 1, 1]


def test_killed_workers_and_a_killed_sweep_lose_nothing_and_repeat_nothing(tmp_path):
    project(tmp_path, NOTE)
    words = ["--grid", "n=1,3", "--workers", "1"]
    (tmp_path / "notebooks/slow").touch()
    process = start(tmp_path, *words)
    try:
        worker, kernel, _ = until(lambda: kernels(tmp_path, 1))[0]
        os.kill(worker, signal.SIGKILL)
        second, other, _ = until(lambda: kernels(tmp_path, 1)[1:])[0]  # a new worker does it again
        assert second != worker
        until(lambda: not alive(kernel))  # and the kernel of the old one is gone
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: not alive(other) and not alive(second))
    finally:
        process.kill()
        process.communicate()
    found = [(r["status"], r["error"]["message"][:6]) for r in records.every(tmp_path).values()]
    assert found == [("failed", "killed")] * 2
    (tmp_path / "notebooks/slow").unlink()
    code, stdout, stderr = call(tmp_path, *words)
    assert (code, stderr) == (0, "")
    assert "2 done (0 of them before)" in stdout
    made = list(records.every(tmp_path).values())
    assert sorted(r["parameters"]["n"] for r in made if r["status"] == "ok") == [1, 3]
    lost = [r["error"]["message"][:6] for r in made if r["status"] != "ok"]
    assert lost == ["killed", "killed"]
    assert [len(kernels(tmp_path, n)) for n in (1, 3)] == [3, 1]


def test_two_processes_that_know_nothing_of_each_other_make_one_run(tmp_path):
    """The claim alone, as two clusters over one folder would use it."""
    path = project(tmp_path, NOTE.replace("time.sleep(60)", "time.sleep(2)"))
    (tmp_path / "notebooks/slow").touch()
    (point,) = sweep.plan(path, "quick", {}, [("n", "1")])
    code = f"""from pathlib import Path, PosixPath
from paperlab.sweep import Point, do
print(do({tmp_path!r}, "101_small", "quick", {point!r}, {digest.notebook(path)!r}))"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(2)]
    ends = [process.communicate(timeout=120) for process in both]
    assert len(kernels(tmp_path, 1)) == 1
    assert ends[0] == ends[1]
    assert (tmp_path / "data/runs" / ends[0][0].strip() / "record.json").is_file()
    with pytest.raises(runs.BadInput, match="the code has changed since the sweep started"):
        sweep.do(tmp_path, "101_small", "quick", sweep.Point({"n": 2}, "0" * 12), "0" * 16)


def test_two_sweeps_on_a_cluster_of_ones_own_share_the_work_and_its_gpus(tmp_path, monkeypatch):
    """By --scheduler, on workers that claim two GPUs (as if there were any), one a run.

    Each run is made once, though both sweeps ask for it at the same time.
    """
    import torch

    project(tmp_path, NOTE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,7")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(runs.BadInput, match="--workers 3: a run takes a GPU, and there are 2"):
        sweep._local(3, 9)
    with sweep._local(None, 9) as cluster:
        words = ["--grid", "n=1,3", "--scheduler", cluster.scheduler_address]
        both = [start(tmp_path, *words) for _ in range(2)]
        ends = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert all("2 done" in stdout for stdout, _ in ends)
    ((*_, first),), ((*_, second),) = (kernels(tmp_path, n) for n in (1, 3))
    assert {first, second} <= {3, 7}


def test_a_scheduler_that_is_not_there_is_one_line(tmp_path):
    project(tmp_path, NOTE)
    code, _, stderr = call(tmp_path, "--grid", "n=1", "--scheduler", "tcp://127.0.0.1:1")
    assert code == 1
    assert stderr.startswith("paperlab: ")
    assert len(stderr.splitlines()) == 1
    code, _, stderr = call(tmp_path, "--grid", "n=1", "--scheduler", "x", "--workers", "2")
    assert (code, len(stderr.splitlines())) == (2, 1)


def test_time_left_counts_rounds_of_the_workers():
    points = [sweep.Point({}, str(k)) for k in range(6)]
    progress = sweep.Progress(points, done={"0": Path(), "1": Path()}, workers=3)
    assert progress.left() is None
    progress.seconds = [10.0, 20.0]
    assert progress.left() == 30.0  # four runs on three workers: two rounds of 15 s


def test_the_front_door_does_not_load_dask():
    code = (
        "import sys, paperlab.cli; print([m for m in ('dask', 'distributed') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
