"""A new paper from the templates: it passes what every paper must, and mistakes write nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.project import paperlab
from paperlab import index, manifest, new, plots, runs
from paperlab.parameters import BadInput, inspect

ROOT = manifest.project_root(Path(__file__))
TITLE = "It's new: does $x^2$ & 中 <help>, NNN times?"
KINDS = sorted({family.template for family in manifest.FAMILIES.values()})


@pytest.fixture
def home(tmp_path) -> Path:
    """A project with the library, the templates, the start page and one paper."""
    kept = [
        "lib",
        "tests/templates",
        "tests/helpers",
        "tests/conftest.py",
        "tests/offline",
        ".importlinter",
    ]
    kept += [
        f"notebooks/{name}"
        for name in ("000_start_here.ipynb", "101_ssr.ipynb", "101_ssr.toml", "ruff.toml")
    ]
    kept += [
        "tests/notebooks/test_hygiene.py",
        "pyproject.toml",
        "data/catalogue.toml",
    ]
    for name in kept:
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            shutil.copy(ROOT / name, place)
    marks = "".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in ("papers", "findings"))
    (tmp_path / "README.md").write_text(marks)
    manifest.colours.cache_clear()
    return tmp_path


def state(folder: Path) -> dict[Path, bytes]:
    found = [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return {p: p.read_bytes() for p in found}


def ruff(folder: Path, *names: str) -> None:
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--no-cache", *names]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def number(kind: str) -> str:
    """A free number of a family with that kind of template."""
    return next(d for d, f in manifest.FAMILIES.items() if f.template == kind and d != "0") + "98"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_it_makes_passes_as_it_is(home, kind):
    """The command runs the notebook; then ruff, the hygiene of the notebook, and the new unit test."""
    name = f"{number(kind)}_two_names"
    before = state(home)
    path = os.pathsep.join(
        [str(home / "lib"), os.environ["PYTHONPATH"]]
    )  # the network stays closed
    here = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = paperlab(home, "new", name, "--title", TITLE, **here)
    assert done.returncode == 0, done.stderr
    assert not [p for p, content in before.items() if p.read_bytes() != content]
    made = done.stdout.split("running")[0].split()
    ruff(home, *made)
    (test,) = [file for file in made if file.startswith("tests/")]
    words = [
        test,
        "tests/notebooks/test_hygiene.py",
        "-k",
        "two_names",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:nbval",
    ]
    if plots.browser() is None:
        words += [
            "--deselect",
            "tests/notebooks/test_hygiene.py::test_every_figure_has_its_picture",
        ]
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", *words]
    done = subprocess.run(command, cwd=home, env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 12
    notebook = home / f"notebooks/{name}.ipynb"
    assert '"supported: ' in notebook.read_text()
    assert notebook not in index.drifted(home)
    assert runs.settle(notebook, "full") != runs.settle(notebook)


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_is_short(kind):
    book = json.loads((ROOT / f"lib/paperlab/templates/newcomer_{kind}.ipynb").read_text())
    cells = {k: [c for c in book["cells"] if c["cell_type"] == k] for k in ("code", "markdown")}
    lines = ["".join(c["source"]).splitlines() for c in cells["code"]]
    assert len(lines) <= 20 and max(map(len, lines)) <= 25 and sum(map(len, lines)) <= 200
    assert max(len(line) for cell in lines for line in cell) <= 110
    assert sum(len("".join(c["source"]).split()) for c in cells["markdown"]) <= 1500
    assert not [c for c in cells["code"] if c["outputs"]]


@pytest.mark.parametrize(
    ("name", "family", "folder"),
    [
        ("104_x", None, "ctr"),
        ("305_" + "long_name_" * 3, None, "feedback"),
        ("604_" + "long_name_" * 3, None, "align"),
        ("804_y2", None, "structure"),
        ("999_m2", "rl", "rl"),
    ],
)
def test_any_name_gives_files_that_ruff_accepts_and_changes_no_other(home, name, family, folder):
    before = state(home)
    made = new.new(name, TITLE, family, home)
    slug = name[4:]
    last = [f"notebooks/{name}.toml", f"lib/paperlab/{folder}/{slug}.py"]
    last += [f"tests/{folder}/test_{slug}.py", f"notebooks/{name}.ipynb"]
    names = [p.relative_to(home).as_posix() for p in made]
    assert names[-4:] == last
    assert {p for p, content in state(home).items() if before.get(p) != content} == set(made)
    ruff(home, *names)
    for path in made[-4:]:
        left = path.read_text().replace(TITLE, "").replace(TITLE.partition(": ")[2], "")
        assert not re.search(r"[Nn]ewcomer|NNN|templates|QUESTION|NAME", left), path
    found = {m.stem: m for m in manifest.every(home)}[name]
    assert (f"{found.name}: {found.question}", found.status) == (TITLE, "draft")
    assert (found.family, found.module) == (folder, f"{folder}.{slug}")
    assert index.card(found) == "".join(json.loads(made[-1].read_text())["cells"][0]["source"])
    assert 4 <= len(inspect(made[-1])) <= 12


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("101_other", {}, "101 is taken by 101_ssr"),
        ("104_ssr", {}, "ssr is taken by 101_ssr"),
        ("104_mlcc", {}, "lib/paperlab/ctr/mlcc.py exists"),
        ("104_newcomer_click", {}, "is the name of a template"),
        ("104_batch", {}, "batch: Batch is a name in the template"),
        ("104_exception", {}, "exception: Exception is a name"),
        ("104_Name", {}, "write NNN_slug"),
        ("104-name", {}, "write NNN_slug"),
        ("4_name", {}, "write NNN_slug"),
        ("004_name", {}, "write NNN_slug"),
        ("104_class", {}, "write NNN_slug"),
        ("104_none", {}, "write NNN_slug"),
        ("104_../x", {}, "write NNN_slug"),
        ("104_" + "x" * 31, {}, "write NNN_slug"),
        ("104_name", {"family": "cooking"}, "--family cooking: one of ctr, interest"),
        ("104_name", {"family": "nn"}, "--family nn: one of"),
        ("104_name", {"title": ""}, "--title"),
        ("104_name", {"title": "No question"}, "--title"),
        ("104_name", {"title": "two\nlines: x"}, "--title"),
        ("104_name", {"title": "a: b | c"}, "--title"),
        ("104_name", {"title": 'a: "b"'}, "--title"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(home, name, options, message):
    before = state(home)
    with pytest.raises(BadInput, match=re.escape(message)) as error:
        new.new(name, **{"title": "A: title?", "family": None} | options, root=home)
    assert "\n" not in str(error.value)
    assert state(home) == before


@pytest.mark.parametrize(
    "lost", ["tests/templates/test_newcomer_click.py", "lib/paperlab/templates/newcomer_click.toml"]
)
def test_what_a_project_lacks_is_found_before_anything_is_written(home, lost):
    (home / lost).unlink()
    before = state(home)
    with pytest.raises(FileNotFoundError, match=Path(lost).name):
        new.new("104_name", "A: title?", None, home)
    assert state(home) == before


def test_the_command_tells_a_mistake_in_one_line(home):
    done = paperlab(home, "new", "101_again", "--title", "Again: why?")
    assert done.returncode == 2
    assert done.stderr.strip() == "paperlab: 101 is taken by 101_ssr: choose another number"
