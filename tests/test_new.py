"""A new paper from the templates: it passes what every paper must, and mistakes write nothing."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.project import paperlab
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import new, plots, records, runs
from paperlab.parameters import inspect

ROOT = records.project_root(Path(__file__))
TITLE = "It's new: does $x^2$ & 中 <help>, NNN times?"
LISTED = "# P\n\n| notebook | | |\n|---|---|---|\n| [000_start](notebooks/000_start.ipynb) | | |\n"


@pytest.fixture
def home(tmp_path) -> Path:
    """A project with the library, the templates, the start page and one paper."""
    kept = ["lib", "tests/templates", "notebooks/000_start_here.ipynb", "notebooks/101_ssr.ipynb"]
    kept += ["notebooks/profiles.yaml", "tests/notebooks/test_hygiene.py", "tests/test_layers.py"]
    kept += ["README.md", "pyproject.toml", "data/catalogue.toml"]
    for name in kept:
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))  # fmt: skip
        else:
            shutil.copy(ROOT / name, place)
    return tmp_path


def state(folder: Path) -> dict[Path, bytes]:
    found = [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return {p: p.read_bytes() for p in found}


def ruff(folder: Path) -> None:
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--no-cache", "lib/paperlab", "tests"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_what_it_makes_passes_as_it_is(home):
    """The command, then ruff, the hygiene of the two notebooks that it ran, layers, and the new test."""
    path = os.pathsep.join(
        [str(home / "lib"), os.environ["PYTHONPATH"]]
    )  # the network stays closed
    here = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = paperlab(home, "new", "104_two_names", "--title", TITLE, **here)
    assert done.returncode == 0, done.stderr
    ruff(home)
    words = [
        "tests/ctr/test_two_names.py",
        "tests/notebooks/test_hygiene.py",
        "tests/test_layers.py",
    ]
    words += ["-k", "two_names or start_here or arrows or rooms", "-p", "no:cacheprovider"]
    if plots.browser() is None:
        words += [
            "--deselect",
            "tests/notebooks/test_hygiene.py::test_every_figure_has_its_picture",
        ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=home, env=here, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 20
    path = home / "notebooks/104_two_names.ipynb"
    assert runs.card(path)["title"] == f"104 · {TITLE}"
    assert runs.settle(path, "full")["seeds"] == [0, 1, 2, 3, 4]
    assert '"supported: A hidden layer' in path.read_text()


@pytest.mark.parametrize(
    ("name", "family", "folder"),
    [
        ("104_x", None, "ctr"),
        ("305_" + "long_name_" * 3, None, "feedback"),
        ("999_m2", "rl", "rl"),
    ],
)
def test_any_name_gives_files_that_ruff_accepts(home, name, family, folder):
    before = state(home)
    made = new.new(name, TITLE, family, home)
    slug = name[4:]
    last = [f"lib/paperlab/{folder}/{slug}.py", f"tests/{folder}/test_{slug}.py"]
    assert [p.relative_to(home).as_posix() for p in made][-3:] == [*last, f"notebooks/{name}.ipynb"]
    changed = {p for p, content in state(home).items() if before.get(p) != content}
    assert changed == {*made, home / "README.md", home / "notebooks/profiles.yaml"}
    ruff(home)
    for path in made[-3:]:
        left = re.sub(re.escape(TITLE), "", path.read_text())
        assert not re.search(r"[Nn]ewcomer|NNN|templates|Title of the paper", left)
    assert yaml.safe_load((home / "notebooks/profiles.yaml").read_text())[slug]["full"]["rows"]
    assert inspect(home / f"notebooks/{name}.ipynb").keys() >= {"seeds", "rows"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("101_other", {}, "101 is taken by 101_ssr"),
        ("104_ssr", {}, "ssr is taken by 101_ssr"),
        ("104_fm", {}, "lib/paperlab/ctr/ssr.py exists"),
        ("104_newcomer", {}, "taken by the template"),
        ("104_batch", {}, "taken by the template"),
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
        ("104_name", {"title": "two\nlines"}, "--title"),
        ("104_name", {"title": "a | b"}, "--title"),
        ("104_name", {"title": 'a "b"'}, "--title"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(home, name, options, message):
    before = state(home)
    with pytest.raises(runs.BadInput, match=re.escape(message)) as error:
        new.new(name, **{"title": "A title", "family": None} | options, root=home)
    assert "\n" not in str(error.value)
    assert state(home) == before


def test_a_readme_without_papers_is_refused(home):
    (home / "README.md").write_text("# Nothing\n")
    before = state(home)
    with pytest.raises(runs.BadInput, match="no table of papers"):
        new.new("104_name", "A title", None, home)
    assert state(home) == before


@pytest.mark.parametrize(
    "lost", ["notebooks/profiles.yaml", "README.md", "tests/templates/test_newcomer.py"]
)
def test_what_a_project_lacks_is_found_before_anything_is_written(home, lost):
    (home / lost).unlink()
    before = state(home)
    with pytest.raises(FileNotFoundError, match=Path(lost).name):
        new.new("104_name", "A title", None, home)
    assert state(home) == before


def test_the_command_tells_a_mistake_in_one_line(home):
    done = paperlab(home, "new", "101_again", "--title", "Again")
    assert done.returncode == 2
    assert done.stderr.strip() == "paperlab: 101 is taken by 101_ssr: choose another number"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(100, 999), unique=True, max_size=8))
def test_rows_of_the_readme_stay_in_order(tmp_path_factory, numbers):
    readme = tmp_path_factory.mktemp("home") / "README.md"
    readme.write_text(LISTED + "\nThe end.\n")
    for number in numbers:
        row = f"| [{number}_x](notebooks/{number}_x.ipynb) | | |"
        readme.write_text(new._with_row(readme, str(number), row))
    rows = [f"| [{n}_x](notebooks/{n}_x.ipynb) | | |\n" for n in sorted(numbers)]
    assert readme.read_text() == LISTED + "".join(rows) + "\nThe end.\n"
