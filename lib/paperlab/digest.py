"""A digest of the code that decides a notebook's numbers.

Two runs with one digest and one set of parameters give the same numbers, on the same `own_sets`
where parameters name some. The digest covers

- the notebook's code cells, without the statements that only show something: calls on ``plots`` and
  ``widgets``, `records.show_reference` and `records.show_claims` (`verdict.show` counts: it puts
  claims into the record);
- the library files that the cells import, directly or not, also where an import stands inside a
  function, without those in `DISPLAY`, which draw, store and report numbers but make none;
- where the cells use ``tryout``: what the manifest says of it, and the files that it names;
- for each data set whose name is a string in the cells, in the manifest, or in a library file that
  is covered: its files' hashes in the catalogue, and its loader.

Code is compared as a syntax tree: comments, docstrings, formatting and text cells do not count.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = "paperlab"
DISPLAY = frozenset(
    f"{name}.py"
    for name in (
        *("plots", "charts", "diagrams", "widgets", "explorer_view", "verdict", "evidence", "machine"),
        *("records", "recording", "parameters", "manifest", "digest", "runs", "sweep", "ledger"),
        *("index", "diff", "commands", "listing", "cli", "new", "teach"),
    )
)  # fmt: skip
SHOWING = frozenset({"records.show_reference", "records.show_claims"})
CATALOGUE = "data/catalogue.toml"


class Code(NamedTuple):
    """A file as the digest sees it: a hash of its syntax tree, its imports, and its strings."""

    form: str
    imports: tuple[tuple[int, str], ...]  # (leading dots, dotted name)
    strings: frozenset[str]


def of(code: str, library: dict[str, bytes], words: Sequence[str] = ()) -> str:
    """Digest of code cells and of the files that they reach: 16 hexadecimal digits.

    library: see `library`; words: names of data sets beside the strings in the cells.
    """
    whole = hashlib.sha256(parse(code.encode()).form.encode())
    for name in reach(code, library, words):
        whole.update(f"{name} {parse(library[name]).form}\n".encode())
    return whole.hexdigest()[:16]


def notebook(path: Path) -> str:
    """Digest of a notebook as it stands, with the library that is imported here."""
    code = cells(path.read_bytes())
    return of(code + tryout_cell(path, code), library(), manifest_words(path))


def changed(path: Path, root: Path, commit: str) -> list[str] | None:
    """The notebook's name and its library files that differ from those of a commit.

    commit: a full hash. None where git does not know the commit, or the notebook was not in it.
    """
    book = _git(root, "show", f"{commit}:notebooks/{path.name}")
    then = committed(root, commit) if book is not None else None
    if then is None:
        return None
    old, new = cells(book), cells(path.read_bytes())
    old, new = old + tryout_cell(path, old), new + tryout_cell(path, new)
    now, words = library(), manifest_words(path)
    reached = sorted({*reach(old, then, words), *reach(new, now, words)})
    edited = parse(old.encode()).form != parse(new.encode()).form
    return [path.name] * edited + [n for n in reached if _form(then, n) != _form(now, n)]


def cells(book: bytes) -> str:
    """The code cells of a notebook's JSON, without outputs."""
    sources = ["".join(c["source"]) for c in json.loads(book)["cells"] if c["cell_type"] == "code"]
    return "\n# %%\n".join(sources)


def manifest_words(path: Path) -> list[str]:
    """The strings under ``data`` and ``profiles`` of a notebook's manifest, NNN_slug.toml beside it.

    A set that is named with a part, NAME/PART, counts as NAME too.
    """
    manifest = path.with_suffix(".toml")
    fields = tomllib.loads(manifest.read_text()) if manifest.is_file() else {}
    words = list(_texts([fields.get("data"), fields.get("profiles")]))
    return [*words, *(word.partition("/")[0] for word in words if "/" in word)]


def tryout_cell(path: Path, code: str) -> str:
    """A made-up cell that imports what `paperlab.tryout` imports by name; empty where none uses it."""
    manifest = path.with_suffix(".toml")
    terms = tomllib.loads(manifest.read_text()).get("tryout") if manifest.is_file() else None
    if not terms or "tryout" not in code:
        return ""
    modules = f"{PACKAGE}.scoring.{terms['kind']}", f"{PACKAGE}.{terms['contenders']}"
    return f"\n# %%\nimport {', '.join(modules)}\ntryout_terms = {terms!r}"


def own_sets(parameters: dict) -> dict[str, str]:
    """SHA-256 of the sets of your own in data/local that a run's parameters name, NAME or NAME/PART."""
    # `shelf.root`, which would import torch
    root = Path(os.environ.get("PAPERLAB_LOCAL") or Path(__file__).parents[2] / "data/local")
    named = {text.partition("/")[0] for text in _texts([*parameters.values()])}
    made = {p.parent.name: p for p in sorted(root.glob("[!.]*/notes.json"))}
    notes = {name: json.loads(p.read_text()) for name, p in made.items() if name in named}
    return {name: found.get("sha256") for name, found in notes.items()}


