"""all-MiniLM-L6-v2: an encoder of sentences, from a zip with its safetensors."""

from __future__ import annotations

import zipfile
from pathlib import Path

from .. import fetch
from ..catalogue import Entry
from ..formats import weights
from ..kinds import ModelFolder


def load(entry: Entry) -> ModelFolder:
    """The model's folder, with its tokenizer."""
    return weights.unpacked(entry, _unzipped)


FILES = ("config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json")
FILES += ("tokenizer_config.json",)


def _unzipped(source: Path, folder: Path) -> None:
    with fetch.reading(source), zipfile.ZipFile(source) as archive:
        for name in FILES:
            (folder / name).write_bytes(archive.read(name))
