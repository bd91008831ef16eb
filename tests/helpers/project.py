"""A little project with one notebook, and the command that is run in it."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat

from .manifests import write_manifest

CELL = """
seeds: list[int] = [0, 1]  # paired runs (seed, 0..)
rate: float = 0.1  # of learning (per step, 0.001..1.0)
name: str = "a"  # of something
fast: bool = True  # or slow
n: int = 3  # rows (rows, 1..10_000)
"""


def project(folder: Path, *code: str, cell: str = CELL) -> Path:
    """A little project with one notebook, 101_small."""
    (folder / "notebooks").mkdir()
    (folder / "pyproject.toml").touch()
    book = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# 101 Small\n\n| | |\n|---|---|\n| Status | partial |"),
            nbformat.v4.new_code_cell(cell.strip(), metadata={"tags": ["parameters"]}),
            *map(nbformat.v4.new_code_cell, code),
        ]
    )
    path = folder / "notebooks/101_small.ipynb"
    nbformat.write(book, path)
    write_manifest(path, "[profiles.full]\nn = 9\n[profiles.broken]\nn = 0\n")
    return path


COMMAND = [sys.executable, "-c", "from paperlab.cli import main; main()"]


def paperlab(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, *words],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
