"""Prepared stores: their folders, the lock that makes each of them once, and .npy headers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from . import catalogue
from .catalogue import Entry


def cache_root() -> Path:
    """PAPERLAB_CACHE, or data/cache of the project."""
    return Path(os.environ.get("PAPERLAB_CACHE") or catalogue.data_root() / "cache")


def prepared(entry: Entry, name: str, key: list, make: Callable[[Path, dict], None]) -> Path:
    """The folder of a store under `cache_root`, made with ``make(folder, notes)`` where it is missing.

    name: that of the set or of its part. key: everything that determines the bytes, as JSON values.
    """
    digest = hashlib.sha256(json.dumps([name, *key]).encode()).hexdigest()[:10]
    folder = cache_root() / f"{name}-{digest}"
    if not is_store(folder):
        notes = {"title": entry.title, "terms": entry.terms, "citation": entry.citation}
        make(folder, notes)
    return folder


def is_store(folder: Path) -> bool:
    """Whether the folder is a complete store: it is renamed to this name only at the end."""
    return (folder / "schema.json").is_file()


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """One process at a time makes ``target``; the lock ends with the process, killed or not."""
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        yield


def finish_npy(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """Put the .npy header before the raw rows at ``path``, in a copy NAME.npy that streams."""
    target = path.with_name(path.name + ".npy")
    with target.open("wb") as out, path.open("rb") as raw:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(out, header)
        shutil.copyfileobj(raw, out, 16 << 20)
