"""Records are whole or absent, and anything else is passed over with a line."""

import fcntl
import json
import math
import subprocess
import sys

import polars as pl
import pytest
from paperlab import records


def test_values_become_plain_json():
    record = records.Record("101_x", 2, "cpu")
    record["table"] = pl.DataFrame({"a": [1, 2], "b": [math.nan, 0.5]})
    record["number"] = math.inf
    assert record["table"] == [{"a": 1, "b": None}, {"a": 2, "b": 0.5}]
    assert record["number"] is None
    json.dumps(record.metrics)


def test_a_notebook_opened_by_hand_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.delenv(records.RUN_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    records.Record("101_x", 2, "cpu").save()
    assert list(tmp_path.iterdir()) == []


def test_the_notebooks_part_joins_the_runs(tmp_path, monkeypatch):
    monkeypatch.setenv(records.RUN_VARIABLE, str(tmp_path))
    records.write(tmp_path / "record.json", {"notebook": "101_x", "status": "running"})
    record = records.Record("101_x", 2, "cpu")
    record["auc"] = 0.5
    record.save()
    found = json.loads((tmp_path / "record.json").read_text())
    assert found["status"] == "running"
    assert found["metrics"] == {"auc": 0.5}
    assert found["peak_memory_mb"] > 10


def test_a_write_that_fails_leaves_the_old_record(tmp_path):
    path = tmp_path / "record.json"
    records.write(path, {"a": 1})
    with pytest.raises(TypeError):
        records.write(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


def test_read_all_passes_over_what_is_not_a_record(tmp_path):
    good = {"notebook": "101_x", "status": "ok", "parameters": {"a": 1}, "started": "2026"}
    for name, text in (("a", json.dumps(good)), ("b", '{"notebook": "10'), ("c", "[1]")):
        (tmp_path / "data/runs" / name).mkdir(parents=True)
        (tmp_path / "data/runs" / name / "record.json").write_text(text)
    with pytest.warns(UserWarning, match="passed over"):
        frame = records.read_all(tmp_path)
    assert frame["run"].to_list() == ["a"]
    assert json.loads(frame["parameters"][0]) == {"a": 1}


def test_only_clean_successful_runs_are_kept(tmp_path):
    base = {"notebook": "101_x", "profile": "full", "parameters": {}, "status": "ok"}
    for change, message in (
        ({"status": "failed", "code": {"dirty": False}}, "no record of a successful run"),
        ({"code": {"dirty": True}}, "not committed"),
        ({"code": {"dirty": False}, "overrides": {"n": "1"}}, "--set changed n"),
    ):
        records.write(tmp_path / "run/record.json", base | change)
        with pytest.raises(ValueError, match=message):
            records.keep(tmp_path / "run", tmp_path)
    records.write(tmp_path / "run/record.json", base | {"code": {"dirty": False}})
    assert records.keep(tmp_path / "run", tmp_path).name == "101_x_full.json"
    assert records.reference("101_x", "full", tmp_path)["profile"] == "full"


def test_the_fingerprint_ignores_order_and_sees_values():
    one = records.fingerprint({"a": 1, "b": [1, 2]})
    assert one == records.fingerprint({"b": [1, 2], "a": 1})
    assert one != records.fingerprint({"a": 1, "b": [2, 1]})


@pytest.mark.parametrize(
    "foreign",
    [3, None, [{}], {"status": "ok"}, {"code": "x"}, {"error": "x"}, {"seconds": "soon"}],
)
def test_foreign_json_is_passed_over(tmp_path, foreign):
    good = {"notebook": "101_x", "status": "ok", "parameters": {}}
    if isinstance(foreign, dict) and "status" not in foreign:
        foreign = good | foreign
    records.write(tmp_path / "data/runs/a/record.json", foreign)
    records.write(tmp_path / "data/runs/b/record.json", good | {"seconds": 2})
    with pytest.warns(UserWarning, match="passed over: not a record"):
        frame = records.read_all(tmp_path)
    assert frame["run"].to_list() == ["b"]
    assert frame["seconds"].to_list() == [2.0]


def test_no_run_at_all_is_an_empty_table_with_the_same_columns(tmp_path):
    frame = records.read_all(tmp_path)
    assert frame.height == 0
    assert frame.filter(pl.col("notebook") == "101_x").columns == list(records.COLUMNS)


def test_what_json_cannot_hold_is_refused_when_it_is_stored():
    record = records.Record("101_x", 2, "cpu")
    with pytest.raises(TypeError, match=r"record\['seen'\]: .*set"):
        record["seen"] = {1, 2}
    assert record.metrics == {}


def test_peak_memory_is_this_processes_own_and_never_falls():
    """A child's peak does not begin at its parent's; 200 MB more are seen, and stay after they go."""
    code = "import sys; from paperlab.records import peak_memory_mb as p; a = p(); x = b'1' * (200 << 20); b = p(); del x; print(a, b, p())"
    ballast = b"1" * (600 << 20)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    del ballast
    before, during, after = map(float, done.stdout.split())
    assert before < 500
    assert 190 < during - before < 260 and after > during - 5


RUNNING = {"notebook": "101_x", "status": "running", "parameters": {}}


def test_a_run_that_holds_its_folder_is_running_and_one_that_does_not_was_killed(tmp_path):
    path = tmp_path / "data/runs/a/record.json"
    records.write(path, RUNNING)
    with records.held(path.parent):
        assert records.every(tmp_path)["a"]["status"] == "running"
    assert records.every(tmp_path)["a"]["status"] == "failed"
    (path.parent / ".running").touch()  # left by a process that was killed
    with (path.parent / ".running").open() as other_reader:
        fcntl.flock(other_reader, fcntl.LOCK_SH)
        found = records.every(tmp_path)["a"]
    assert (found["status"], found["error"]["message"][:6]) == ("failed", "killed")


def test_a_run_that_ends_while_records_are_read_was_not_killed(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    records.write(path, RUNNING)

    def is_held(folder):  # as seen just after the end
        records.write(path, RUNNING | {"status": "ok"})
        return False

    monkeypatch.setattr(records, "_is_held", is_held)
    assert records.told(path)["status"] == "ok"
