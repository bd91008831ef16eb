"""Hugging Face checkpoints as policies, and LoRA on any policy (needs the extra ``llm``).

policy = load_checkpoint("smollm2-135m")       # a model of `paperlab data`, or a folder of your own
pairs = tokenise(load("hh-rlhf-harmless-test"), policy.tokenizer)
module = PreferenceTuning(add_lora(policy, rank=8), "otpo")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks, data
from ..data import catalogue
from .preferences import BYTES, Pair, Preferences
from .tiny_lm import Output

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


class Checkpoint(nn.Module):
    """A transformers causal model that answers as `TinyLM` does; its tokenizer comes with it."""

    def __init__(self, model: nn.Module, tokenizer):
        super().__init__()
        self.model, self.tokenizer = model, tokenizer

    def forward(
        self, ids: Int[Tensor, "B S"], attention_mask: Bool[Tensor, "B S"] | None = None
    ) -> Output:
        """Logits, and the last hidden states: after the final norm in Llama, Qwen and GPT-2."""
        places = {}
        if attention_mask is not None:  # transformers counts padding on the left as positions
            position = (attention_mask.long().cumsum(1) - 1).clamp_min(0)
            places = {"attention_mask": attention_mask.long(), "position_ids": position}
        out = self.model(input_ids=ids, output_hidden_states=True, use_cache=False, **places)
        return Output(out.logits, out.hidden_states[-1])


def load_checkpoint(
    name: str | Path, *, dtype: str = "float32", checkpointing: bool = False
) -> Checkpoint:
    """A causal model ready to be trained.

    name: a model of the catalogue (``smollm2-135m``), a folder that transformers can read, or a name
        on the Hugging Face hub.
    dtype: of the weights, as transformers writes it. checkpointing: recompute activations in the
    backward pass. Dropout is off, in the policy and so in its reference.
    Only weights are read: code that comes with a checkpoint is never run, nor asked about.
    Raises ModuleNotFoundError without transformers, OSError where there is no such checkpoint (for
    a model of the catalogue, with the command that installs it), ValueError for one that is broken
    or needs code of its own.
    """
    transformers = _need("transformers")
    name = _folder(name)
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, trust_remote_code=False
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # of safetensors, pickle, torch, json: there is no common one
        if isinstance(error, OSError) and error.errno is None:  # transformers: not there
            raise
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{name} cannot be read as weights alone: {reason}") from None
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return Checkpoint(model, tokenizer)


class SentenceEncoder(nn.Module):
    """Texts to unit vectors: the mean of a BERT-like encoder's last states over real tokens.

    name: ``minilm-l6``, or a folder with such a model. longest: tokens of a text that are read.
    Raises OSError where there is no such model, ValueError for a size out of range.
    """

    def __init__(self, name: str | Path = "minilm-l6", longest: int = 256):
        super().__init__()
        checks.whole(longest=longest)
        transformers, folder = _need("transformers"), _folder(name)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModel.from_pretrained(folder).eval()
        self.longest = longest

    @torch.no_grad()
    def forward(self, texts: Sequence[str], batch_size: int = 64) -> Float[Tensor, "n D"]:
        """Vectors of length 1, in the order of the texts."""
        parts = [torch.empty(0, self.model.config.hidden_size)]
        for start in range(0, len(texts), batch_size):
            batch = self.tokenizer(
                [*texts[start : start + batch_size]],
                padding=True,
                truncation=True,
                max_length=self.longest,
                return_tensors="pt",
            ).to(self.model.device)
            states = self.model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None].to(states.dtype)
            parts.append(F.normalize((states * mask).sum(1) / mask.sum(1), dim=1).cpu())
        return torch.cat(parts)


def add_lora(policy: nn.Module, rank: int = 8, alpha: float | None = None) -> nn.Module:
    """The policy frozen, with a low-rank adapter on every linear layer but the output.

    rank >= 1; alpha: scale, 2 rank when None. The adapter starts at zero: policy = reference.
    Raises ValueError for a rank below 1, ModuleNotFoundError without peft.
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    peft = _need("peft")
    kinds = ("Linear", "Conv1D")  # GPT-2 writes its linear layers as Conv1D
    layers = [n for n, m in policy.named_modules() if type(m).__name__ in kinds]
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        target_modules=[n for n in layers if not n.endswith("lm_head")],
    )
    return peft.get_peft_model(policy, config)


@dataclass(frozen=True)
class Tokenised(Preferences):
    """Pairs in the ids of a checkpoint's tokenizer, with its own end-of-text and padding."""

    end: int = 0
    padding: int = 0

    @property
    def eos(self) -> int:
        return self.end

    @property
    def pad(self) -> int:
        return self.padding

    @property
    def vocabulary(self) -> int:
        return self.symbols


def tokenise(pairs: Preferences, tokenizer) -> Tokenised:
    """Pairs of text in a tokenizer's ids; every response ends with its end-of-text.

    Prompt and responses are tokenised apart, so that both responses share the prompt's tokens.
    Raises ValueError for pairs that are not text or a tokenizer without an end-of-text.
    """
    if pairs.symbols != BYTES or pairs.names is not None:
        raise ValueError(f"pairs must be text, got {pairs.name} over {pairs.symbols} symbols")
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError("tokenizer must have an end-of-text token")

    def ids(symbols: tuple[int, ...]) -> tuple[int, ...]:
        text = bytes(s for s in symbols if s < BYTES).decode(errors="replace")
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    def closed(symbols: tuple[int, ...]) -> tuple[int, ...]:
        return (*ids(symbols), end) if symbols[-1:] == (pairs.eos,) else ids(symbols)

    padding = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    rows = tuple(Pair(ids(p.prompt), closed(p.chosen), closed(p.rejected)) for p in pairs.pairs)
    names = tuple(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    return Tokenised(
        f"{pairs.name}, tokenised", rows, len(tokenizer), names, (), end=end, padding=padding
    )


def _folder(name: str | Path) -> str | Path:
    """The folder of a model that the catalogue has, else the name itself."""
    entry = catalogue.entries().get(str(name))
    return data.load(entry.name).folder if entry and entry.kind == "model" else name


def _need(package: str):
    """An optional package, or how to get it."""
    from importlib import import_module

    try:
        return import_module(package)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{package} is missing: pip install 'paperlab[llm]'") from None
