"""What every committed notebook must look like."""

import json
import re
from pathlib import Path

import pytest
from paperlab import records
from paperlab.parameters import inspect

ROOT = records.project_root(Path(__file__))
BOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
LIMITS = {
    "words": 1500,
    "cells": 20,  # of code
    "lines of a cell": 25,
    "columns": 110,
    "lines of code": 200,
    "bytes": 300_000,
}
LONGER: dict[str, list[str]] = {}  # what exceeds a limit, by notebook: empty, and nothing enters it
pytestmark = pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)


def cells(path: Path, kind: str = "code") -> list[dict]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def test_executed_top_to_bottom_without_errors(path):
    code = cells(path)
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
    assert not [o for c in code for o in c["outputs"] if o["output_type"] == "error"]


def test_metadata_and_size(path):
    book = json.loads(path.read_text())
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    assert not {"papermill", "widgets"} & set(book["metadata"])
    assert "widget-view" not in path.read_text()


def measured(path: Path) -> dict[str, int]:
    """What LIMITS bounds."""
    code = ["".join(c["source"]).splitlines() for c in cells(path)]
    lines = [line for cell in code for line in cell]
    return {
        "words": sum(len("".join(c["source"]).split()) for c in cells(path, "markdown")),
        "cells": len(code),
        "lines of a cell": max(map(len, code)),
        "columns": max(map(len, lines)),
        "lines of code": sum(bool(line.strip()) for line in lines),
        "bytes": path.stat().st_size,
    }


def test_it_is_short(path):
    found = measured(path)
    beyond = [what for what, limit in LIMITS.items() if found[what] > limit]
    assert beyond == LONGER.get(path.stem, []), f"of {LIMITS} it has {found}; LONGER says otherwise"


def test_no_paths_of_a_machine_and_no_installs(path):
    text = path.read_text()
    assert not re.search(r"/(home|root|work|tmp|Users)/\w", text)
    source = "\n".join("".join(c["source"]) for c in cells(path))
    assert not re.search(r"pip install|sys\.path|filterwarnings|if TEST", source)


def test_parameters_can_be_read_and_something_is_checked(path):
    parameters = inspect(path)
    assert 1 <= len(parameters) <= 12
    assert all(p.meaning for p in parameters.values())
    tags = [t for c in cells(path) for t in c["metadata"].get("tags", [])]
    assert "nbval-check-output" in tags


def test_every_figure_has_its_picture(path):
    from paperlab import plots

    for name, output in plots.figures_of(json.loads(path.read_text())):
        assert "image/png" in output["data"], f"{name}: run paperlab refresh"
