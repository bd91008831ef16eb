"""900_ledger over ninety simulated papers: it stays small, and counts what is there."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from helpers.many import many
from nbclient import NotebookClient
from paperlab import records, runs

ROOT = records.project_root(Path(__file__))
PICTURES = 2 * 40_000  # bytes of the two figures' PNGs in base64, at most


@pytest.mark.slow
def test_at_ninety_papers_the_ledger_has_at_most_200_kb(tmp_path):
    many(tmp_path, 90)
    for suffix in (".ipynb", ".toml"):
        shutil.copy(ROOT / f"notebooks/900_ledger{suffix}", tmp_path / "notebooks")
    book = nbformat.read(tmp_path / "notebooks/900_ledger.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path / "notebooks")}}
    NotebookClient(
        book, kernel_name="python3", resources=resources, extra_arguments=runs.QUIET
    ).execute()
    executed = json.loads(nbformat.writes(book))
    for cell in executed["cells"]:  # pictures are attached afterwards: see PICTURES
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/png", None)
    runs.clean(executed, "")
    text = json.dumps(executed, indent=1, ensure_ascii=False, sort_keys=True)
    assert len(text.encode()) + PICTURES <= 200_000
    assert "90 committed records; 450 claims that their notebooks still make" in text
    assert len(re.findall("<details><summary>[^{]", text)) == 8 + 1  # families, and the costs
