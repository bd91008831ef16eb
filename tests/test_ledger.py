"""Bands, comparisons and outcomes over records: worked by hand, simulated, and refused where undeclared."""

import copy
import json
import math
import random
import subprocess
from pathlib import Path

import polars as pl
import pytest
from helpers.manifests import write_manifest
from helpers.many import many, notebook, recorded, write_record
from helpers.project import paperlab
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import digest, ledger, metrics, records, runs, verdict
from paperlab.digest import library as files_of_the_library

ROOT = records.project_root(Path(__file__))


def record(rows: list[dict], where: list[str] | None = None, **more) -> dict:
    part = records.Record("101_x", 1, "cpu")
    part.table("main", rows, where=where or [])
    base = {"notebook": "101_x", "profile": "full", "status": "ok", "verdicts": []}
    base |= {"metrics": part.metrics, "tables": part.tables}
    return base | {"parameters": {"seeds": sorted({r["seed"] for r in rows})}} | more


def rows(values: dict[str, list[float]], first: int = 0, **more) -> list[dict]:
    return [
        {"model": m, "seed": first + s, "auc": v} | more
        for m, vs in values.items()
        for s, v in enumerate(vs)
    ]


OLD = {"notebook": "101_x", "profile": "full", "status": "ok", "parameters": {}, "tables": {}}
OLD |= {"metrics": {"main": rows({"A": [0.7, 0.8]})}, "verdicts": [{"text": "t", "outcome": "partly"}]}  # fmt: skip


def test_cells_are_the_declared_metrics_by_group_and_condition():
    part = records.Record("101_x", 1, "cpu")
    some = [r | {"world": w, "loss": None, "seconds": 1.5} for w in "xy" for r in rows({"A": [0.7, 0.8]})]  # fmt: skip
    part.table("main", some, where=["world"], metric=["auc", "loss"], better=["higher", "lower"])
    part["curve"] = [{"seed": 0, "auc": 0.5}]  # no roles: never read
    found = ledger.cells([{"metrics": part.metrics, "tables": part.tables}])
    keys = [(f"model=A, world={w}", m) for w in "xy" for m in ("auc", "loss")]
    assert list(found) == [("main", *key) for key in keys]
    assert found["main", "model=A, world=x", "auc"] == {0: 0.7, 1: 0.8}
    assert all(math.isnan(v) for v in found["main", "model=A, world=x", "loss"].values())


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(0, 3)), st.floats(0, 1), min_size=1))  # fmt: skip
def test_cells_hold_every_value_once(drawn):
    some = [{"model": m, "world": w, "seed": s, "auc": v} for (m, w, s), v in drawn.items()]
    found = ledger.cells([record(some, ["world"])])
    assert sorted(v for values in found.values() for v in values.values()) == sorted(drawn.values())
    for (m, w, s), value in drawn.items():
        assert found["main", f"model={m}, world={w}", "auc"][s] == value


def test_a_record_without_roles_is_refused_and_not_guessed():
    for call in (lambda: ledger.check(OLD, OLD), lambda: ledger.compare([OLD], [OLD])):
        with pytest.raises(runs.BadInput, match="101_x was recorded before the engine: run it"):
            call()
    assert (ledger.leaders(OLD), ledger.outcomes(OLD)) == ([], {})


def test_a_band_by_hand():
    """1..5: mean 3, s = sqrt(5/2), t(4) = 2.7764 at 95 %; five new seeds: half = t s sqrt(2/5)."""
    low, high = ledger.band([1.0, 2.0, 3.0, 4.0, 5.0], 5, 0.95)
    assert (low, high) == pytest.approx((3 - 2.7764, 3 + 2.7764), abs=1e-4)
    one = ledger.band([1.0, 2.0, 3.0, 4.0, 5.0], 1, 0.95)
    assert one[1] - 3 == pytest.approx(2.7764 * math.sqrt(2.5 * 1.2), abs=1e-3)
    assert ledger.band([2.0] * 5, 5, 0.95) == pytest.approx((2 - 2e-6, 2 + 2e-6), abs=1e-12)


