"""SmolLM2-135M-Instruct: weights of 4 bits (GGUF's Q4_1) to float32 safetensors."""

from __future__ import annotations

from pathlib import Path

from ..catalogue import Entry
from ..formats import weights
from ..kinds import ModelFolder


def load(entry: Entry) -> ModelFolder:
    """The model's folder, with its tokenizer and chat template."""
    return weights.unpacked(entry, _dequantised)


def _dequantised(source: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = {"gguf_file": source.name}
    read = AutoModelForCausalLM.from_pretrained(source.parent, dtype="float32", **file)
    config = read.config
    del config.quantization_config  # the weights are plain numbers now
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.parent, **file).save_pretrained(folder)
