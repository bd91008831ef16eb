"""Run notebooks: parameters checked before a kernel starts, papermill, a record of each run."""

from __future__ import annotations

import json
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import digest, manifest, plots, records
from .manifest import NOTEBOOK, notebooks
from .parameters import BadInput, inspect, pick

# or kernels print that loopback is not encrypted and how they were stopped; errors are in the outputs
QUIET = ["--IPKernelApp.log_level=CRITICAL"]


class RunFailed(RuntimeError):
    """A cell of a run raised an error."""


def find(name: str, root: Path) -> Path:
    """A notebook by slug, number, NNN_slug or path; raises BadInput, also for a file elsewhere."""
    books, given = notebooks(root), Path(name)
    elsewhere = (
        given.suffix == ".ipynb"
        and given.is_file()
        and given.resolve() not in [b.resolve() for b in books]
    )
    for path in [] if elsewhere else books:
        if given.stem.replace("-", "_") in (path.stem, *NOTEBOOK.fullmatch(path.stem).groups()):
            return path
    raise BadInput(f"no notebook {name!r}; there are: {', '.join(p.stem for p in books) or 'none'}")


def settle(
    notebook: Path, profile: str = "quick", overrides: dict[str, str] | None = None
) -> dict[str, Any]:
    """All parameters of a run: defaults, then the profile's, then the overrides.

    profile: one of the manifest, or a TOML file of parameters, FILE.toml.
    Raises BadInput for an unknown profile or name, a wrong type or an impossible value.
    """
    known, slug = inspect(notebook), NOTEBOOK.fullmatch(notebook.stem)[2]
    chosen = {name: p.default for name, p in known.items()}
    if profile != "quick":
        chosen |= manifest.read(notebook.with_suffix(".toml")).profile(profile, known)
    own: set[str] = set()
    for name, value in (overrides or {}).items():
        parameter = pick(known, name, slug)
        if parameter.name in own:  # as seeds and SEEDS
            raise BadInput(f"{parameter.name} is set twice")
        own.add(parameter.name)
        chosen[parameter.name] = parameter.cast(value)
    return chosen


def run(
    notebook: Path,
    root: Path,
    profile: str = "quick",
    overrides: dict[str, Any] | None = None,
    progress: bool = True,
) -> Path:
    """Execute a notebook into a new folder under data/runs; returns the folder.

    It holds the executed notebook, record.json and the figures; its name ends with the record's key.
    A process does one run at a time, because the kernel reads the folder from the environment. Raises
    BadInput before a kernel starts; RunFailed where a cell failed, and KeyboardInterrupt: the record
    then says which cell.
    """
    parameters = settle(notebook, profile, overrides)
    profile = Path(profile).name  # a file keeps its ending: it is no profile of the manifest
    import papermill  # takes seconds: after the values are checked
    from papermill.exceptions import PapermillExecutionError
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")[:-3]
    record = records.begin(notebook.stem, profile, parameters, root)
    folder = root / "data/runs" / f"{stamp}-{notebook.stem}-{profile}-{record['key']}"
    path, executed = folder / "record.json", folder / notebook.name
    record["overrides"] = overrides or {}
    folder.mkdir(parents=True)
    began, error = time.perf_counter(), None
    with records.running(folder):
        records.write(path, record)
        before = os.environ.get(records.RUN_VARIABLE)
        os.environ[records.RUN_VARIABLE] = str(folder)
        try:
            # handed over with its values: papermill's own reading of the parameters cell warns of
            # what `settle` has read, such as a comment with "="
            book = load_notebook_node(str(notebook))
            book = parameterize_notebook(book, parameters, kernel_name="python3", language="python")
            papermill.execute_notebook(
                book, executed, kernel_name="python3", language="python", cwd=notebook.parent,
                progress_bar=progress and {"desc": notebook.stem}, log_output=False, extra_arguments=QUIET,
            )  # fmt: skip
        except PapermillExecutionError as problem:
            message = f"{problem.ename}: {problem.evalue}".strip().splitlines()[0]
            error = {"cell": _failed_cell(executed), "message": message}
        except KeyboardInterrupt:
            error = {"cell": None, "message": "interrupted"}
        except Exception as problem:  # a kernel that died or never started: to be recorded too
            message = f"{type(problem).__name__}: {problem}".splitlines()[0]
            error = {"cell": _failed_cell(executed), "message": message}
        finally:
            if before is None:
                del os.environ[records.RUN_VARIABLE]
            else:
                os.environ[records.RUN_VARIABLE] = before
        record = records.read(path) or record  # the notebook may have added its part
        record |= {"seconds": round(time.perf_counter() - began, 2), "error": error}
        record["status"] = "ok" if error is None else "failed"
        records.write(path, record)
    if error is None:
        book = json.loads(executed.read_text())
        try:
            drawn = plots.attach_pictures(book, folder, notebook.stem)
            records.replace(executed, json.dumps(book, indent=1, ensure_ascii=False))
            records.write(path, record | {"figures": [p.name for p in drawn]})
        except OSError as problem:  # a full disk: also where the browser's picture is then missing
            state = "the run is recorded, but its figures could not be written"
            raise RunFailed(f"{notebook.stem}: {state}: {problem}") from None
    if error is not None:
        if error["message"] == "interrupted":
            raise KeyboardInterrupt
        where = f" in cell {error['cell']}" if error["cell"] else ""
        raise RunFailed(f"{notebook.stem} failed{where}: {error['message']}")
    return folder