def test_a_faithful_rerun_rarely_falls_out_and_a_changed_one_does():
    """400 simulated checks of 12 independent bands: the share with a false alarm is near 5 %."""
    draw = random.Random(1)

    def run(shift: float = 0.0) -> dict:
        models = {f"m{k}": [draw.gauss(k + shift, 1) for _ in range(5)] for k in range(12)}
        return record(rows(models))

    def alarm(table: pl.DataFrame) -> bool:
        return "no" in table["inside?"].to_list()

    false = sum(alarm(ledger.check(run(), run())) for _ in range(400))
    assert 6 <= false <= 34  # 20 expected, ± 3.2 standard deviations
    assert sum(alarm(ledger.check(run(), run(shift=8))) for _ in range(20)) == 20


def test_what_a_new_run_lacks_is_missing_and_few_seeds_give_no_band():
    old = record(rows({"A": [0.7, 0.71, 0.72, 0.7, 0.71], "B": [0.6, 0.61, 0.62, 0.6, 0.61]}))
    new = record(rows({"A": [0.705, 0.71]}))
    table = ledger.check(old, new)
    assert table.select("rows", "seeds", "inside?").rows() == [("model=A", 2, "yes"), ("model=B", 0, "missing")]  # fmt: skip
    assert ledger.check(old, OLD)["inside?"].to_list() == ["missing"] * 2
    assert ledger.check(new, old).height == 0


def test_trivial_predictors_fall_outside_every_band_of_trained_models():
    """A constant's AUC is 1/2; shuffled labels have it up to noise."""
    import torch

    kept = record(records.reference("120_scaling", "full", ROOT)["metrics"]["scaling"], ["scale"])
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(8000, generator=generator) < 0.1).float()
    for kind in ("constant", "shuffled"):
        fake = copy.deepcopy(kept)
        for row in fake["metrics"]["main"]:
            score = torch.rand(8000, generator=generator) * (kind == "shuffled")
            row["auc"] = metrics.auc(score, labels)
        table = ledger.check(kept, fake)
        assert table.height >= 20
        assert set(table["inside?"]) == {"no"}
    assert set(ledger.check(kept, kept)["inside?"]) == {"yes"}


def test_a_comparison_is_paired_and_by_hand():
    """a - b is 2, 4 and 6 hundredths: mean 4, s 2, t(2) = 4.3027, half = 4.3027 * 2 / sqrt(3)."""
    a = record(rows({"A": [0.52, 0.74, 0.96]}, log="x"), ["log"])
    b = record(rows({"A": [0.50, 0.70, 0.90], "B": [0.1, 0.2, 0.3]}, log="y"), ["log"])
    (line,) = ledger.compare([a], [b]).rows(named=True)  # B is in b alone; the log is what differs
    assert (line["rows"], line["a - b"], line["seeds"], line["apart?"]) == ("model=A", pytest.approx(0.04), 3, "no")  # fmt: skip
    assert line["high"] - line["a - b"] == pytest.approx(0.04968, abs=1e-5)
    (line,) = ledger.compare([a], [record(rows({"A": [0.1, 0.31, 0.5]}, log="x"), ["log"])]).rows(named=True)  # fmt: skip
    assert (line["rows"], line["apart?"]) == ("", "a above")


def test_many_comparisons_hold_together():
    """Two runs of one truth, 20 means each: at most about 5 % of pairs of runs show any difference."""
    draw = random.Random(2)

    def run() -> dict:
        return record(rows({f"m{k}": [draw.gauss(k, 1) for _ in range(5)] for k in range(20)}))

    apart = sum(set(ledger.compare([run()], [run()])["apart?"]) != {"no"} for _ in range(300))
    assert apart <= 27  # 15 expected, + 3.2 standard deviations


