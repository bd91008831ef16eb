"""The front door: refused before a kernel starts, recorded when it ran, marked when it failed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.project import project
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import digest, records, runs
from paperlab.parameters import TYPES, inspect

ROOT = records.project_root(Path(__file__))
BOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def test_parameters_are_read_with_type_meaning_and_range(tmp_path):
    found = inspect(project(tmp_path))
    assert list(found) == ["seeds", "rate", "name", "fast", "n"]
    assert (found["n"].low, found["n"].high, found["seeds"].low) == (1, 10_000, 0)
    assert (found["rate"].type, found["rate"].low, found["rate"].high) == ("float", 0.001, 1.0)
    assert found["name"].low is None


def test_values_are_cast_by_the_annotations(tmp_path):
    path = project(tmp_path)
    given = {"SEEDS": "0..3", "rate": "1e-3", "name": "1", "fast": "false", "n": "10_000"}
    expected = {"seeds": [0, 1, 2, 3], "rate": 1e-3, "name": "1", "fast": False, "n": 10_000}
    assert runs.settle(path, "quick", given) == expected
    assert runs.settle(path, "full")["n"] == 9
    assert runs.settle(path, "full", {"n": "4"})["n"] == 4
    assert runs.settle(path, overrides={"rate": "1"})["rate"] == 1.0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", "1", "did you mean seeds"),
        ("nonsense", "1", "it has: seeds, rate, name, fast, n"),
        ("seeds", "3", "takes list"),
        ("seeds", "[1.5]", "takes list"),
        ("seeds", "[-1]", r"in 0\.\."),
        ("rate", "2", r"in 0\.001\.\.1"),
        ("rate", "nan", "takes float"),
        ("fast", "1", "takes bool"),
        ("n", "0", r"in 1\.\.10,000"),
        ("n", "__import__('os')", "takes int"),
        ("n", "True", "takes int"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, name, value, message):
    with pytest.raises(runs.BadInput, match=message) as error:
        runs.settle(project(tmp_path), "quick", {name: value})
    assert "\n" not in str(error.value)


def test_bad_profiles_and_names_list_the_right_ones(tmp_path):
    path = project(tmp_path)
    with pytest.raises(runs.BadInput, match="it has: quick, full, broken"):
        runs.settle(path, "huge")
    with pytest.raises(runs.BadInput, match="n takes int"):
        runs.settle(path, "broken")
    with pytest.raises(runs.BadInput, match="there are: 101_small"):
        runs.find("small2", tmp_path)
    for name in ("small", "101", "101_small", "notebooks/101_small.ipynb"):
        assert runs.find(name, tmp_path) == path


@pytest.mark.parametrize(
    "cell", ["a = 1", "a: dict = {}", "a: int = f()", "a: int", "a: int = 'x'"]
)
def test_a_parameters_cell_that_is_not_typed_literals_is_refused(tmp_path, cell):
    with pytest.raises(runs.BadInput):
        inspect(project(tmp_path, cell=cell))


TEXTS = st.one_of(
    st.text(max_size=12), st.sampled_from(["", "[", "0..", "1e999", "None", "{}", "[[]]"])
)


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
def test_any_text_for_any_parameter_is_cast_or_refused_never_a_traceback(path, text):
    for name, parameter in inspect(path).items():
        try:
            value = runs.settle(path, "quick", {name: text})[name]
        except runs.BadInput as error:
            assert name in str(error)
        else:
            inside = parameter.type.removeprefix("list[").removesuffix("]")
            values = value if isinstance(value, list) else [value]
            assert all(type(v) is TYPES[inside] for v in values)
        with pytest.raises(runs.BadInput):
            runs.settle(path, "quick", {name + "_": text})


def test_a_profile_may_be_a_file(tmp_path):
    small = project(tmp_path)
    known, file = inspect(small), tmp_path / "mine.toml"
    name, whole = next((n, p) for n, p in known.items() if p.type == "int")
    file.write_text(f"# a comment\n{name} = {whole.default + 1}\n")
    chosen = runs.settle(small, str(file))
    assert chosen == {n: p.default for n, p in known.items()} | {name: whole.default + 1}
    assert runs.settle(small, str(file), {name: str(whole.default)})[name] == whole.default
    for text, message in (("x = = 1", "mine.toml: not TOML"), ("zzz = 1", "mine.toml: .* 'zzz'")):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            runs.settle(small, str(file))
    with pytest.raises(ValueError, match="cannot be read"):
        runs.settle(small, str(tmp_path / "none.toml"))


def test_a_run_writes_notebook_and_record(tmp_path):
    path = project(
        tmp_path,
        "from paperlab import records\nrecord = records.start('101_small', seeds[0], 1)",
        "record['n'] = n\nrecord.verdicts = [{'text': 't', 'evidence': 'e', 'outcome': 'o'}]\nrecord.save()",
    )
    folder = runs.run(path, tmp_path, "full", {"seeds": "[4]"})
    record = records.read(folder / "record.json")
    assert record["status"] == "ok"
    assert record["metrics"] == {"n": 9}
    assert record["parameters"]["seeds"] == [4]
    assert (folder / "101_small.ipynb").is_file()
    assert records.read_all(tmp_path)["status"].to_list() == ["ok"]


def test_a_failed_cell_marks_the_record(tmp_path):
    path = project(tmp_path, "x = 1", "raise OSError('no such luck')")
    with pytest.raises(runs.RunFailed, match="cell 3: OSError: no such luck"):
        runs.run(path, tmp_path)
    (file,) = (tmp_path / "data/runs").glob("*/record.json")
    record = json.loads(file.read_text())
    assert record["status"] == "failed"
    assert record["error"] == {"cell": 3, "message": "OSError: no such luck"}


def test_refresh_leaves_clean_counts_and_no_widget_state(tmp_path):
    path = project(
        tmp_path,
        "import ipywidgets\nfrom IPython.display import display\ndisplay(ipywidgets.IntSlider())\nprint(n)",
    )
    runs.refresh(path)
    book = json.loads(path.read_text())
    assert set(book["metadata"]) == {"kernelspec", "language_info", "paperlab"}
    assert book["metadata"]["paperlab"] == {"code": digest.notebook(path)}
    code = [c for c in book["cells"] if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in code] == [1, 2]
    assert [o["output_type"] for o in code[1]["outputs"]] == ["stream"]
    before = path.read_text()
    path.write_text(before.replace("print(n)", "print(m)"))
    with pytest.raises(runs.RunFailed, match="NameError"):
        runs.refresh(path)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "nothing"], 2, "no notebook 'nothing'"),
        (["run", "ssr", "--set", "seeds"], 2, "write --set NAME=VALUE"),
        (["run", "ssr", "--set", "epochs=0"], 2, "epochs takes int in 1..50"),
        (["run", "ssr", "--profile", "huge"], 2, "it has: quick, full"),
        (["data", "nothing"], 2, "no data set 'nothing'"),
        (["keep", "data/runs/nothing"], 2, "no record"),
    ],
)
def test_the_command_says_it_in_one_line_on_stderr(words, code, message):
    command = [sys.executable, "-c", "from paperlab.cli import main; main()", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [x for x in done.stderr.splitlines() if x.startswith("paperlab: ")] == [
        done.stderr.strip().splitlines()[-1]
    ]


def test_list_and_results_print_tables():
    for words, expected in ((["list"], "101_ssr"), (["results"], "Runs"), (["data"], "frappe")):
        command = [sys.executable, "-c", "from paperlab.cli import main; main()", *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
