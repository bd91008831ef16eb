"""The arrows of the house, as .importlinter states them, and what importing a room may load."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = "plotly ipywidgets anywidget papermill polars pandas pooch IPython sklearn jaxtyping"


def lint(folder: Path) -> subprocess.CompletedProcess:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_arrows_go_down_only():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    "module", ["paperlab", "paperlab.data", "paperlab.ctr.ssr", "paperlab.loop"]
)
def test_a_model_file_loads_without_what_only_notebooks_need(module):
    code = f"import sys, {module}; print([m for m in {HEAVY.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "lib/paperlab").rglob("__init__.py")), ids=lambda p: p.parent.name
)
def test_a_folder_of_models_holds_a_docstring_only(path):
    folder = path.parent.relative_to(ROOT / "lib/paperlab").parts
    if folder and folder[0] not in ("data", "book", "bench"):
        text = path.read_text()
        assert text.startswith('"""') and text.count("\n") == 1


def test_tests_import_helpers_never_tests():
    for path in sorted((ROOT / "tests").rglob("*.py")):
        found = re.findall(r"^(?:from|import) test_\w+", path.read_text(), re.MULTILINE)
        assert not found, f"{path.name}: move what is shared to tests/helpers"