def test_swapping_the_runs_mirrors_the_comparison():
    draw = random.Random(3)
    one, two = (record(rows({m: [draw.gauss(k, 0.5) for _ in range(4)] for k, m in enumerate("ABC")})) for _ in range(2))  # fmt: skip
    ahead, back = ledger.compare([one], [two]), ledger.compare([two], [one])
    assert ahead["a - b"].to_list() == pytest.approx((-back["a - b"]).to_list())
    assert ahead["low"].to_list() == pytest.approx((-back["high"]).to_list())


def test_sets_of_runs_of_one_seed_each_are_pooled_and_a_seed_twice_is_refused():
    a = [record(rows({"A": [0.5 + s / 10 + s * s / 1000]}, first=s)) for s in range(4)]
    b = [record(rows({"A": [0.4 + s / 10]}, first=s)) for s in range(4)]
    (line,) = ledger.compare(a, b).rows(named=True)
    assert (line["a - b"], line["seeds"], line["apart?"]) == (pytest.approx(0.1035), 4, "a above")
    with pytest.raises(ValueError, match="two rows"):
        ledger.compare([*a, a[0]], b)
    other = record(rows({"Z": [0.1, 0.2], "Y": [0.1, 0.2]}))
    with pytest.raises(runs.BadInput, match="share no rows"):
        ledger.compare([record(rows({"A": [0.1, 0.2], "B": [0.1, 0.2]}))], [other])


def test_leaders_follow_the_declared_direction_only():
    values = {"A": [0.70, 0.72, 0.71, 0.73], "B": [0.60, 0.61, 0.62, 0.61], "C": [0.70, 0.71, 0.73, 0.73]}  # fmt: skip
    table = [r | {"regret": 1 - r["auc"], "spectrum": -r["auc"]} for r in rows(values)]
    (line,) = ledger.leaders(record(table))
    assert (line["best"], line["metric"]) == ("C, A", "auc")
    part = records.Record("101_x", 1, "cpu")
    part.table("main", table, metric="regret", better="lower")
    part["others"] = table  # undeclared: nobody leads
    (line,) = ledger.leaders({"metrics": part.metrics, "tables": part.tables})
    assert (line["best"], line["mean"]) == ("C, A", pytest.approx(1 - 0.7175))
    by_world = [r | {"world": w} for w in "xy" for r in table]
    assert [x["rows"] for x in ledger.leaders(record(by_world, ["world"]))] == ["world=x", "world=y"]  # fmt: skip


def test_outcomes_come_from_tables_and_never_from_stored_words(tmp_path):
    notebook(tmp_path, "101_x", "claims = ['B is better', 'B is as good']")
    made = recorded("101_x", {"B is better": 0.05, "B is as good": 0.0})
    for kept in made["verdicts"]:
        kept["outcome"] = "contradicted"  # a word that somebody wrote
    table = ledger.claims(tmp_path, [made])
    assert dict(zip(table["claim"], table["outcome"], strict=True))["B is better"] == "supported"
    assert table["main"].to_list() == [True, False]
    assert table["seeds"].to_list() == [10, 10]
    judged = verdict.rejudge(made)
    assert table["outcome"].to_list() == [j.outcome for j in judged]


def test_a_withdrawn_claim_is_withdrawn_everywhere(tmp_path):
    """Claims that the notebook still makes: as a string, as an f-string; the third is gone."""
    texts = {"B is better": 0.05, "B is better at 30 noise fields": 0.05, "B is cheaper": 0.05}
    made = recorded("101_x", texts)
    notebook(tmp_path, "101_x", "n = 30\nx = 'B is ' 'better'\ny = f'B is better at {n} noise fields'\nz = f'{x}'  # 'B is cheaper'")  # fmt: skip
    assert ledger.claims(tmp_path, [made])["claim"].to_list() == list(texts)[:2]
    notebook(tmp_path, "101_x", "x = 'B is better at 30 noise fields'")
    table = ledger.claims(tmp_path, [made])
    assert table["claim"].to_list() == list(texts)[1:2]
    assert table["main"].to_list() == [False]  # the main claim is the withdrawn one
    assert ledger.summary(table).height == 0


