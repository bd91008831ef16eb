"""Lists for the terminal: whole names, text without markup, outcomes in words, and what cannot be read."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from helpers.manifests import write_manifest
from helpers.project import COMMAND, paperlab, project
from hypothesis import given
from hypothesis import strategies as st
from paperlab import __version__, cli, commands, ledger, listing, manifest, records, tryout
from paperlab.parameters import Parameter, as_text, inspect
from rich.console import Console

ROOT = records.project_root(Path(__file__))
BOOKS = [path.stem for path in manifest.notebooks(ROOT)]


def leaves(command: typer.main.TyperGroup, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command that does something, with the words that lead to it."""
    if not hasattr(command, "commands"):
        return [words]
    seen = {name: c for name, c in command.commands.items() if not c.hidden}
    return [leaf for name, c in seen.items() for leaf in leaves(c, (*words, name))]


def called(capsys, monkeypatch, *words: str) -> tuple[int, str, list[str]]:
    """The command in this process, where the library is loaded: code, output, lines of stderr."""
    monkeypatch.setattr(sys, "argv", ["paperlab", *words])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    return end.value.code or 0, said.out, said.err.splitlines()


@pytest.mark.parametrize("words", leaves(typer.main.get_command(cli.app)), ids=" ".join)
def test_every_command_has_an_example_that_names_it(capsys, monkeypatch, words):
    code, said, _ = called(capsys, monkeypatch, *words, "--help")
    assert code == 0
    _, _, examples = said.partition("Options:")[0].partition("Example")
    assert f"paperlab {' '.join(words)}" in " ".join(examples.split())


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_the_two_meanings_of_a_range_are_explained_where_one_needs_them(
    capsys, monkeypatch, command
):
    _, said, _ = called(capsys, monkeypatch, command, "--help")
    said = " ".join(said.split())
    assert "--set seeds=0..4" in said and "--grid seeds=0..4" in said
    assert re.search("five runs of one seed", said)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rum"], "No such command 'rum'. Did you mean 'run'?; paperlab --help"),
        (["run"], "Missing argument 'name'; paperlab run --help"),
        (["run", "small", "--profil", "full"], "No such option: --profil"),
        (["run", "small", "again"], "unexpected extra argument"),
        (["sweep", "small"], "Missing option '--grid'"),
        (["sweep", "small", "--grid", "n=1", "--workers", "0"], "Invalid value for '--workers'"),
        (["run", "large"], "no notebook 'large'"),
        (["run", "small", "--set", "n=1", "--set", "n=2"], "--set n=2: n is set twice"),
        (["run", "small", "--set", "n=1", "--set", "N=2"], "n is set twice"),
        (["run", "small", "--set", "seeds=0,1,0"], "seeds=0,1,0: '0' is repeated"),
        (["show", "large"], "no notebook 'large'"),
        (["diff", "nothing", "nothing"], "nothing: no such run"),
        (["keep", "data/runs/nothing"], "no record of a successful run"),
        (["check", "small"], "data/reference has no 101_small_full.json"),
        (["results", "--compare", "a", "b"], "a: no such run"),
        (["results", "--export", "notebooks.csv/x.csv"], ""),
        (["teach", "small", "--to", "pyproject.toml"], "a file, not a folder"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch, words, message):
    project(tmp_path)
    (tmp_path / "notebooks.csv").touch()
    monkeypatch.chdir(tmp_path)
    code, said, lines = called(capsys, monkeypatch, *words)
    assert (code, said, len(lines)) == (2, "", 1), lines
    assert lines[0].startswith("paperlab: ") and message in lines[0]


def test_the_same_in_a_process_of_its_own(tmp_path):
    for words, code, start in (
        (["rum"], 2, "paperlab: No such command"),
        (["--version"], 0, f"paperlab {__version__}"),
        ([], 2, "Usage: paperlab"),
    ):
        done = paperlab(tmp_path, *words)
        assert done.returncode == code
        assert (done.stderr or done.stdout).startswith(start)


