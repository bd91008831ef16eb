"""Copies for a class: nothing of a solution in the student's, everything else in both."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest
from helpers.project import paperlab, project
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import records, runs, teach
from paperlab.parameters import inspect

ROOT = records.project_root(Path(__file__))
BOOKS = runs.notebooks(ROOT)
WITHOUT_EXERCISES = ("0", "920")  # what the house says of itself
every = pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)


def source(cell: dict) -> str:
    return "".join(cell["source"])


def solves(cell: dict) -> bool:
    return "solution" in cell["metadata"].get("tags", [])


def made(path: Path, folder: Path) -> tuple[dict, dict, dict]:
    """Source, student's copy and solution copy."""
    (student, solution), _ = teach.teach(path, folder, ROOT)
    return tuple(json.loads(p.read_text()) for p in (path, student, solution))


@every
def test_no_solution_is_left_in_the_students_copy(tmp_path, path):
    book, student, _ = made(path, tmp_path)
    lines = {True: set(), False: set()}
    for cell in book["cells"]:
        lines[solves(cell)] |= {line.strip() for line in source(cell).splitlines()}
    secret = lines[True] - lines[False]
    assert path.stem.startswith(WITHOUT_EXERCISES) or secret
    left = {line.strip() for c in student["cells"] for line in source(c).splitlines()}
    assert not secret & left
    whole = json.dumps(student)  # metadata and outputs too
    assert not [line for line in secret if len(line) > 30 and json.dumps(line)[1:-1] in whole]
    assert not [c for c in student["cells"] if c.get("outputs") or c.get("execution_count")]


@every
def test_everything_else_is_still_there(tmp_path, path):
    book, student, _ = made(path, tmp_path)
    assert len(student["cells"]) == len(book["cells"])
    for was, now in zip(book["cells"], student["cells"], strict=True):
        assert (was["cell_type"], was["id"]) == (now["cell_type"], now["id"])
        if solves(was):
            assert source(now) == teach.STUB[was["cell_type"]]
            assert now["metadata"]["tags"] == ["answer"]
        else:
            assert (source(now), now["metadata"]) == (source(was), was["metadata"])
    text = "\n".join(source(c) for c in student["cells"] if c["cell_type"] == "markdown")
    assert path.stem.startswith(WITHOUT_EXERCISES) or re.search(r"Exercises\W+1\b", text)


@every
def test_the_copies_are_notebooks_with_the_same_parameters(tmp_path, path):
    book, _, solution = made(path, tmp_path)
    assert solution == book
    for copy in tmp_path.glob("*.ipynb"):
        nbformat.validate(nbformat.read(copy, as_version=4))
        assert inspect(copy) == inspect(path)


@every
def test_no_later_cell_needs_a_name_that_only_a_solution_makes(path):
    """Else the student's copy could not be run to its end."""
    only, known = set(), set()
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            names = [n for n in ast.walk(ast.parse(source(cell))) if isinstance(n, ast.Name)]
            stored = {n.id for n in names if isinstance(n.ctx, ast.Store)}
            if solves(cell):
                only |= stored - known
            else:
                assert not {n.id for n in names} - stored & only
                known |= stored


def test_there_are_predictions_to_make():
    """The reason why no output stays: three notebooks and more ask before they show."""
    asking = [p.stem for p in BOOKS if "Predict before you run" in p.read_text()]
    assert len(asking) >= 3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["code", "markdown"]), st.booleans(), st.text())))
def test_any_notebook(cells):
    """Whatever the cells: solutions become stubs, other sources stay, and the source is not touched."""
    make = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}
    book = nbformat.v4.new_notebook()
    for kind, is_solution, text in cells:
        tags = ["solution", "nbval-check-output"] if is_solution else ["other"]
        cell = make[kind](text, metadata={"tags": tags})
        if kind == "code":
            cell.outputs = [nbformat.v4.new_output("stream", text=text)]
            cell.execution_count = 1
        book.cells.append(cell)
    before = nbformat.writes(book)
    blank = teach.student(json.loads(before))
    nbformat.validate(blank)
    assert nbformat.writes(book) == before
    for (kind, is_solution, text), cell in zip(cells, blank["cells"], strict=True):
        assert source(cell) == (teach.STUB[kind] if is_solution else text)
        assert not cell.get("outputs")


def small(folder: Path) -> Path:
    path = project(folder, "print(6 * 7)")
    book = json.loads(path.read_text())
    book["cells"][-1]["metadata"]["tags"] = ["solution"]
    path.write_text(json.dumps(book))
    return path


def test_the_command_writes_both_and_overwrites_nothing(tmp_path):
    small(tmp_path)
    done = paperlab(tmp_path, "teach", "small", "--to", "class")
    assert done.returncode == 0, done.stderr
    assert "1 solution" in done.stdout
    student = tmp_path / "class/101_small_student.ipynb"
    assert "6 * 7" not in student.read_text()
    assert "6 * 7" in (tmp_path / "class/101_small_solution.ipynb").read_text()
    student.write_text("a teacher's own")
    done = paperlab(tmp_path, "teach", "small", "--to", "class")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "--force overwrites" in line
    assert student.read_text() == "a teacher's own"
    assert paperlab(tmp_path, "teach", "small", "--to", "class", "--force").returncode == 0
    assert "a teacher's own" not in student.read_text()


def test_copies_do_not_land_among_the_papers(tmp_path):
    path = small(tmp_path)
    with pytest.raises(runs.BadInput, match="taken for papers"):
        teach.teach(path, tmp_path / "notebooks", tmp_path)
    assert teach.teach(path, tmp_path / "notebooks/class", tmp_path)
    assert [p.stem for p in runs.notebooks(tmp_path)] == ["101_small"]


def test_what_is_no_notebook_makes_no_copy(tmp_path):
    path = small(tmp_path)
    path.write_text('{"cells": 3')
    with pytest.raises(runs.BadInput, match="not a notebook"):
        teach.teach(path, tmp_path / "class", tmp_path)
    assert not (tmp_path / "class").exists()