def test_old_records_are_listed_and_not_judged(tmp_path):
    notebook(tmp_path, "101_x", "claims = ['t']")
    table = ledger.claims(tmp_path, [OLD])
    assert table["outcome"].to_list() == ["recorded before the engine"]
    assert ledger.summary(table).rows() == [("recorded before the engine", 1, "101")]


def test_the_summary_counts_papers_by_their_main_claim(tmp_path):
    notebook(tmp_path, "101_x", "t = ['good', 'other']")
    notebook(tmp_path, "102_y", "t = ['good']")
    notebook(tmp_path, "201_z", "t = ['bad']")
    notebook(tmp_path, "301_w", "t = ['unclear']")
    made = [
        recorded("101_x", {"good": 0.05, "other": -0.05}),
        recorded("102_y", {"good": 0.05}),
        recorded("201_z", {"bad": -0.05}),
        recorded("301_w", {"unclear": 0.004}, seeds=4),
    ]
    table = ledger.claims(tmp_path, made)
    needed = table["needed"][-1]
    assert needed > 4
    assert ledger.summary(table).rows() == [
        ("supported", 2, "101, 102"),
        ("contradicted", 1, "201"),
        ("unresolved", 1, f"301 ({needed} seeds)"),
    ]


def test_committed_records_are_those_of_notebooks_that_exist(tmp_path):
    notebook(tmp_path, "101_x")
    for stem, profile in (("101_x", "full"), ("101_x", "recipe"), ("102_gone", "full")):
        write_record(tmp_path, recorded(stem, {"t": 0.0}, profile=profile))
    assert [(r["notebook"], r["profile"]) for r in ledger.committed(tmp_path)] == [("101_x", "full")]  # fmt: skip


def test_no_record_at_all_gives_empty_tables(tmp_path):
    (tmp_path / "notebooks").mkdir()
    table = ledger.claims(tmp_path, [])
    assert (table.height, ledger.summary(table).height) == (0, 0)
    assert ledger.freshness(tmp_path).height == 0
    assert {"outcome", "needed", "main"} < set(table.columns)


def test_freshness_sees_edits_of_notebook_and_of_reached_code(tmp_path, monkeypatch):
    path = notebook(tmp_path, "101_small", "from paperlab import metrics")
    assert ledger.freshness(tmp_path)["code"].to_list() == ["not stamped"]
    book = json.loads(path.read_text())
    book["metadata"]["paperlab"] = {"code": digest.notebook(path)}
    path.write_text(json.dumps(book))
    kept = records.begin("101_small", "full", runs.settle(path, "full"), tmp_path)
    records.write(tmp_path / "data/reference/101_small_full.json", kept)
    assert ledger.freshness(tmp_path).rows() == [
        ("101_small", "outputs", "today's"),
        ("101_small", "101_small_full", "today's"),
    ]
    library = files_of_the_library()
    for name, state in (("sweep.py", "today's"), ("metrics.py", "older")):
        edited = library | {name: library[name] + b"\nx = 1"}
        monkeypatch.setattr(digest, "library", lambda edited=edited: edited)
        assert ledger.freshness(tmp_path)["code"].to_list() == [state, state]


def test_costs_name_the_leader_and_the_code(tmp_path):
    notebook(tmp_path, "101_x", "t = 'one'")
    made = recorded("101_x", {"one": 0.05})
    write_record(tmp_path, made)
    (line,) = ledger.costs(tmp_path, [made]).rows(named=True)
    assert (line["record"], line["minutes"], line["peak GB"]) == ("101_x_full", 10.0, 0.9)
    assert line["best"].startswith("B (auc 0.7") and line["code"] == "older"


