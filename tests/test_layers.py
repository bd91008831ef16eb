"""The arrows of the house: nothing imports what is above it, families do not import each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LIB = Path(__file__).parents[1] / "lib/paperlab"
SHARED = {
    "data": 0,
    "metrics": 0,
    "nn": 2,
    "train": 4,
    "plots": 5,
    "explorer_view": 5,
    "widgets": 6,
}
SHARED |= {
    "digest": 4,
    "records": 5,
    "verdict": 6,
    "runs": 7,
    "sweep": 8,
    "ledger": 8,
    "bench": 8,
    "cli": 10,
}
SHARED |= {"teach": 8, "new": 8, "book": 8, "diff": 9}
FAMILY = 3  # every other folder: it may use nn, metrics and data


def level(room: str) -> int:
    return SHARED.get(room, FAMILY)


def imports():
    """(file, room, imported room) of every import inside the library, also inside functions."""
    for path in LIB.rglob("*.py"):
        inside = path.relative_to(LIB)
        room = inside.parts[0].removesuffix(".py")
        package = ["paperlab", *inside.parts[:-1]]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                name = ".".join([*base, *([node.module] if node.module else [])])
                names = [f"{name}.{a.name}" for a in node.names] if name == "paperlab" else [name]
            elif isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            else:
                continue
            for name in names:
                parts = name.split(".")
                if parts[0] == "paperlab" and len(parts) > 1:
                    yield inside, room, parts[1]


def test_arrows_go_down_only():
    found = list(imports())
    assert len(found) > 40
    for file, room, used in found:
        if room in ("__init__", used):
            continue
        allowed = level(used) < level(room) and (level(room) != FAMILY or level(used) < FAMILY)
        # metrics and data stand on the ground floor together: generators know their ceiling
        assert allowed or {room, used} == {"data", "metrics"}, f"{file} imports paperlab.{used}"


def test_the_rooms_are_all_known():
    rooms = {p.name.removesuffix(".py") for p in LIB.iterdir() if p.name[0] not in "_."}
    families = {"ctr", "interest", "feedback", "retrieval", "rl", "align", "rlvr", "structure"}
    assert rooms <= set(SHARED) | families | {"evaluation", "templates"}


@pytest.mark.parametrize("module", ["paperlab", "paperlab.data", "paperlab.ctr", "paperlab.train"])
def test_a_model_file_loads_without_what_only_notebooks_need(module):
    heavy = [
        "plotly",
        "ipywidgets",
        "anywidget",
        "papermill",
        "polars",
        "pandas",
        "pooch",
        "IPython",
        "sklearn",
        "jaxtyping",
    ]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
