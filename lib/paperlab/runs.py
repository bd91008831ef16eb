"""Run notebooks: parameters checked before a kernel starts, papermill, a record of each run.

A notebook's parameters are one cell tagged ``parameters`` with lines

    name: type = literal  # meaning (unit, lowest..highest)

where the range, and either end of it, may be missing.
"""

from __future__ import annotations

import ast
import difflib
import io
import json
import math
import os
import re
import time
import tokenize
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import digest, plots, records

TYPES = {"int": int, "float": float, "str": str, "bool": bool}
NOTEBOOK = re.compile(r"(\d{3})_(\w+)")
LONGEST = 10_000  # of a list written as first..last
# kernels say that loopback is not encrypted, and how they were stopped; what fails is in the outputs
QUIET = ["--IPKernelApp.log_level=CRITICAL"]
RANGE = re.compile(r"(-?[\d_.]*?\d)?\.\.(-?\d[\d_.]*)?\)?\s*$")


class BadInput(ValueError):
    """A user's mistake, told in one line that lists what is right."""


class RunFailed(RuntimeError):
    """A cell of a run raised."""


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell. ``low`` and ``high`` bound numbers, also inside lists."""

    name: str
    type: str
    default: Any
    meaning: str
    low: float | None = None
    high: float | None = None

    def cast(self, text: Any) -> Any:
        """A value from the command line or from profiles.yaml; raises BadInput."""
        inside = self.type.removeprefix("list[").removesuffix("]")
        value = text
        if isinstance(text, str) and self.type != "str":
            span = re.fullmatch(r"(\d{1,12})\.\.(\d{1,12})", text)
            if span and self.type == "list[int]":
                first, last = int(span[1]), int(span[2])
                if not 0 <= last - first < LONGEST:
                    raise self._bad(text)
                value = list(range(first, last + 1))
            else:
                value = _literal(text)
        if inside != self.type and isinstance(value, (list, tuple)):
            value = [self._one(v, inside, text) for v in value]
            if not value and self.default:  # only what is empty by default may be empty
                raise self._bad(text)
        elif inside != self.type:
            raise self._bad(text)
        else:
            value = self._one(value, inside, text)
        return value

    def _one(self, value: Any, kind: str, text: Any) -> Any:
        wanted = TYPES[kind]
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            try:
                value = float(value)
            except OverflowError:
                raise self._bad(text) from None
        if type(value) is not wanted:
            raise self._bad(text)
        if wanted in (int, float):
            inside = (self.low is None or value >= self.low) and (
                self.high is None or value <= self.high
            )
            if not inside or (wanted is float and not math.isfinite(value)):
                raise self._bad(text)
        return value

    def _bad(self, text: Any) -> BadInput:
        low, high = ("" if v is None else f"{v:,.10g}" for v in (self.low, self.high))
        span = f" in {low}..{high}" if low or high else ""
        return BadInput(
            f"{self.name}={str(text)[:60]}: {self.name} takes {self.type}{span}, like {self.default!r}"
        )


def notebooks(root: Path) -> list[Path]:
    """The project's NNN_slug.ipynb, in order; copies such as 101_ssr-Copy1.ipynb are not among them."""
    books = sorted((root / "notebooks").glob("*.ipynb"))
    return [path for path in books if NOTEBOOK.fullmatch(path.stem)]


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


def _cells(name: str, text: bytes) -> list[dict]:
    try:
        return json.loads(text)["cells"]
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{name} is not a notebook: its JSON has no cells") from None


def inspect(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook; raises BadInput where the cell does not read as it should."""
    return _parameters(notebook.name, notebook.read_bytes()).copy()


@lru_cache(maxsize=16)  # a sweep inspects one text at every run, and tests at every value
def _parameters(name: str, text: bytes) -> dict[str, Parameter]:
    """`inspect` of a file's name and text."""
    cells = [
        "".join(c["source"])
        for c in _cells(name, text)
        if "parameters" in c["metadata"].get("tags", [])
    ]
    if len(cells) != 1:
        raise BadInput(f"{name}: {len(cells)} cells tagged parameters, there must be one")
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(cells[0]).readline))
        lines = ast.parse(cells[0]).body
    except (SyntaxError, tokenize.TokenError) as error:
        raise BadInput(f"{name}, parameters: not Python: {error.args[0]}") from None
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    found = {}
    for line in lines:
        typed = isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        kind = ast.unparse(line.annotation) if typed else ""
        if kind.removeprefix("list[").removesuffix("]") not in TYPES or line.value is None:
            raise BadInput(
                f"{name}, parameters: '{ast.unparse(line)}' is not 'name: type = literal' "
                f"with a type of {', '.join(TYPES)} or list[...] of one"
            )
        comment = comments.get(line.lineno, "")
        span = RANGE.search(comment)
        low, high = (
            (float(g.replace("_", "")) if g else None for g in span.groups())
            if span
            else (None, None)
        )
        known = line.target.id
        try:
            default = ast.literal_eval(line.value)
        except (ValueError, TypeError):
            raise BadInput(f"{name}, parameters: {known} is not a literal") from None
        found[known] = Parameter(known, kind, default, comment, low, high)
        found[known].cast(default)
    return found


