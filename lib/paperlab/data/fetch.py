"""Find or download the files of a data set; each is checked before use."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from .catalogue import Entry, File, data_root
from .stores import locked


class Broken(ValueError):
    """A file that is damaged, incomplete, or of another format than its name says."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged archive into Broken: one line that names the file."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise Broken(f"{path.name} is broken: delete and fetch it again ({error})") from None


def local_form(entry: Entry, *names: str) -> dict[str, Path] | None:
    """The paths of a set's local form, checked against their hashes, or None when not all are there.

    names: the files wanted; all of them by default.
    """
    wanted = [f for f in entry.local if f.name in names or not names]
    paths = {f.name: p for f in wanted if (p := _find(entry, f)) is not None}
    if len(paths) < len(wanted) or not paths:
        return None
    for file in wanted:
        _check(paths[file.name], file)
    return paths


def official(entry: Entry, name: str) -> Path:
    """The path of an official file: a copy on this machine, or a download to data/NAME/.

    Raises FileNotFoundError that says where to get it and where to put it, ValueError for a file of
    the wrong size or hash. A failed download leaves no file.
    """
    file = next(f for f in entry.files if f.name == name)
    path = _find(entry, file)
    if path is None and file.url is None:
        raise missing(entry, file.name)
    if path is None:
        target = data_root() / entry.name / file.name
        with locked(target):  # another process may have fetched it meanwhile
            path = _find(entry, file) or _download(entry, file, target)
    _check(path, file)
    return path


def missing(entry: Entry, *names: str) -> FileNotFoundError:
    """The error for a set that has no copy here, or lacks the named files."""
    names = ", ".join(names) or " or ".join(
        ", ".join(f.name for f in form) for form in (entry.files, entry.local) if form
    )
    if entry.package:
        return FileNotFoundError(f"{entry.name}: {names} not found; `make models` installs it")
    return FileNotFoundError(
        f"{entry.name}: {names} not found; get it from {entry.home} and put it in data/{entry.name}/, "
        "or name its folder in PAPERLAB_DATA"
    )


def _find(entry: Entry, file: File) -> Path | None:
    folders = [data_root()]
    folders += [Path(p) for p in os.environ.get("PAPERLAB_DATA", "").split(os.pathsep) if p]
    for folder in folders:
        for name in (entry.name, entry.folder or entry.name):
            if (folder / name / file.name).is_file():
                return folder / name / file.name
    package = find_spec(entry.package) if entry.package else None  # found, not imported
    for folder in (package and package.submodule_search_locations) or ():
        if Path(folder, file.name).is_file():
            return Path(folder, file.name)
    return None


def _download(entry: Entry, file: File, target: Path) -> Path:
    import pooch

    draft = target.with_name(f".{file.name}.download")
    print(f"{entry.title}: {entry.terms}. Cite: {entry.citation}", file=sys.stderr)
    try:
        pooch.HTTPDownloader(progressbar=False, timeout=60)(file.url, str(draft), None)
        _check(draft, file)
        if file.sha256 == "unverified":
            digest = sha256(draft)
            target.with_name(file.name + ".sha256").write_text(digest)
            print(f"{file.name}: pinned sha256 {digest}", file=sys.stderr)
        draft.replace(target)
    except (OSError, ValueError) as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, ValueError) or getattr(error, "errno", None) == 28:
            raise
        raise FileNotFoundError(
            f"{missing(entry, file.name)} (the download failed: {type(error).__name__})"
        ) from None
    return target


def _check(path: Path, file: File) -> None:
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        raise ValueError(
            f"{file.name} has {size:,} bytes instead of {file.size:,}: delete and fetch it again"
        )
    wanted = file.sha256
    if wanted == "unverified":
        pin = path.with_name(path.name + ".sha256")
        if not pin.is_file():
            return
        wanted = pin.read_text().strip()
    if sha256(path) != wanted:
        raise ValueError(
            f"{file.name} has another SHA-256 than {wanted[:12]}…: delete and fetch it again"
        )


def sha256(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
