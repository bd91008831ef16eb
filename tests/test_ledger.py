"""Bands, comparisons and tables over records: worked by hand, simulated, and held against trivial predictors."""

import copy
import json
import math
import random
import subprocess
from pathlib import Path

import polars as pl
import pytest
from helpers.manifests import write_manifest
from helpers.project import paperlab, project
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import digest, ledger, metrics, records, runs
from paperlab.digest import library as files_of_the_library

ROOT = records.project_root(Path(__file__))


def record(rows: list[dict], **more) -> dict:
    base = {"notebook": "101_x", "profile": "full", "status": "ok", "verdicts": []}
    seeds = sorted({r["seed"] for r in rows})
    return base | {"parameters": {"seeds": seeds}, "metrics": {"main": rows}} | more


def rows(values: dict[str, list[float]], first: int = 0, **more) -> list[dict]:
    return [
        {"model": m, "seed": first + s, "auc": v} | more
        for m, vs in values.items()
        for s, v in enumerate(vs)
    ]


def test_tables_are_rows_with_a_seed():
    found = {"a": [{"seed": 0}], "b": [{"x": 1}], "c": [1.0], "d": 3, "e": [], "f": "text"}
    assert list(ledger.tables({"metrics": found})) == ["a"]


def test_words_come_first_and_numbers_only_where_they_are_needed():
    some = [
        {"model": m, "seed": s, "auc": 0.1 * s + k, "dense": 100 * k, "noise": n, "seconds": 1.5}
        for s in range(3)
        for k, (m, n) in enumerate([("A", 0), ("A", 30), ("B", 0), ("B", 30)])
    ]
    assert ledger.groups(some) == ["model", "noise"]  # two values, where dense has four
    assert ledger.measures(some, ["model", "noise"]) == ["auc"]
    assert ledger.groups([r for r in some if r["noise"] == 0]) == ["model"]
    assert ledger.groups(some + some[:1]) is None
    by_seed = [{"seed": s, "step": 10 * s + k, "loss": 0.5} for s in range(2) for k in range(2)]
    assert ledger.groups(by_seed) is None  # what differs from seed to seed tells no groups apart


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.integers(0, 2), st.floats(0, 1)),
        min_size=1,
        max_size=12,
    )
)
def test_groups_and_the_seed_tell_rows_apart_or_there_are_none(drawn):
    some = [dict(zip(("seed", "model", "k", "x"), values, strict=True)) for values in drawn]
    chosen = ledger.groups(some)
    if chosen is not None:
        keys = {(r["seed"], *(r[c] for c in chosen)) for r in some}
        assert len(keys) == len(some)


def test_what_follows_from_a_group_is_neither_group_nor_measure():
    """The chosen rate has fewer values than the size, and would tell the rows apart only in part."""
    some = [
        {
            "seed": s,
            "model": m,
            "scale": k,
            "lr": 0.01 if k < 4 else 0.003,
            "dense": 10.0 * k,
            "auc": 0.5,
        }
        for s in (0, 1)
        for m in ("a", "b")
        for k in (1, 2, 4, 8)
    ]
    assert ledger.groups(some) == ["model", "scale"]
    assert ledger.measures(some, ["model", "scale"]) == ["auc"]


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

    false = sum(alarm(ledger.hold(run(), run())) for _ in range(400))
    assert 6 <= false <= 34  # 20 expected, ± 3.2 standard deviations
    assert sum(alarm(ledger.hold(run(), run(shift=8))) for _ in range(20)) == 20


def test_what_a_new_run_lacks_is_missing_and_few_seeds_give_no_band():
    old = record(rows({"A": [0.7, 0.71, 0.72, 0.7, 0.71], "B": [0.6, 0.61, 0.62, 0.6, 0.61]}))
    new = record(rows({"A": [0.705, 0.71]}))
    table = ledger.hold(old, new)
    assert table.select("rows", "seeds", "inside?").rows() == [("model=A", 2, "yes"), ("model=B", 0, "missing")]  # fmt: skip
    assert ledger.hold(old, record([]) | {"metrics": {}})["inside?"].to_list() == ["missing"] * 2
    assert ledger.hold(new, old).height == 0