def _failed_cell(executed: Path) -> int | None:
    """The number, among the reader's code cells, of the last one that papermill started.

    Execution counts do not tell: the count of a cell that kills its kernel may be missing. None where
    there is no notebook; one that a full disk cut short is removed, to make room for the record.
    """
    try:
        book = json.loads(executed.read_text())
    except (OSError, ValueError):
        executed.unlink(missing_ok=True)
        return None
    started = [
        c
        for c in book["cells"]
        if c["cell_type"] == "code" and c["metadata"].get("papermill", {}).get("start_time")
    ]
    # the cell that papermill adds after the parameters is not the reader's
    return sum("injected-parameters" not in c["metadata"].get("tags", []) for c in started) or None


def refresh(notebook: Path) -> int:
    """Execute a notebook in place with its defaults; returns the number of figures drawn.

    What is committed has counts 1..n, no metadata of papermill or widgets, no widget views, and a
    PNG beside every figure; its own metadata is the digest of the code that made it. Raises
    RunFailed when a cell fails; the file is then left as it was.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    inspect(notebook)
    code = digest.notebook(notebook)
    book = nbformat.read(notebook, as_version=4)
    try:
        NotebookClient(
            book, kernel_name="python3", extra_arguments=QUIET,
            resources={"metadata": {"path": str(notebook.parent)}},
        ).execute()  # fmt: skip
    except CellExecutionError as problem:
        raise RunFailed(f"{notebook.stem}: {problem.ename}: {problem.evalue}") from None
    except DeadKernelError:
        raise RunFailed(f"{notebook.stem}: the kernel died, out of memory perhaps") from None
    executed = json.loads(nbformat.writes(book))
    clean(executed, code)
    with tempfile.TemporaryDirectory() as folder:
        drawn = plots.attach_pictures(executed, Path(folder), notebook.stem)
    notebook.write_text(json.dumps(executed, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    return len(drawn)


def clean(book: dict, code: str) -> None:
    """Take out of an executed notebook what is not committed: see `refresh`; code: its digest."""
    book["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "paperlab": {"code": code},
    }
    view = "application/vnd.jupyter.widget-view+json"
    for cell in book["cells"]:
        cell["metadata"] = {k: v for k, v in cell["metadata"].items() if k == "tags"}
        if cell["cell_type"] == "code":
            cell["outputs"] = [o for o in cell["outputs"] if view not in o.get("data", {})]
