"""A student's and a solution copy of a notebook, both made from the one source.

The student's copy has no outputs and no solutions, so that a reader predicts before running. Text,
parameters, code and checks are the same as in the source.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

from . import records, runs
from .parameters import inspect

STUB = {
    "code": "# Your answer to the exercises above; the solution copy has one.",
    "markdown": "*Your answer to the exercises above; the solution copy has one.*",
}


def student(book: dict) -> dict:
    """A notebook as JSON, without any output, and a stub tagged ``answer`` for each ``solution``.

    All outputs are removed, not only those of solutions: a table or a verdict that is already there
    would answer the question before it.
    """
    blank = copy.deepcopy(book)
    blank["metadata"].pop("paperlab", None)  # the digest of the code that made the outputs
    for cell in blank["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
        tags = cell["metadata"].get("tags", [])
        if "solution" in tags:
            cell["source"] = STUB[cell["cell_type"]]
            cell["metadata"] = {"tags": ["answer"]}
            cell.pop("attachments", None)
    return blank


def teach(notebook: Path, folder: Path, root: Path, force: bool = False) -> tuple[list[Path], int]:
    """Write NNN_slug_student.ipynb and NNN_slug_solution.ipynb, the source as it is, into a folder.

    Returns the two paths and the number of solutions that became stubs. Raises BadInput where a
    copy exists (unless ``force``), for the project's own notebooks/, where copies would count as papers,
    and for a file that is no notebook.
    """
    import nbformat

    folder = folder.resolve()
    if folder.is_file():
        raise runs.BadInput(f"--to {folder.name}: a file, not a folder")
    if folder == (root / "notebooks").resolve():
        raise runs.BadInput(f"--to {folder.name}: copies there would be taken for papers")
    inspect(notebook)
    book = json.loads(notebook.read_text())
    copies = {"student": student(book), "solution": book}
    paths = {kind: folder / f"{notebook.stem}_{kind}.ipynb" for kind in copies}
    there = [path.name for path in paths.values() if path.exists()]
    if there and not force:
        raise runs.BadInput(f"{' and '.join(there)} exist in {folder.name}: --force overwrites")
    folder.mkdir(parents=True, exist_ok=True)
    for kind, path in paths.items():
        nbformat.validate(copies[kind])
        text = json.dumps(copies[kind], indent=1, ensure_ascii=False, sort_keys=True)
        records.replace(path, text + "\n")
    stubs = [c for c in copies["student"]["cells"] if "answer" in c["metadata"].get("tags", [])]
    return list(paths.values()), len(stubs)