def test_trivial_predictors_fall_outside_every_band_on_real_clicks():
    """A constant's AUC is 1/2; shuffled labels have it up to noise. Both for every log and model."""
    import torch

    kept = records.reference("101_ssr", "full", ROOT)
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(8000, generator=generator) < 0.1).float()
    for kind in ("constant", "shuffled"):
        fake = copy.deepcopy(kept)
        for row in fake["metrics"]["clicks"]:
            score = torch.rand(8000, generator=generator) * (kind == "shuffled")
            row["auc"] = metrics.auc(score, labels)
        table = ledger.hold(kept, fake).filter(pl.col("measure") == "auc", pl.col("table") == "clicks")  # fmt: skip
        assert table.height >= 20
        assert set(table["inside?"]) == {"no"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "data/reference").glob("[0-9]*_*.json")), ids=lambda p: p.stem
)
def test_every_kept_record_gives_bands_and_lies_inside_its_own(path):
    kept = json.loads(path.read_text())
    table = ledger.hold(kept, kept)
    assert table.height >= 10
    assert set(table["inside?"]) == {"yes"}
    assert table.select((pl.col("low") < pl.col("high")).all()).item()


def test_a_comparison_is_paired_and_by_hand():
    """a - b is 2, 4 and 6 hundredths: mean 4, s 2, t(2) = 4.3027, half = 4.3027 * 2 / sqrt(3)."""
    a = record(rows({"A": [0.52, 0.74, 0.96]}, log="x"))
    b = record(rows({"A": [0.50, 0.70, 0.90], "B": [0.1, 0.2, 0.3]}, log="y"))
    (line,) = ledger.compare([a], [b]).rows(named=True)  # B is in b alone; the log is what differs
    assert (line["a - b"], line["seeds"], line["apart?"]) == (pytest.approx(0.04), 3, "no")
    assert line["high"] - line["a - b"] == pytest.approx(0.04968, abs=1e-5)
    (line,) = ledger.compare([a], [record(rows({"A": [0.1, 0.3, 0.5]}))]).rows(named=True)
    assert line["apart?"] == "a above"


def test_sets_of_runs_of_one_seed_each_are_pooled_and_a_seed_twice_is_refused():
    a = [record(rows({"A": [0.5 + s / 10]}, first=s)) for s in range(3)]
    b = [record(rows({"A": [0.4 + s / 10]}, first=s)) for s in range(3)]
    (line,) = ledger.compare(a, b).rows(named=True)
    assert (line["a - b"], line["seeds"], line["apart?"]) == (pytest.approx(0.1), 3, "a above")
    with pytest.raises(ValueError, match="two rows"):
        ledger.compare([*a, a[0]], b)
    with pytest.raises(ValueError, match="share no rows"):
        ledger.compare(a, [record([])])


def test_claims_costs_and_leaders_of_a_small_record():
    table = rows({"A": [0.70, 0.72, 0.71], "B": [0.60, 0.61, 0.62], "C": [0.70, 0.71, 0.73]})
    for r, speed in zip(table, range(10, 19), strict=True):
        r["samples_per_second"] = float(speed)
    verdicts = [{"text": "A is best", "evidence": "+0.1", "outcome": "partly"}]
    verdicts.append(verdicts[0] | {"text": "A was best (full record)"})  # an older record's claim
    one = record(table, verdicts=verdicts, seconds=3.5, peak_memory_mb=90, machine="m", device="cpu")  # fmt: skip
    (claim,) = ledger.claims([one]).rows(named=True)
    assert (claim["outcome"], claim["seeds"], claim["rows"]) == ("partly", 3, 9)
    (cost,) = ledger.costs([one]).rows(named=True)
    assert (cost["seconds"], cost["peak MB"], cost["samples/s"], cost["threads"]) == (3.5, 90, 14, None)  # fmt: skip
    (lead,) = ledger.leaders([one]).rows(named=True)
    assert (lead["best"], lead["next"], lead["as good"], lead["models"]) == ("C", "A", 2, 3)
    assert lead["ahead"] == pytest.approx(0.01 / 3)
    assert lead["low"] < lead["ahead"] < lead["high"]
    for r in table:
        r["regret"] = 1 - r.pop("auc")
    (lower,) = ledger.leaders([one]).rows(named=True)
    assert (lower["best"], lower["ahead"]) == ("C", pytest.approx(0.01 / 3))


