"""Records are whole or absent, and any other file is skipped with one line."""

import json
import math
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from paperlab import digest, records, verdict


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
    with pytest.warns(UserWarning, match="is skipped"):
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


def test_a_key_sees_the_content_of_own_sets_that_parameters_name(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERLAB_LOCAL", str(tmp_path))

    def keys():
        asked = ({"data": "own"}, {"real": ["frappe", "own/part"]}, {"data": "frappe"}, {"n": 1})
        return [records.key("101_ssr", "c0de", parameters) for parameters in asked]

    def make(content):
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own/notes.json").write_text(json.dumps({"sha256": content}))
        return keys()

    none, first, again, other = keys(), make("1"), make("1"), make("2")
    assert first == again
    assert none[2:] == first[2:] == other[2:]
    for k in (0, 1):
        assert len({none[k], first[k], other[k]}) == 3
    assert digest.own_sets({"real": ["frappe", "own/part"], "n": 1}) == {"own": "2"}


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
    with pytest.warns(UserWarning, match="skipped: not a record"):
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
    code = "import sys; from paperlab.machine import peak_memory_mb as p; a = p(); x = b'1' * (200 << 20); b = p(); del x; print(a, b, p())"
    ballast = b"1" * (600 << 20)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    del ballast
    before, during, after = map(float, done.stdout.split())
    assert before < 500
    assert 190 < during - before < 260 and after > during - 5


RUNNING = {"notebook": "101_x", "status": "running", "parameters": {}}


def test_a_run_that_locks_its_folder_is_running_and_one_that_does_not_was_killed(tmp_path):
    path = tmp_path / "data/runs/a/record.json"
    records.write(path, RUNNING)
    with records.running(path.parent):
        assert records.every(tmp_path)["a"]["status"] == "running"
    assert records.every(tmp_path)["a"]["status"] == "failed"
    (path.parent / ".running").touch()  # left by a process that was killed
    read = records.every(tmp_path)["a"]
    assert (read["status"], read["error"]["message"][:6]) == ("failed", "killed")


def test_the_system_releases_the_lock_of_a_killed_process(tmp_path):
    path = tmp_path / "data/runs/a/record.json"
    records.write(path, RUNNING)
    code = f"""
import pathlib, sys, time
from paperlab import records
with records.running(pathlib.Path({str(path.parent)!r})):
    print("locked", flush=True)
    time.sleep(300)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert records.every(tmp_path)["a"]["status"] == "running"
        child.kill()
    assert (path.parent / ".running").exists()
    assert records.every(tmp_path)["a"]["status"] == "failed"


def test_a_run_that_ends_while_records_are_read_was_not_killed(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    records.write(path, RUNNING)

    def is_held(folder):  # as seen just after the end
        records.write(path, RUNNING | {"status": "ok"})
        return False

    monkeypatch.setattr(records, "_is_running", is_held)
    assert records.read_final(path)["status"] == "ok"


ROWS = [
    {"model": m, "noise": n, "seed": s, "auc": 0.6 + 0.1 * (m == "A") + 0.01 * s, "logloss": 0.5}
    for m in "AB"
    for n in (0, 30)
    for s in range(3)
]


def test_a_table_declares_its_roles():
    record = records.Record("101_x", 2, "cpu")
    record.table("main", pl.DataFrame(ROWS), where=["noise"], metric=["auc", "logloss"], better=["higher", "lower"])  # fmt: skip
    assert record["main"] == ROWS
    roles = {"group": "model", "where": ["noise"], "pair": "seed", "metric": "auc"}
    roles |= {"better": "higher", "metrics": {"auc": "higher", "logloss": "lower"}}
    assert record.tables == {"main": roles}
    claim = verdict.claim(record, "lower", "main", "A", "B", delta=0.01, metric="logloss", where={"noise": 0})  # fmt: skip
    assert claim.better == "lower"


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({}, "two rows with model=A, seed=0; name what tells them apart in where"),
        ({"where": "noise", "metric": "ndcg"}, "a row has no ndcg; it has model, noise, seed, auc"),
        ({"where": "noise", "group": "agent"}, "a row has no agent"),
        ({"where": "noise", "better": "up"}, "better takes higher or lower"),
        ({"where": "noise", "metric": ["auc", "logloss"], "better": ["higher"]}, "one each"),
        ({"where": "noise", "metric": []}, "better takes"),
    ],
)
def test_roles_that_do_not_fit_are_refused(roles, message):
    record = records.Record("101_x", 2, "cpu")
    with pytest.raises(ValueError, match=message):
        record.table("main", ROWS, **roles)
    assert record.tables == {}


def claimed(tmp_path, monkeypatch) -> dict:
    """A run's record with a claim on a table and one on per-unit scores."""
    monkeypatch.setenv(records.RUN_VARIABLE, str(tmp_path / "run"))
    record = records.Record("101_x", 2, "cpu")
    draw = np.random.default_rng(0)
    record.table("main", [r for r in ROWS if r["noise"] == 0])
    labels = draw.random(400) < 0.5
    values = {(m, s): draw.normal(size=400) + (m == "A") * labels for m in "AB" for s in range(3)}
    record.scores("real log", values, labels=labels)
    claims = [
        verdict.claim(record, "A beats B", "main", "A", "B", delta=0.01),
        verdict.claim(record, "A ranks real rows better", "real log", "A", "B", kind="auc", delta=0.01, better="higher"),
    ]  # fmt: skip
    record.verdicts = [j.stored() for j in verdict.judge(claims)]
    base = {"notebook": "101_x", "profile": "full", "parameters": {"seeds": [0, 1, 2]}}
    base |= {"status": "ok", "code": {"dirty": False, "commit": "a" * 40}, "seconds": 120.0}
    records.write(tmp_path / "run/record.json", base | {"machine": "m", "started": "2026-11-01T00"})
    record.save()
    return json.loads((tmp_path / "run/record.json").read_text())


def test_a_kept_record_gives_the_same_outcomes_from_its_tables_and_scores(tmp_path, monkeypatch):
    made = claimed(tmp_path, monkeypatch)
    old = tmp_path / "data/reference/101_x_full.gone.parquet"
    old.parent.mkdir(parents=True)
    old.touch()  # per-unit values of the record that is replaced
    kept = records.keep(tmp_path / "run", tmp_path)
    names = sorted(p.name for p in kept.parent.iterdir())
    assert names == ["101_x_full.json", "101_x_full.real_log.parquet"]
    again = verdict.rejudge(json.loads(kept.read_text()), kept.parent)
    assert [j.outcome for j in again] == [v["outcome"] for v in made["verdicts"]]
    assert [j.evidence for j in again] == [v["evidence"] for v in made["verdicts"]]
    assert again[1].outcome == "supported"


def test_a_reference_is_shown_with_its_provenance(tmp_path, monkeypatch, capsys):
    claimed(tmp_path, monkeypatch)
    monkeypatch.setattr(records, "project_root", lambda: tmp_path)
    assert records.show_reference("101_x") is None
    assert capsys.readouterr().out == "not recorded yet: paperlab run x --profile full --keep\n"
    records.keep(tmp_path / "run", tmp_path)
    record = records.show_reference(records.Record("101_x", 1, "cpu"))
    assert record["notebook"] == "101_x"
    told = "recorded, profile full: 3 seeds, 2 min on m, 2026-11-01, commit aaaaaaa\n"
    assert capsys.readouterr().out == told
    records.show_claims(record)
    assert "DisplayObject" in (out := capsys.readouterr().out) or "Markdown" in out
    records.show_claims(None)
    records.show_claims(record | {"verdicts": [{"text": "old", "outcome": "partly"}]})
    assert capsys.readouterr().out == "'old' was recorded before the engine\n"