def test_freshness_of_ninety_notebooks_parses_each_file_once(tmp_path, monkeypatch):
    """Counted work: no file of the library is parsed twice, and git is asked by commit."""
    stems = [f"{1 + i % 8}{i // 8:02d}_paper_{i}" for i in range(90)]
    for i, stem in enumerate(stems):
        notebook(tmp_path, stem, f"from paperlab.ctr import ssr\nx = {i}")
        kept = {"notebook": stem, "profile": "full", "status": "ok", "parameters": {}}
        kept["code"] = {"digest": "other", "commit": "0" * 40, "dirty": False}
        write_record(tmp_path, kept)
    parsed, asked = [], []
    parse, git = digest.ast.parse, digest._git
    monkeypatch.setattr(digest.ast, "parse", lambda source: parsed.append(source) or parse(source))
    monkeypatch.setattr(digest, "_git", lambda *words, **more: asked.append(words) or git(*words, **more))  # fmt: skip
    digest.parse.cache_clear()
    assert ledger.freshness(tmp_path).height == 180
    assert len(parsed) == len(set(parsed)) <= 90 + len(files_of_the_library())
    assert len(asked) <= 90  # one look for each notebook's old cells


CODE = """
from paperlab import records, verdict
record = records.Record("101_small", 1, "cpu")
rows = [{"model": m, "seed": s, "auc": 0.7 + 0.1 * (m == "A") + 0.01 * (s % 3) * (m == "A")} for m in "AB" for s in seeds]
record.table("main", rows)
record.verdicts = [j.stored() for j in verdict.judge([verdict.claim(record, "A wins", "main", "A", "B", delta=0.01)])]
record.save()
"""  # fmt: skip


def test_keep_refuses_a_dirty_tree_before_the_run_and_check_compares_with_what_was_kept(tmp_path):
    path = notebook(tmp_path, "101_small", CODE)
    write_manifest(path, "[profiles.full]\nseeds = [0, 1, 2, 3, 4]\n")
    (tmp_path / ".gitignore").write_text("data/\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.example"]
    for words in (["init", "-q"], ["add", "."]):
        subprocess.run([*git, *words], check=True)
    done = paperlab(tmp_path, "run", "small", "--profile", "full", "--keep")
    assert (done.returncode, (tmp_path / "data").exists()) == (2, False)
    assert "on code that is committed" in done.stderr
    done = paperlab(tmp_path, "check", "small")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    done = paperlab(tmp_path, "run", "small", "--profile", "full", "--keep")
    assert done.returncode == 0, done.stderr
    done = paperlab(tmp_path, "check", "small")
    assert (done.returncode, "2 of 2 means are inside" in done.stdout) == (0, True), done.stderr
    assert "it is not run again" in done.stdout
    path.write_text(path.read_text().replace("0.1 * (m", "-0.1 * (m"))
    done = paperlab(tmp_path, "check", "small", "--seeds", "0..3", COLUMNS="200")
    assert (done.returncode, "1 of 2 means are inside" in done.stdout) == (1, True), done.stderr
    assert "model=A" in done.stdout
    assert "was supported, is contradicted: A wins" in done.stdout
    assert len(list((tmp_path / "data/runs").glob("*/record.json"))) == 2
    kept = tmp_path / "data/reference/101_small_full.json"
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"tables": {}}))
    done = paperlab(tmp_path, "check", "small")
    assert done.returncode == 2 and "recorded before the engine" in done.stderr


