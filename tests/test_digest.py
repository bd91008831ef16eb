"""The digest of code: what a notebook reaches changes it, what it does not reach leaves it."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import digest, records
from paperlab.digest import library as files_of_the_library

ROOT = records.project_root(Path(__file__))
BOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
TOY = {
    "__init__.py": b"",
    "a.py": b"from . import b",
    "b.py": b"def f():\n    from .pack.c import g",
    "pack/__init__.py": b"from paperlab.pack import d",
    "pack/c.py": b"import paperlab.pack.d\nfrom .. import e",
    "pack/d.py": b"",
    "e.py": b"",
    "alone.py": b"from . import a",
}


def test_reach_follows_imports_also_inside_functions_and_packages():
    assert digest.reach("from paperlab import a", TOY) == sorted(set(TOY) - {"alone.py"})
    assert digest.reach("import paperlab.e as e, torch", TOY) == ["__init__.py", "e.py"]
    pack = ["__init__.py", "pack/__init__.py", "pack/d.py"]
    assert digest.reach("from paperlab.pack import D", TOY) == pack
    assert digest.reach("import torch", TOY) == []
    assert digest.reach("%magic\nfrom paperlab import e", TOY) == sorted(TOY)


@pytest.mark.parametrize("name", TOY)
def test_only_reached_files_change_a_digest(name):
    code = "from paperlab import a"
    edited = TOY | {name: TOY[name] + b"\n# edited"}
    same = digest.of(code, TOY) == digest.of(code, edited)
    assert same == (name not in digest.reach(code, TOY))
    assert digest.of(code + " ", TOY) != digest.of(code, TOY)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.sampled_from("abcdefg"), st.sets(st.sampled_from("abcdefg")), min_size=1))
def test_reach_is_the_closure_that_a_slow_search_finds(arrows):
    library = {f"{n}.py": f"from . import {', '.join(sorted(to))}".encode() if to else b"" for n, to in arrows.items()}  # fmt: skip
    start = min(arrows)
    closed = {start}
    for _ in arrows:  # as many rounds as there are files are enough
        closed |= {to for n in closed for to in arrows[n] if to in arrows}
    found = digest.reach(f"from paperlab import {start}", library | {"__init__.py": b""})
    assert found == sorted({"__init__.py"} | {f"{n}.py" for n in closed})


def test_what_the_notebooks_really_load_is_what_they_reach():
    """Imports of all notebooks, run: every module of ours that is loaded afterwards was foreseen."""
    code, reached = [], set()
    for book in BOOKS:
        cells = digest.cells(book.read_bytes())
        reached |= set(digest.reach(cells, files_of_the_library()))
        found = [n for n in ast.walk(ast.parse(cells)) if isinstance(n, (ast.Import, ast.ImportFrom))]  # fmt: skip
        code += [ast.unparse(n) for n in found if "paperlab" in ast.unparse(n)]
    code.append("import sys; print(*[m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'paperlab'])")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    here = Path(digest.__file__).parent
    loaded = {Path(f).relative_to(here).as_posix() for f in done.stdout.split()}
    assert len(loaded) > 20
    assert loaded <= reached


def test_outputs_and_text_do_not_change_a_digest_and_cells_do(tmp_path):
    path = tmp_path / BOOKS[0].name
    shutil.copy(BOOKS[0], path)
    before = digest.notebook(path)
    book = json.loads(path.read_text())
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
        else:
            cell["source"] = "other words"
    path.write_text(json.dumps(book))
    assert digest.notebook(path) == before
    first = next(c for c in book["cells"] if c["cell_type"] == "code")
    first["source"] = ["".join(first["source"]), "\n1"]
    path.write_text(json.dumps(book))
    assert digest.notebook(path) != before


def test_files_that_changed_since_a_commit_are_named(tmp_path):
    """A repository with a copy of the library as it is now, and an edit afterwards."""
    lib = tmp_path / "lib/paperlab"
    for name, content in files_of_the_library().items():
        (lib / name).parent.mkdir(parents=True, exist_ok=True)
        (lib / name).write_bytes(content)
    (lib / "metrics.py").write_text("# as it was")
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / "notebooks/101_x.ipynb"
    cell = {"cell_type": "code", "source": "from paperlab import metrics, verdict"}
    path.write_text(json.dumps({"cells": [cell]}))
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.example"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    assert digest.changed(path, tmp_path, "HEAD") == ["metrics.py"]
    cell["source"] += "\n1"
    path.write_text(json.dumps({"cells": [cell]}))
    assert digest.changed(path, tmp_path, "HEAD") == ["101_x.ipynb", "metrics.py"]
    assert digest.changed(path, tmp_path, "0" * 40) is None
    assert digest.changed(tmp_path / "notebooks/102_y.ipynb", tmp_path, "HEAD") is None
