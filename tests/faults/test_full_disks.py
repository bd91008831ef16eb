"""A disk that fills during a run: one line, no record that says more than is there, the next run works."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from helpers.project import project
from paperlab import cli, plots, recording, records

FULL = OSError(errno.ENOSPC, "No space left on device")
NAMESPACE = ["unshare", "--map-root-user", "--mount"]
# A disk of 256 KB under data/runs, for this script and its children only. The notebook prints more
# than what is left of it; the second run finds the room that the first did not.
SCRIPT = """
import json, pathlib, subprocess, sys
place = pathlib.Path("data/runs")
place.mkdir(parents=True)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)], check=True)
(place / "filler").write_bytes(bytes(160 << 10))
command = [sys.executable, "-c", "from paperlab.cli import main; main()", "run", "small"]
for _ in range(2):
    done = subprocess.run(command, capture_output=True, text=True)
    every = [json.loads(p.read_text()) for p in sorted(place.glob("*/record.json"))]
    files = sorted(p.name for p in place.glob("*/*"))
    print(json.dumps([done.returncode, done.stderr, [r["status"] for r in every], files]))
    (place / "filler").unlink(missing_ok=True)
"""


def test_a_disk_that_is_full_when_the_notebook_is_saved(tmp_path):
    try:
        subprocess.run([*NAMESPACE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk of its own for a test here: no user namespaces")
    project(tmp_path, "print('x' * 120_000)")
    command = [*NAMESPACE, sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (code, stderr, states, files), again = map(json.loads, done.stdout.splitlines())
    assert code == 1
    assert "Traceback" not in stderr
    told = stderr.strip().splitlines()[-1]
    assert told.startswith(
        "paperlab: 101_small failed: OSError: [Errno 28] No space left on device"
    )
    assert states == ["failed"]
    assert files == ["record.json"]
    assert again[0] == 0, again[1]
    assert again[2] == ["failed", "ok"]


@pytest.fixture
def small(tmp_path, monkeypatch, capsys):
    """small() runs `paperlab run small` here, with a papermill that only copies the notebook."""
    book = project(tmp_path)

    def execute(source, executed, *_, **__):
        Path(executed).write_text(nbformat.writes(source))

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    monkeypatch.setattr(plots, "browser", lambda: None)  # it would take seconds to draw nothing
    monkeypatch.setattr(sys, "argv", ["paperlab", "run", book.stem])
    monkeypatch.chdir(tmp_path)

    def call() -> tuple[int, list[str], list[dict]]:
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0  # sys.exit(None) is success
        found = sorted((tmp_path / "data/runs").glob("*/record.json"))
        return (
            code,
            capsys.readouterr().err.splitlines(),
            [json.loads(p.read_text()) for p in found],
        )

    return call


def works(small) -> None:
    code, lines, found = small()
    assert (code, lines, found[-1]["status"]) == (0, [], "ok")


def test_half_a_notebook_is_no_traceback_and_gives_its_room_to_the_record(small, monkeypatch):
    whole = papermill.execute_notebook

    def halved(source, executed, *_, **__):
        Path(executed).write_text(nbformat.writes(source)[:200])
        raise FULL

    monkeypatch.setattr(papermill, "execute_notebook", halved)
    code, lines, (record,) = small()
    assert code == 1
    assert lines == ["paperlab: 101_small failed: OSError: [Errno 28] No space left on device"]
    assert record["status"] == "failed"
    assert record["error"]["message"] == "OSError: [Errno 28] No space left on device"
    assert not list(Path("data/runs").glob("*/*.ipynb"))
    monkeypatch.setattr(papermill, "execute_notebook", whole)
    works(small)


@pytest.mark.parametrize("which", [1, 2])
def test_a_record_that_cannot_be_written_leaves_the_one_before(small, monkeypatch, which):
    """The first record says that the run began, the second how it ended."""
    written, replace = [], recording.replace

    def full(path, text):
        written.append(path)
        if len(written) == which:
            raise FULL
        replace(path, text)

    monkeypatch.setattr(recording, "replace", full)
    code, lines, found = small()
    assert (code, lines) == (1, ["paperlab: [Errno 28] No space left on device"])
    assert [r["status"] for r in found] == ["running"] * (which - 1)
    monkeypatch.setattr(recording, "replace", replace)
    works(small)


def test_figures_that_cannot_be_written_lose_no_result(small, monkeypatch):
    def full(*_):
        raise FULL

    with monkeypatch.context() as changed:
        changed.setattr(plots, "attach_pictures", full)
        code, lines, (record,) = small()
    assert code == 1
    (line,) = lines
    assert line.startswith("paperlab: 101_small: the run is recorded, but its figures could not be")
    assert (record["status"], record["figures"]) == ("ok", [])
    works(small)


def test_what_cannot_be_kept_is_one_line(small, monkeypatch):
    """`paperlab keep` on a full disk: data/reference has the old record or none."""
    small()
    (folder,) = Path("data/runs").iterdir()
    monkeypatch.setattr(sys, "argv", ["paperlab", "keep", str(folder)])
    changed = records.read(folder / "record.json") | {"code": {"dirty": False}}
    records.write(folder / "record.json", changed)

    def full(_):
        raise FULL

    monkeypatch.setattr(recording.os, "fsync", full)
    code, lines, _ = small()
    assert (code, lines) == (1, ["paperlab: [Errno 28] No space left on device"])
    assert not list(Path("data/reference").iterdir())