def test_a_shell_completes_commands_and_names(tmp_path):
    project(tmp_path)
    for line, want in (("paperlab sho", "show"), ("paperlab run sm", "small")):
        words = {"_PAPERLAB_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}  # fmt: skip
        assert paperlab(tmp_path, **words).stdout.split() == [want]
    assert paperlab(tmp_path, "--show-completion").returncode in (0, 1)  # 1: in no known shell


def test_one_bad_manifest_does_not_hide_the_others(tmp_path):
    path = project(tmp_path)
    for stem, fields in (("102_bad", {"status": '"done"'}), ("103_good", {})):
        other = path.with_name(f"{stem}.ipynb")
        other.write_text(path.read_text())
        write_manifest(other, **fields)
    path.with_name("104_bare.ipynb").write_text(path.read_text())
    path.with_suffix(".toml").write_text(
        path.with_suffix(".toml").read_text().replace("n = 0", "n = 1")
    )
    done = paperlab(tmp_path, "list")
    assert done.returncode == 2
    assert re.findall(r"\d{3}_\w+", done.stdout) == ["101_small", "103_good"]
    first, second = done.stderr.splitlines()
    assert first.startswith("paperlab: 102_bad.toml: status: must be one of")
    assert second.startswith("paperlab: 104_bare.toml is missing")


def test_show_has_parameters_profiles_and_what_records_say(capsys, monkeypatch):
    kept = ledger.committed(ROOT, ["full"])
    record = next(r for r in kept if len(ledger.claims(ROOT, [r])) > 1)
    code, said, lines = called(capsys, monkeypatch, "show", record["notebook"])
    assert (code, lines) == (0, [])
    known = inspect(ROOT / f"notebooks/{record['notebook']}.ipynb")
    kinds = r"(?:list\[\w+\]|int|float|str|bool)"
    assert re.findall(rf"^ (\w+) +{kinds} ", said, re.MULTILINE) == list(known)
    assert all(p.span in said for p in known.values())
    outcomes = ledger.claims(ROOT, [record])["outcome"].to_list()
    assert all(said.count(f" {outcome} ") >= outcomes.count(outcome) for outcome in outcomes)


def test_show_lists_the_settings_of_try(capsys, monkeypatch):
    found = next(m for m in manifest.every(ROOT) if m.tryout)
    _, said, _ = called(capsys, monkeypatch, "show", found.slug)
    assert f"paperlab try {found.slug} --data NAME" in said
    for name in tryout.terms_of(found.stem, {})["settings"]:
        assert f" {name}=" in said


def test_show_says_what_there_is_not(tmp_path):
    write_manifest(
        project(tmp_path),
        "[profiles.full]\nseeds = [0, 1, 2]\nname = 'b'\n[measured.quick]\nseconds = 7\n",
    )
    done = paperlab(tmp_path, "show", "small")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    for text in (
        "101 · Small: does it work?",
        "seeds=0..2 name=b",
        "quick the defaults above 7 s",
        "not measured",
    ):
        assert text in said
    assert "no committed record: paperlab run small --profile full --keep makes one" in said
    assert "of learning (per step)" in said and "0.001..1" in said


@pytest.mark.parametrize("stem", BOOKS)
def test_names_stay_whole_at_80_columns(stem):
    out = io.StringIO()
    lines = [
        [
            stem,
            "a question of some words " * 4,
            "our reading of the abstract",
            25,
            "full control gpu",
        ]
    ]
    names = ["name", "question", "status", "seconds", "profiles"]
    Console(file=out, width=80).print(commands.table("Notebooks", names, lines))
    assert stem in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80


@given(
    st.lists(
        st.tuples(st.text("abc_[]/", min_size=1, max_size=40), st.text("ab [/]\\x", max_size=120)),
        min_size=1,
        max_size=4,
    )
)
def test_any_cell_is_text_and_nothing_of_it_is_lost(lines):
    out = io.StringIO()
    table = commands.table(None, ["[name]", "text"], [list(line) for line in lines])
    Console(file=out, width=80).print(table)
    said = out.getvalue()
    assert all(name in said for name, _ in lines)
    body = "".join(said.split())
    for sign in "[]/\\":
        assert body.count(sign) == sum(text.count(sign) for line in lines for text in line) + "[name]".count(sign)  # fmt: skip


def test_a_run_is_listed_under_a_name_that_diff_takes(tmp_path):
    project(tmp_path)
    rows = [
        {"model": m, "seed": s, "auc": v + (s if m == "c" else 4 - s) / 100}
        for m, v in (("a, b", 0.7), ("c", 0.2))
        for s in range(5)
    ]
    roles = {"group": "model", "where": [], "pair": "seed", "metric": "auc", "better": "higher"}
    one = {
        "notebook": "101_small",
        "profile": "quick",
        "status": "ok",
        "parameters": {},
        "seconds": 3.2,
    }
    one |= {
        "metrics": {"t": rows},
        "tables": {"t": roles | {"metrics": {"auc": "higher"}}},
        "verdicts": [],
    }
    for second in (1, 2):
        one["started"] = f"2026-11-28T09:15:0{second}+00:00"
        name = f"20261128-09150{second}-123-101_small-quick-0123456789ab"
        records.write(tmp_path / f"data/runs/{name}/record.json", one)
    said = paperlab(tmp_path, "results", COLUMNS="80").stdout
    assert "auc 0.72: a, b" in said and " or " not in said
    shown = re.findall(r"^ (\d\S+) ", said, re.MULTILINE)
    assert shown == [
        "20261128-091502-123",
        "101_small-quick",
        "20261128-091501-123",
        "101_small-quick",
    ]
    done = paperlab(tmp_path, "diff", shown[0], shown[2])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("methods", "said"),
    [(["a, b"], "a, b"), (["a", "b"], "a or b"), (["a", "b", "c"], "a or 2 others")],
)
def test_the_best_methods_are_named_shortly(methods, said):
    leader = {"metric": "auc", "mean": 0.71239, "methods": methods}
    line = {"run": "r", "status": "ok", "seconds": 200, "leaders": [leader, leader], "error": None}
    line |= {"outcomes": {"x": "mixed", "y": "supported", "z": "mixed"}, "before_the_engine": False}
    want = ["r", "ok\n3 min", f"auc 0.7124: {said}\nand 1 more", "2 mixed\n1 supported"]
    assert listing._readable(line) == want


@given(st.lists(st.integers(0, 40), max_size=8) | st.integers() | st.text("ab1.[]", max_size=6))
def test_a_short_value_is_read_back_by_set(value):
    kind = "list[int]" if isinstance(value, list) else type(value).__name__
    default = [] if isinstance(value, list) else value
    if value == "":
        assert as_text(value) == '""'
    else:
        assert Parameter("x", kind, default, "").cast(as_text(value)) == value


def test_a_run_without_records_of_its_own_needs_no_import_of_polars():
    """The first screen is quick: listing and help load neither polars nor torch."""
    code = "import sys; from paperlab import cli; print(sorted({'torch', 'polars', 'papermill'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert COMMAND[0] == sys.executable
