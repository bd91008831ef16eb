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
    edited = TOY | {name: TOY[name] + b"\nx = 1"}
    same = digest.of(code, TOY) == digest.of(code, edited)
    assert same == (name not in digest.reach(code, TOY))


@pytest.mark.parametrize("same", ["x = f(1)  # note", "x = (\n    f(1)\n)", "'a text'\nx = f(1)", "x=f( 1 )"])  # fmt: skip
def test_comments_docstrings_and_formatting_do_not_count(same):
    library = {"__init__.py": b"", "a.py": same.encode()}
    before = {"__init__.py": b"", "a.py": b"x = f(1)"}
    assert digest.of(same, {}) == digest.of("x = f(1)", {})
    assert digest.of("import paperlab.a", library) == digest.of("import paperlab.a", before)


@pytest.mark.parametrize(
    "other", ["x = f(2)", "y = f(1)", "x = f('1')", "x = f(1.0)", "x = f(1,)(2)"]
)
def test_what_is_computed_counts(other):
    assert digest.of(other, {}) != digest.of("x = f(1)", {})


def test_statements_that_only_show_do_not_count():
    shown = "plots.show(figure, 'a', 'caption')\nwidgets.explore(g)"
    assert digest.of(f"x = f(1)\n{shown}\nrecords.show_claims(full)", {}) == digest.of(
        "x = f(1)", {}
    )
    assert digest.of("full = records.show_reference('101_x')", {}) != digest.of("", {})  # a value
    claims = "verdict.show(record, [verdict.claim(record, 't', 'main', 'A', 'B', delta={})])"
    assert digest.of(claims.format(0.1), {}) != digest.of(claims.format(0.2), {})
    assert digest.of("x = f(1)\nrecord.save()", {}) != digest.of("x = f(1)", {})


def edited(library: dict[str, bytes], name: str) -> dict[str, bytes]:
    return library | {name: library[name] + b"\nedited = 1"}


def aged(name: str) -> set[str]:
    """The notebooks whose digest changes with a file of the library."""
    library = files_of_the_library()
    books = [
        (book.stem, digest.cells(book.read_bytes()), digest.manifest_words(book)) for book in BOOKS
    ]
    return {
        stem
        for stem, code, words in books
        if digest.of(code, library, words) != digest.of(code, edited(library, name), words)
    }


def test_a_changed_colour_ages_no_notebook():
    for name in ("plots.py", "widgets.py", "records.py", "verdict.py", "cli.py"):
        assert aged(name) == set()


def test_a_changed_model_ages_the_notebooks_that_import_it():
    assert aged("ctr/ssr.py") >= {"101_ssr"}
    assert not aged("ctr/ssr.py") & {"201_tin", "501_rliv_ua", "502_sl_mgac", "601_otpo"}
    assert aged("interest/tin.py") == {"201_tin"}
    assert aged("align/otpo.py") <= {"601_otpo", "602_loss_lab"}
    assert {"101_ssr", "102_mlcc"} <= aged("ctr/baselines/dnn.py")  # a baseline of both
    assert "601_otpo" not in aged("ctr/baselines/dnn.py")


SETS = digest.catalogued("""
[clicks-a]
title = "A"
kind = "clicks"
loader = "format_x"
files = [{ name = "a.csv", sha256 = "1" }]
[clicks-b]
kind = "clicks"
loader = "format_x"
[texts]
kind = "preferences"
loader = "texts"
""")
LOADERS = {
    "__init__.py": b"",
    "data/__init__.py": b"names = ['clicks-a', 'clicks-b', 'texts']",
    "data/sets/__init__.py": b"",
    "data/sets/format_x.py": b"from ..formats import x",
    "data/sets/texts.py": b"",
    "data/formats/__init__.py": b"",
    "data/formats/x.py": b"",
    "model.py": b"from . import data\nx = data.load('texts')",
}
USES = {  # code of notebooks, and the files by which they are aged
    "from paperlab import data\nlog = data.load('clicks-a')": {"catalogue/clicks-a.py", "data/sets/format_x.py", "data/formats/x.py"},
    "from paperlab import data\nreal = ['clicks-b', 'texts']": {"catalogue/clicks-b.py", "catalogue/texts.py", "data/sets/format_x.py", "data/formats/x.py", "data/sets/texts.py"},
    "from paperlab import data\nreal = []  # 'clicks-a'": set(),
    "from paperlab import model": {"catalogue/texts.py", "data/sets/texts.py"},
}  # fmt: skip


@pytest.mark.parametrize("code", USES)
def test_a_changed_loader_ages_exactly_the_notebooks_that_load_its_sets(code):
    library, aged_by = LOADERS | SETS, set()
    for name in library:
        if digest.of(code, library) != digest.of(code, edited(library, name)):
            aged_by.add(name)
    wanted = {n for n in aged_by if not n.startswith(("data/", "catalogue/")) or "__init__" in n}
    assert aged_by - wanted == USES[code]
    assert digest.of(code, library, ["clicks-a"]) == digest.of(code, library) or (
        "catalogue/clicks-a.py" not in USES[code]
    )


def test_a_catalogue_entry_counts_by_its_pins_and_not_by_its_words():
    entry = {"title": "A", "terms": "free", "sha": "1"}
    text = '[a]\ntitle = "{title}"\nterms = "{terms}"\nfiles = [{{ name = "a", sha256 = "{sha}" }}]'
    as_is = digest.catalogued(text.format(**entry))
    assert digest.catalogued(text.format(**entry | {"title": "B", "terms": "none"})) == as_is
    assert digest.catalogued(text.format(**entry | {"sha": "2"})) != as_is


def test_sets_of_a_manifest_are_read_from_its_data_and_profiles(tmp_path):
    path = tmp_path / "101_x.ipynb"
    assert digest.manifest_words(path) == []
    path.with_suffix(".toml").write_text(
        'title = "frappe"\ndata = ["a", "e/f"]\n[profiles.full]\nreal = ["b", "c"]\nseeds = [1]\nkind = "d"'
    )
    assert digest.manifest_words(path) == ["a", "e/f", "b", "c", "d", "e"]


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


def test_what_the_notebooks_really_load_is_what_they_reach(monkeypatch):
    """Imports of all notebooks, run: every module of ours that is loaded afterwards was foreseen."""
    monkeypatch.setattr(digest, "DISPLAY", frozenset())  # follow these like any other file
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
    first["source"] = ["".join(first["source"]), "\nx = 1"]
    path.write_text(json.dumps(book))
    assert digest.notebook(path) != before


def test_files_that_changed_since_a_commit_are_named(tmp_path):
    """A repository with a copy of the library as it is now, and an edit afterwards."""
    lib = tmp_path / "lib/paperlab"
    for name, content in files_of_the_library().items():
        (lib / name).parent.mkdir(parents=True, exist_ok=True)
        (lib / name).write_bytes(content)
    (lib / "metrics.py").write_text("x = 1")
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / "notebooks/101_x.ipynb"
    cell = {"cell_type": "code", "source": "from paperlab import metrics, verdict"}
    path.write_text(json.dumps({"cells": [cell]}))
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.example"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    asked = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    head = asked.stdout.strip()
    assert digest.changed(path, tmp_path, head) == ["metrics.py"]
    cell["source"] += "\nx = 1"
    path.write_text(json.dumps({"cells": [cell]}))
    assert digest.changed(path, tmp_path, head) == ["101_x.ipynb", "metrics.py"]
    assert digest.changed(path, tmp_path, "0" * 40) is None
    assert digest.changed(tmp_path / "notebooks/102_y.ipynb", tmp_path, head) is None