def settle(
    notebook: Path, profile: str = "quick", overrides: dict[str, str] | None = None
) -> dict[str, Any]:
    """All parameters of a run: defaults, then the profile's, then the overrides.

    Raises BadInput for an unknown profile or name, a wrong type or an impossible value.
    """
    known, slug = inspect(notebook), NOTEBOOK.fullmatch(notebook.stem)[2]
    chosen = {name: p.default for name, p in known.items()}
    sources = [overrides or {}]
    if profile != "quick":
        import yaml

        try:
            every = yaml.safe_load((notebook.parent / "profiles.yaml").read_text()) or {}
            profiles = {str(k): dict(v or {}) for k, v in (every.get(slug) or {}).items()}
        except (yaml.YAMLError, AttributeError, TypeError, ValueError):
            raise BadInput("profiles.yaml is not slug: {profile: {name: value}}") from None
        if profile not in profiles:
            names = ", ".join(["quick", *profiles])
            raise BadInput(f"{slug} has no profile {profile!r}; it has: {names}")
        sources.insert(0, profiles[profile])
    for source in sources:
        for name, value in source.items():
            parameter = pick(known, name, slug)
            chosen[parameter.name] = parameter.cast(value)
    return chosen


def pick(known: dict[str, Parameter], name: str, slug: str) -> Parameter:
    """The parameter of that name, in whatever case; raises BadInput with the nearest one."""
    match = next((n for n in known if n.lower() == str(name).lower()), None)
    if match is None:
        near = difflib.get_close_matches(str(name).lower(), known, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise BadInput(f"{slug} has no parameter {name!r}{hint}; it has: {', '.join(known)}")
    return known[match]


def run(
    notebook: Path,
    root: Path,
    profile: str = "quick",
    overrides: dict[str, Any] | None = None,
    progress: bool = True,
) -> Path:
    """Execute a notebook into a new folder under data/runs; returns the folder.

    It holds the executed notebook, record.json and the figures; its name ends with the record's key.
    One run at a time in a process: the kernel finds the folder in the environment. Raises BadInput
    before a kernel starts, RunFailed after a cell failed (the record says which), KeyboardInterrupt
    likewise.
    """
    parameters = settle(notebook, profile, overrides)
    import papermill  # seconds, not spent on a value that is refused
    from papermill.exceptions import PapermillExecutionError

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
            papermill.execute_notebook(
                notebook, executed, parameters, kernel_name="python3", language="python", cwd=notebook.parent,
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
            told = "the run is recorded, but its figures could not be written"
            raise RunFailed(f"{notebook.stem}: {told}: {problem}") from None
    if error is not None:
        if error["message"] == "interrupted":
            raise KeyboardInterrupt
        where = f" in cell {error['cell']}" if error["cell"] else ""
        raise RunFailed(f"{notebook.stem} failed{where}: {error['message']}")
    return folder


def _failed_cell(executed: Path) -> int | None:
    """The number, among the reader's code cells, of the last one that papermill started.

    Counts are no help: those of a cell that takes the kernel with it may never arrive. None where
    there is no notebook; one that a full disk cut short is removed: the record needs its room.
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


def refresh(notebook: Path, root: Path) -> list[Path]:
    """Execute a notebook in place with its defaults and draw its figures into figures/.

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
    return _save_with_pictures(notebook, executed, root)


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


def redraw(notebook: Path, root: Path) -> list[Path]:
    """Draw the figures of an executed notebook anew, into figures/ and into its outputs."""
    return _save_with_pictures(notebook, json.loads(notebook.read_text()), root)


def _save_with_pictures(notebook: Path, book: dict, root: Path) -> list[Path]:
    drawn = plots.attach_pictures(book, root / "figures", notebook.stem)
    notebook.write_text(json.dumps(book, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    return drawn


def card(notebook: Path) -> dict[str, str]:
    """Title and table of a notebook's first cell, keys in lower case; raises BadInput without one."""
    cells = _cells(notebook.name, notebook.read_bytes())
    source = "".join("".join(c["source"]) for c in cells[:1]).strip()
    if not source:
        raise BadInput(f"{notebook.name} has no card: its first cell is empty")
    found = {"title": source.splitlines()[0].lstrip("# ")}
    for line in source.splitlines():
        parts = [p.strip() for p in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(parts) == 2 and parts[0].strip("-"):
            found[parts[0].lower()] = parts[1]
    return found


def _literal(text: str) -> Any:
    """What `_word` reads; a list may hold bare words, as shells eat quotes, but no lists."""
    value = _word(text)
    if value == text and re.fullmatch(r"\[[^][{}'\"]*\]", text):
        return [_word(part.strip()) for part in text[1:-1].split(",") if part.strip()]
    return value


def _word(text: str) -> Any:
    """A Python literal, true or false in whatever case, or the text itself."""
    try:
        with warnings.catch_warnings():  # of odd escapes and numbers: what counts is what comes out
            warnings.simplefilter("ignore")
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text.lower() == "true" if text.lower() in ("true", "false") else text