def test_results_filter_compare_and_export(tmp_path):
    """No kernel: records are put there, a sweep of two strengths with one seed a run."""
    path = notebook(tmp_path, "101_small")
    book = json.loads(path.read_text())
    book["cells"][0]["source"] += "\nn: int = 1  # rows (1..9)"
    path.write_text(json.dumps(book))
    for k, (n, s, v) in enumerate([(1, 0, 0.5), (1, 1, 0.6), (2, 0, 0.61), (2, 1, 0.7), (2, 2, 0.9)]):  # fmt: skip
        one = record(rows({"A": [v]}, first=s), notebook="101_small", profile="quick")
        one |= {"parameters": {"n": n, "seeds": [s]}, "started": f"2026-01-0{k + 1}T00:00:00+00:00"}
        records.write(tmp_path / f"data/runs/r{k}/record.json", one)
    for words, count in (([], 5), (["--since", "2026-01-04"], 2), (["--profile", "quick"], 5), (["--status", "failed"], 0)):  # fmt: skip
        for suffix, read in (("csv", pl.read_csv), ("parquet", pl.read_parquet)):
            done = paperlab(tmp_path, "results", *words, "--export", f"out/x.{suffix}")
            assert done.returncode == 0, done.stderr
            assert read(tmp_path / f"out/x.{suffix}").height == count
    # neither an older run of the same seeds nor one of other settings is in the way
    for k, (extra, seeds) in enumerate([({}, [0, 1, 2]), ({"m": 5}, [7, 8, 9])]):
        one = record(rows({"A": [0.0, 0.1, 0.2]}, first=seeds[0]), notebook="101_small")
        one |= {"parameters": {"n": 2, "seeds": seeds} | extra, "profile": "quick"}
        one["started"] = f"2025-01-0{k + 1}T00:00:00+00:00"
        records.write(tmp_path / f"data/runs/q{k}/record.json", one)
    done = paperlab(tmp_path, "results", "--compare", "n=2", "n=1", "--json")
    assert done.returncode == 0, done.stderr
    (line,) = json.loads(done.stdout)
    assert (line["a - b"], line["seeds"]) == (pytest.approx(0.105), 2)
    told = paperlab(tmp_path, "results", "--compare", "n=2", "n=1").stdout
    assert "1 of 1 metrics cannot be told apart" in told
    done = paperlab(tmp_path, "results", "--export", "x.md")
    assert (tmp_path / "x.md").read_text().splitlines()[2].startswith("| r4 | ok |")
    for words, message in (
        (["results", "--compare", "r", "r1"], "5 runs begin with it"),
        (["results", "--compare", "n=3", "n=1"], "n=3: no such run"),
        (["results", "--compare", "n=x", "n=1"], "n takes int"),
        (["results", "--since", "monday"], "write YYYY-MM-DD"),
        (["results", "--status", "fail"], "ok, failed or running"),
        (["results", "--profile", "ful"], "no run has it"),
        (["results", "--export", "x.xls"], "ends with .parquet, .csv or .md"),
        (["keep", "/nope"], "/nope has no record of a successful run"),
        (["bench", "foo"], "bench has no part foo"),
        (["data", "nope"], "nope"),
    ):
        done = paperlab(tmp_path, *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert message in done.stderr


def test_results_show_the_best_metric_and_counted_outcomes(tmp_path):
    notebook(tmp_path, "101_x")
    made = recorded("101_x", {"one": 0.05, "two": 0.06, "three": -0.05})
    records.write(tmp_path / "data/runs/new/record.json", made)
    records.write(tmp_path / "data/runs/old/record.json", OLD)
    failed = OLD | {"status": "failed", "verdicts": [], "error": {"message": "it broke"}}
    records.write(tmp_path / "data/runs/failed/record.json", failed)
    done = paperlab(tmp_path, "results", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    for text in ("2 supported", "1 contradicted", "auc 0.7", "recorded before the engine", "it broke"):  # fmt: skip
        assert text in done.stdout
    lines = {x["run"]: x for x in json.loads(paperlab(tmp_path, "results", "--json").stdout)}
    assert lines["new"]["outcomes"] == {"one": "supported", "two": "supported", "three": "contradicted"}  # fmt: skip
    assert [x["rows"] for x in lines["new"]["leaders"]] == ["world=one", "world=two", "world=three"]
    assert (lines["old"]["outcomes"], lines["old"]["before_the_engine"]) == ({}, True)


def test_ninety_papers_fit_one_screen(tmp_path):
    stems = many(tmp_path, 90)
    table = ledger.claims(tmp_path, ledger.committed(tmp_path))
    assert table.height == 5 * len(stems)
    shown = ledger.summary(table)
    assert shown["papers"].sum() == 90
    assert shown.height <= 8
