"""What code a run stands on: a notebook's code cells and the library files that they reach.

Two runs with one digest and one set of parameters are the same run. The files reached are those that
the cells import, those that these import, and so on, as the import statements say, also where they
stand inside functions. A change in a file that a notebook does not reach leaves its digest as it was.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

PACKAGE = "paperlab"


def of(code: str, library: dict[str, bytes]) -> str:
    """Digest of code cells and of the files that they reach: 16 hexadecimal digits."""
    whole = hashlib.sha256(code.encode())
    for name in reach(code, library):
        whole.update(name.encode() + hashlib.sha256(library[name]).digest())
    return whole.hexdigest()[:16]


def notebook(path: Path) -> str:
    """Digest of a notebook as it stands, with the library that is imported here."""
    return of(cells(path.read_bytes()), library())


def changed(path: Path, root: Path, commit: str) -> list[str] | None:
    """Names of the reached library files, and of the notebook, that differ from those of a commit.

    None where git does not know the commit, or the notebook was not in it.
    """
    then = _committed(root, commit, path.name)
    if then is None:
        return None
    (old_code, old), code, new = then, cells(path.read_bytes()), library()
    reached = sorted({*reach(old_code, old), *reach(code, new)})
    return [path.name] * (code != old_code) + [n for n in reached if old.get(n) != new.get(n)]


def cells(book: bytes) -> str:
    """The code cells of a notebook's JSON, without outputs."""
    sources = ["".join(c["source"]) for c in json.loads(book)["cells"] if c["cell_type"] == "code"]
    return "\n# %%\n".join(sources)


def library() -> dict[str, bytes]:
    """The library's Python files: name inside the package -> content."""
    here = Path(__file__).parent
    return {p.relative_to(here).as_posix(): p.read_bytes() for p in here.rglob("*.py")}


def reach(code: str, library: dict[str, bytes]) -> list[str]:
    """The library files that code imports, directly or not, sorted.

    All of them for code that is not plain Python, such as a cell magic.
    """
    found: set[str] = set()
    try:
        waiting = _imports(code, [])
    except SyntaxError:
        return sorted(library)
    while waiting:
        inside = waiting.pop().split(".")[1:]
        for depth in range(len(inside) + 1):  # importing a.b.c runs a and a.b as well
            place = "/".join(inside[:depth])
            for name in (f"{place}.py", f"{place}/__init__.py".lstrip("/")):
                if name in library and name not in found:
                    found.add(name)
                    package = name.split("/")[:-1]
                    waiting += _imports(library[name].decode(), [PACKAGE, *package])
    return sorted(found)


def _imports(code: str, package: list[str]) -> list[str]:
    """Dotted names inside the library that code in ``package`` imports; a name may be no module."""
    names = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{start}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] == PACKAGE]


def _committed(root: Path, commit: str, name: str) -> tuple[str, dict[str, bytes]] | None:
    """Code cells of a notebook and the library's files, as a commit has them."""
    lib, book = f"lib/{PACKAGE}", f"notebooks/{name}"
    command = ["git", "-C", str(root), "archive", "--format=tar", commit, "--", lib, book]
    try:
        done = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        return None
    if done.returncode:
        return None
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}
    python = {n.removeprefix(f"{lib}/"): f for n, f in files.items() if n.endswith(".py")}
    return cells(files[book]), python
