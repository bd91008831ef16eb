"""Whether a checkpoint belongs to a run, so that training may resume from it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import lightning as L
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

SAMPLED = 1000  # rows of a part


def resumable(path: Path, run: dict, epochs: int) -> str | None:
    """The path if it holds a checkpoint of this run; None if there is no file.

    run: the settings that both runs must share, as `paperlab.loop.fit` stores them.
    epochs: to be trained in all.
    Raises ValueError, in one line, for a file that is not a checkpoint of tensors and plain values,
    for one of another run, and for one with more epochs.
    """
    if not path.is_file():
        return None
    advice = "delete it, or name another file"
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        state = content["callbacks"]["_Checks"]
        then, done = state["run"], state["epochs"]
        whole = {"state_dict", "optimizer_states"} <= set(content)
    except Exception:  # of pickle, zip files, torch: there is no common one
        whole = False
    if not whole:
        raise ValueError(f"{path} is not a checkpoint to resume from: {advice}")
    for name, value in run.items():
        if then.get(name) != value:
            hashed = name in ("model", "data")
            what = f"its {name} differs" if hashed else f"{name} {then.get(name)}, not {value}"
            raise ValueError(f"{path} belongs to another run ({what}): {advice}")
    if done > epochs:
        raise ValueError(f"{path} has {done} epochs, more than epochs={epochs}: {advice}")
    return str(path)


def model_hash(model: L.LightningModule) -> str:
    """A hash of a model's class, layers, shapes and plain settings, but not of its weights."""

    def plain(value: object) -> bool:
        if isinstance(value, (dict, list, tuple)):
            return all(map(plain, value.values() if isinstance(value, dict) else value))
        return isinstance(value, (bool, int, float, str))

    settings = {
        name: value
        for name, value in sorted(vars(model).items())
        if name != "training" and not name.startswith("_") and plain(value)
    }
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    text = repr((type(model).__qualname__, repr(model), settings, shapes))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def data_hash(data: object, first: object) -> str:
    """A hash of the first batch of training, and of `SAMPLED` rows spread over each part of a log.

    Parts without ``take`` and a length do not count.
    """
    digest = hashlib.blake2b(digest_size=16)

    def add(tensor: Tensor) -> None:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())

    apply_to_collection(first, Tensor, add)
    for name in ("train", "valid", "test"):
        part = getattr(data, name, data if name == "train" else None)
        if hasattr(part, "take") and hasattr(part, "__len__"):
            rows = torch.linspace(0, len(part) - 1, min(SAMPLED, len(part))).long()
            digest.update(f"{name} {len(part)}".encode())
            apply_to_collection(part.take(rows), Tensor, add)
    return digest.hexdigest()