def test_no_record_at_all_gives_empty_tables(tmp_path):
    (tmp_path / "notebooks").mkdir()
    tables = (ledger.claims([]), ledger.costs([]), ledger.leaders([]), ledger.freshness(tmp_path))
    assert [t.height for t in tables] == [0, 0, 0, 0]
    assert "outcome" in tables[0].columns and "samples/s" in tables[1].columns


def test_freshness_sees_edits_of_notebook_and_of_reached_code(tmp_path, monkeypatch):
    path = project(tmp_path, "from paperlab import metrics")
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
    for name, told in (("sweep.py", "today's"), ("metrics.py", "older")):
        edited = library | {name: library[name] + b"#"}
        monkeypatch.setattr(digest, "library", lambda edited=edited: edited)
        assert ledger.freshness(tmp_path)["code"].to_list() == [told, told]


CODE = """
from paperlab import records
record = records.Record("101_small", 1, "cpu")
record["main"] = [{"model": "A", "seed": s, "auc": 0.7 + 0.01 * (s % 3)} for s in seeds]
record.verdicts = [{"text": "t", "evidence": "e", "outcome": "supported"}]
record.save()
"""


def test_keep_refuses_a_dirty_tree_before_the_run_and_check_holds_against_what_was_kept(tmp_path):
    path = project(tmp_path, CODE)
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
    assert paperlab(tmp_path, "run", "small", "--profile", "full", "--keep").returncode == 0
    done = paperlab(tmp_path, "check", "small")
    assert (done.returncode, "1 of 1 means are inside" in done.stdout) == (0, True), done.stderr
    assert "no rerun" in done.stdout
    path.write_text(path.read_text().replace("0.7 +", "0.5 +"))
    done = paperlab(tmp_path, "check", "small", "--seeds", "0..1", COLUMNS="200")
    assert (done.returncode, "0 of 1 means are inside" in done.stdout) == (1, True), done.stderr
    assert "model=A" in done.stdout
    assert len(list((tmp_path / "data/runs").glob("*/record.json"))) == 2


def test_results_filter_compare_and_export(tmp_path):
    """No kernel: records are put there, a sweep of two strengths with one seed a run."""
    project(tmp_path)
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
    done = paperlab(tmp_path, "results", "--compare", "n=2", "n=1", "--export", "x.parquet")
    assert done.returncode == 0, done.stderr
    (line,) = pl.read_parquet(tmp_path / "x.parquet").rows(named=True)
    assert (line["a - b"], line["seeds"]) == (pytest.approx(0.105), 2)
    assert "1 of 1" not in paperlab(tmp_path, "results", "--compare", "n=2", "n=1").stdout
    done = paperlab(tmp_path, "results", "--export", "x.md")
    assert (tmp_path / "x.md").read_text().splitlines()[2].startswith("| r4 | 101_small | quick |")
    for words, told in (
        (["--compare", "r", "r1"], "5 runs begin so"),
        (["--compare", "n=3", "n=1"], "n=3: no such run"),
        (["--compare", "n=x", "n=1"], "n takes int"),
        (["--since", "monday"], "write YYYY-MM-DD"),
        (["--status", "fail"], "ok, failed or running"),
        (["--profile", "ful"], "no run has it"),
        (["--export", "x.xls"], "ends with .parquet, .csv or .md"),
    ):
        done = paperlab(tmp_path, "results", *words)
        assert done.returncode in (1, 2)
        assert told in done.stderr and len(done.stderr.splitlines()) == 1
