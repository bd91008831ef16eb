"""A small causal transformer with a key-value cache, to train from scratch in a notebook.

Pre-norm blocks as in GPT-2, with what later models kept: RMSNorm, rotary positions, SwiGLU, no
biases, input and output embeddings tied. It answers as a Hugging Face model does, with ``logits``
and the last ``hidden`` states after the final norm, so that one training module serves both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .. import checks

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


class Output(NamedTuple):
    """logits[:, t] predict token t + 1 from hidden[:, t], the last state after the final norm."""

    logits: Float[Tensor, "B S V"]
    hidden: Float[Tensor, "B S D"]


class Cache:
    """Keys and values of the tokens read so far, by layer; grows at every call of the model."""

    def __init__(self, layers: int):
        self.keys: list[Tensor | None] = [None] * layers
        self.values: list[Tensor | None] = [None] * layers

    def __len__(self) -> int:
        return 0 if self.keys[0] is None else self.keys[0].shape[2]

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys[layer] is not None:
            k = torch.cat([self.keys[layer], k], 2)
            v = torch.cat([self.values[layer], v], 2)
        self.keys[layer], self.values[layer] = k, v
        return k, v


class Block(nn.Module):
    """x + Attention(norm(x)), then x + SwiGLU(norm(x))."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        inner = 8 * dim // 3
        self.gate_up = nn.Linear(dim, 2 * inner, bias=False)
        self.down = nn.Linear(inner, dim, bias=False)

    def forward(
        self, x: Float[Tensor, "B S D"], turn: Tensor, mask: Tensor | None, cache, layer: int
    ) -> Float[Tensor, "B S D"]:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, turn), rotate(k, turn)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        # With no mask, a whole sequence is causal; one new token may see all that the cache holds.
        causal = mask is None and q.shape[2] > 1
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, 2)
        return x + self.down(F.silu(gate) * up)


class TinyLM(nn.Module):
    """A decoder of ``layers`` blocks over ids 0..vocabulary-1.

    dim: width, a multiple of 2 * heads. Weights start normal with sd 0.02, those that write into
    the residual stream smaller by sqrt(2 layers), as in GPT-2.
    Raises ValueError for sizes out of range.
    """

    def __init__(self, vocabulary: int, dim: int = 128, layers: int = 4, heads: int = 4):
        if min(vocabulary, dim, layers, heads) < 1 or dim % (2 * heads):
            raise ValueError(
                f"vocabulary, layers, heads must be at least 1 and dim a multiple of 2 * heads, "
                f"got {vocabulary}, {layers}, {heads}, {dim}"
            )
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(layers))
        self.norm = nn.RMSNorm(dim)
        half = dim // heads // 2
        self.register_buffer(
            "frequencies", 10_000.0 ** (-torch.arange(half) / half), persistent=False
        )
        self.checkpointing = False  # recompute each block in the backward pass: less memory
        nn.init.normal_(self.embed.weight, std=0.02)
        for block in self.blocks:
            for linear in (block.qkv, block.gate_up):
                nn.init.normal_(linear.weight, std=0.02)
            for linear in (block.out, block.down):
                nn.init.normal_(linear.weight, std=0.02 / (2 * layers) ** 0.5)

    def forward(
        self,
        ids: Int[Tensor, "B S"],
        attention_mask: Bool[Tensor, "B S"] | None = None,
        cache: Cache | None = None,
    ) -> Output:
        """Logits and hidden states of a batch.

        attention_mask: False on padding, either side; None where there is none, or only on the
            right, where a causal model never looks. cache: what was read before ``ids``.
        """
        past = 0 if cache is None else len(cache)
        place = torch.arange(past, past + ids.shape[1], device=ids.device).expand_as(ids)
        mask = None
        if attention_mask is not None or (past and ids.shape[1] > 1):
            seen = torch.arange(past + ids.shape[1], device=ids.device)
            mask = seen <= place[..., None]  # (B, S, past + S)
            if attention_mask is not None:
                if past:
                    raise ValueError("attention_mask and a filled cache do not go together")
                attention_mask = attention_mask.bool()
                place = (attention_mask.cumsum(1) - 1).clamp_min(0)  # count real tokens only
                # A padded query sees itself, so that its softmax is not over nothing.
                own = torch.eye(len(seen), dtype=torch.bool, device=ids.device)
                mask = mask & attention_mask[:, None] | own
            mask = mask[:, None]
        angle = place[:, None, :, None] * self.frequencies
        turn = torch.polar(torch.ones_like(angle), angle)
        x = self.embed(ids)
        for layer, block in enumerate(self.blocks):
            if self.checkpointing and self.training:
                x = checkpoint(block, x, turn, mask, cache, layer, use_reentrant=False)
            else:
                x = block(x, turn, mask, cache, layer)
        hidden = self.norm(x)
        return Output(F.linear(hidden, self.embed.weight), hidden)

    @torch.no_grad()
    def sample(
        self,
        ids: Int[Tensor, "B S"],
        length: int,
        temperature: float = 1.0,
        stop: int | None = None,
        generator: torch.Generator | None = None,
        cached: bool = True,
    ) -> Int[Tensor, "B length"]:
        """Continue prompts of one length by at most ``length`` tokens; 0 temperature is greedy.

        After the id ``stop`` a row is filled with it. ``cached=False`` reads the whole sequence
        anew for every token: the same tokens, slower.
        """
        checks.whole(length=length)
        checks.at_least(0, temperature=temperature)
        if not ids.shape[1]:
            raise ValueError("ids must hold at least one token a row; start with an end-of-text")
        training = self.training
        self.eval()
        cache = Cache(len(self.blocks)) if cached else None
        new, done = ids, torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        whole = ids
        for _ in range(length):
            logits = self(new if cached else whole, cache=cache).logits[:, -1].float()
            if temperature == 0:
                token = logits.argmax(1)
            else:
                # Without the largest logit: a temperature near 0 would make it infinite.
                apart = (logits - logits.amax(1, keepdim=True)).double()
                odds = F.softmax(apart / temperature, 1).float()
                token = torch.multinomial(odds, 1, generator=generator)[:, 0]
            if stop is not None:
                token = token.masked_fill(done, stop)
                done = done | (token == stop)
            new = token[:, None]
            whole = torch.cat([whole, new], 1)
            if stop is not None and done.all():
                break
        self.train(training)
        return whole[:, ids.shape[1] :]


def rotate(x: Float[Tensor, "B H S d"], turn: Tensor) -> Float[Tensor, "B H S d"]:
    """Rotary positions: neighbours (x_2k, x_2k+1) turn by position times frequency k."""
    precise = x.to(torch.promote_types(x.dtype, torch.float32))
    pairs = torch.view_as_complex(precise.unflatten(3, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn).flatten(3).type_as(x)