def library() -> dict[str, bytes]:
    """The library's Python files and `catalogued` sets: name inside the package -> content."""
    here = Path(__file__).parent
    files = {p.relative_to(here).as_posix(): p.read_bytes() for p in here.rglob("*.py")}
    catalogue = here.parents[1] / CATALOGUE
    return files | catalogued(catalogue.read_text() if catalogue.is_file() else "")


def catalogued(text: str) -> dict[str, bytes]:
    """A made-up file catalogue/SET.py for each set of the catalogue: its pins, importing its loader."""
    files = {}
    for name, entry in tomllib.loads(text).items():
        pins = {k: entry[k] for k in ("kind", "folder", "files", "local") if k in entry}
        loader = f"import {PACKAGE}.data.sets.{entry['loader']}\n" if "loader" in entry else ""
        files[f"catalogue/{name}.py"] = f"{loader}pins = {pins!r}".encode()
    return files


def reach(code: str, library: dict[str, bytes], words: Sequence[str] = ()) -> list[str]:
    """The library files that decide what code computes, sorted; for the arguments see `of`.

    All of the library for code that is not plain Python, such as a cell magic.
    """
    start = parse(code.encode())
    if not start.form.startswith("Module"):
        return sorted(library)
    reached: set[str] = set()
    waiting = [*_absolute(start, []), *_sets(start.strings.union(words), library)]
    while waiting:
        inside = waiting.pop().split(".")[1:]
        for depth in range(len(inside) + 1):  # importing a.b.c runs a and a.b as well
            place = "/".join(inside[:depth])
            for name in (f"{place}.py", f"{place}/__init__.py".lstrip("/")):
                if name in library and name not in reached and name not in DISPLAY:
                    reached.add(name)
                    file = parse(library[name])
                    waiting += _absolute(file, [PACKAGE, *name.split("/")[:-1]])
                    if not name.startswith(("data/", "catalogue/")):
                        waiting += _sets(file.strings, library)
    return sorted(reached)


@lru_cache(maxsize=4096)
def parse(source: bytes) -> Code:
    """What the digest takes from a file; each content is parsed once a process.

    The form of code that is not Python is the text itself.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return Code(source.decode(), (), frozenset())
    imports, strings = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports += [
                (node.level, f"{node.module or ''}.{a.name}".strip(".")) for a in node.names
            ]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.add(node.value)
    form = hashlib.sha256(" ".join(_walk(tree)).encode()).hexdigest()
    return Code(f"Module {form}", tuple(imports), frozenset(strings))


@lru_cache(maxsize=64)
def committed(root: Path, commit: str) -> dict[str, bytes] | None:
    """What `library` gave at a commit; None where git does not know it. Two calls of git a commit."""
    lib = f"lib/{PACKAGE}/"
    listed = _git(root, "ls-tree", "-r", "--name-only", commit, "--", lib, CATALOGUE)
    if listed is None:
        return None
    names = [n for n in listed.decode().splitlines() if n.endswith((".py", ".toml"))]
    answer = _git(root, "cat-file", "--batch", asked="".join(f"{commit}:{n}\n" for n in names))
    files = {}
    for name in names:  # a line "hash blob SIZE", SIZE bytes, an end of line
        head, _, answer = answer.partition(b"\n")
        size = int(head.split()[-1])
        files[name.removeprefix(lib)], answer = answer[:size], answer[size + 1 :]
    return files | catalogued(files.pop(CATALOGUE, b"").decode())


def _walk(node: ast.AST) -> Iterator[str]:
    """The words of a syntax tree, the same in every version of Python: no empty fields."""
    yield type(node).__name__
    for name, value in ast.iter_fields(node):
        if name in ("kind", "type_comment", "type_ignores") or value is None or value == []:
            continue
        yield name
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, ast.AST):
                yield repr(part)
            elif not (isinstance(part, ast.Expr) and _shows(part.value)):
                yield from _walk(part)
    yield ")"


def _shows(value: ast.expr) -> bool:
    """Whether a statement computes nothing: a docstring, or a call that only shows."""
    if isinstance(value, ast.Constant):
        return isinstance(value.value, str)
    if not isinstance(value, ast.Call):
        return False
    called = ast.unparse(value.func)
    return called in SHOWING or called.split(".")[0] in ("plots", "widgets")


def _absolute(file: Code, package: list[str]) -> list[str]:
    """Dotted names inside the library that a file in ``package`` imports; a name may be no module."""
    names = []
    for level, name in file.imports:
        base = package[: len(package) - level + 1] if level else []
        names.append(".".join([*base, name]))
    return [name for name in names if name.split(".")[0] == PACKAGE]


def _sets(words: frozenset[str], library: dict[str, bytes]) -> list[str]:
    """Dotted names of the made-up files of the data sets among words."""
    return [f"{PACKAGE}.catalogue.{w}" for w in words if f"catalogue/{w}.py" in library]


def _form(library: dict[str, bytes], name: str) -> str | None:
    return parse(library[name]).form if name in library else None


def _texts(value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _git(root: Path, *words: str, asked: str | None = None) -> bytes | None:
    """What git prints; None where there is no git, or it refuses."""
    given = None if asked is None else asked.encode()
    try:
        done = subprocess.run(["git", "-C", str(root), *words], input=given, capture_output=True)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
