"""GR: an amount as a short sequence of tokens whose values add up to it, decoded one by one.

Ma et al., "Generative Regression Based Watch Time Prediction for Short-Video Recommendation", WWW
2026, arXiv 2412.20211; released code snailma0229/GR.

    1. vocabulary    peel the amounts with falling quantiles; each quantile is a token's value
    2. labels        y -> sos, v_1 >= v_2 >= ..., eos, greedily, with sum v = y
    3. decoder       causal self-attention over tokens + the encoder's vector -> logits of the next
    4. CLEM          pass 1 reads gold tokens; in pass 2 position i >= 1 reads, with probability
                     1 - rho (one draw a position for the whole batch), what pass 1 predicted at
                     i - 1: its likeliest token, or (mixup) its expected embedding softmax(l) E
    5. value         sum over positions of the expected value within a window around the likeliest
    6. loss          cross-entropy of pass 2, summed over positions, + weight * Huber(value, y)

Where paper and code differ from us. The code builds the vocabulary from training and test rows and
subtracts quantiles that are not whole; here it is built from training amounts, in whole ticks,
without duplicates, and ends in 1, so that every amount has a sequence. The code's rate of decay
makes rho 0 after one batch; here rho falls linearly over a share of all steps. The decoder's
cross-attention reads a memory of length one, where a softmax over keys is 1 whatever the query: it
equals adding a linear map of the memory, which is what we compute (a test compares).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from ..data.schema import Schema
from ..data.store import Batch, Split
from .decoder_layer import DecoderLayer
from .regressors import AmountModel

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

PAD, SOS, EOS = 0, 1, 2
SPECIAL = 3  # tokens without a value
TEACHERS = ("mixup", "hard", "gold")
READS = ("window", "renormalised", "token")


def vocabulary(
    amounts: Int[np.ndarray, " n"],
    *,
    start: float = 0.9999,
    end: float = 0.9,
    decay: float = 0.99,
    tolerance: float = 1e-6,
) -> tuple[int, ...]:
    """Token values, falling, the last 1 (step 1).

    amounts: whole numbers >= 0, at least one above 0. Each round takes the quantile z of what is
    left, rounded down, and subtracts it wherever it fits. The quantile's rank falls from ``start``
    to ``end`` by the factor ``decay``; rounds end at z = 0, or when at most ``tolerance`` of every
    amount is left. Raises ValueError for values out of range.
    """
    checks.inside("(0, 1]", start=start, end=end, decay=decay)
    left = np.asarray(amounts)
    if len(left) == 0 or left.min() < 0 or left.max() < 1 or (left != left.astype(int)).any():
        raise ValueError("amounts must be whole numbers of at least 0, one of them above 0")
    whole = left = left.astype(int)
    values, rank = {1}, start
    while (left > tolerance * whole).any():
        z = int(np.quantile(left, rank))
        if z == 0:
            break
        values.add(z)
        left = np.where(left >= z, left - z, left)
        rank = max(end, decay * rank)
    return tuple(sorted(values, reverse=True))


def tokens_of(amounts: Int[Tensor, " n"], values: Sequence[int]) -> Int[Tensor, "n T"]:
    """v_1 >= v_2 >= ..., eos, then padding (step 2): the largest value that fits, again and again.

    amounts: whole, >= 0. values: falling, the last 1, so that the values of a row add up to its amount.
    T is the longest row's length, eos included.
    """
    counts, left = [], amounts.long()
    for value in values:
        counts.append(left // value)
        left = left % value
    counts = torch.stack([*counts, torch.ones_like(left)], 1)
    token = torch.tensor([*range(SPECIAL, SPECIAL + len(values)), EOS], device=left.device)
    length = counts.sum(1)
    rows = left.new_full((len(amounts), int(length.max())), PAD)
    flat = token.repeat(len(amounts)).repeat_interleave(counts.flatten())
    rows[torch.arange(rows.shape[1], device=left.device) < length[:, None]] = flat
    return rows


def read(
    probabilities: Float[Tensor, "*rows V"],
    values: Float[Tensor, " V"],
    window: int = 20,
    how: str = "window",
) -> Float[Tensor, "*rows"]:
    """The value of one position (step 5): sum of p_j value_j over |j - argmax p| <= window / 2.

    values: of all tokens, special ones 0. how: "window" as in the paper, where p is not normalised
    again; "renormalised": divided by the window's sum of p; "token": the value of argmax p.
    """
    best = probabilities.argmax(-1, keepdim=True)
    if how == "token":
        return values[best[..., 0]]
    near = (torch.arange(len(values), device=best.device) - best).abs() <= window // 2
    inside = probabilities * near
    value = inside @ values
    return value / inside.sum(-1) if how == "renormalised" else value


def mixed_inputs(
    gold: Float[Tensor, "B T d"],
    logits: Float[Tensor, "B T V"],
    table: Float[Tensor, "V d"],
    keep: Bool[Tensor, " T"],
    teacher: str = "mixup",
) -> Float[Tensor, "B T d"]:
    """Inputs of pass 2 (step 4). gold: embeddings of sos, v_1, ...; logits: of pass 1.

    keep: whether a position keeps its gold input; the first always does. teacher: "mixup" puts the
    expected embedding softmax(logits) table elsewhere, "hard" that of the likeliest token.
    """
    before = logits[:, :-1]
    guess = before.softmax(-1) @ table if teacher == "mixup" else table[before.argmax(-1)]
    return torch.cat([gold[:, :1], torch.where(keep[1:, None], gold[:, 1:], guess)], 1)


class GenerativeRegression(AmountModel):
    """Steps 3 to 6 on the shared encoder of `AmountModel`.

    values: `vocabulary` of the training amounts, in ticks. tick: one tick in the label's unit.
    longest: positions that decoding may take; the longest training sequence, eos included.
    dim: width of field vectors. width: of a decoder's head; the decoder is heads x width wide.
    layers, heads: of the decoder (paper: 3 and 8).
    teacher: what pass 2 reads: "mixup", "hard" (the likeliest token) or "gold" (teacher forcing,
        which needs no second pass).
    curriculum: share of all steps over which rho falls from 1 to 0; rho stays 0 after it.
    window: of the value. huber: weight of the Huber loss on the value, in the label's unit.
    options: see `AmountModel`; dropout acts in the decoder too.
    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        schema: Schema,
        values: Sequence[int],
        *,
        tick: float = 0.1,
        longest: int = 20,
        width: int = 8,
        layers: int = 1,
        heads: int = 4,
        teacher: str = "mixup",
        curriculum: float = 0.8,
        window: int = 20,
        huber: float = 0.1,
        dropout: float = 0.1,
        **options,
    ):
        checks.whole(longest=longest, width=width, layers=layers, heads=heads, window=window)
        checks.one_of(TEACHERS, teacher=teacher)
        checks.positive(tick=tick)
        checks.at_least(0, huber=huber)
        checks.inside("(0, 1]", curriculum=curriculum)
        values = [*values]
        if not values or values[-1] != 1 or values != sorted(set(values), reverse=True):
            raise ValueError(f"values must fall and end in 1, got {values[:9]}")
        super().__init__(schema, dropout=dropout, **options)
        self.values, self.tick, self.longest = values, tick, longest
        self.teacher, self.curriculum, self.window, self.huber = teacher, curriculum, window, huber
        self.read = "window"  # how `forward` reads a position's value: one of READS
        self.soft = teacher == "mixup"  # feed expected embeddings, else the likeliest tokens
        dim = heads * width
        self.tokens = nn.Embedding(SPECIAL + len(values), dim)
        self.layers = nn.ModuleList(
            DecoderLayer(dim, self.encoder.d_out, heads, dropout) for _ in range(layers)
        )
        self.logits = nn.Linear(dim, SPECIAL + len(values))
        self.dropout = nn.Dropout(dropout)
        seconds = torch.tensor([0.0] * SPECIAL + [tick * v for v in values])
        self.register_buffer("seconds", seconds, persistent=False)

    # training ------------------------------------------------------------------------------------

    def targets(self, batch: Batch) -> Int[Tensor, "B T"]:
        return tokens_of((batch.labels[:, 0] / self.tick).round(), self.values)

    def decode(
        self, x: Float[Tensor, "B T dim"], memory: Float[Tensor, "B memory"]
    ) -> Float[Tensor, "B T V"]:
        """Logits of the token after each input (step 3)."""
        x = self.dropout(x)
        for layer in self.layers:
            x, _ = layer(x, memory)
        return self.logits(x)

    def forced(
        self, memory: Float[Tensor, "B memory"], gold: Int[Tensor, "B T"], rho: float = 1.0
    ) -> Float[Tensor, "B T V"]:
        """Logits of pass 2, whose inputs keep each position's gold token with probability rho."""
        first = torch.full_like(gold[:, :1], SOS)
        x = self.tokens(torch.cat([first, gold[:, :-1]], 1))
        keep = torch.rand(gold.shape[1], device=gold.device) < rho
        logits = self.decode(x, memory)
        if self.teacher == "gold" or bool(keep[1:].all()):
            return logits
        return self.decode(mixed_inputs(x, logits, self.tokens.weight, keep, self.teacher), memory)

    def on_train_start(self) -> None:
        self.steps = self.curriculum * self.trainer.estimated_stepping_batches

    def rho(self) -> float:
        """The share of gold inputs at this step."""
        return max(0.0, 1 - self.trainer.global_step / self.steps)

    def loss(self, batch: Batch, rho: float = 1.0) -> Float[Tensor, ""]:
        """Step 6, a mean over rows. The paper weighs 10 and 1; Adam sees their ratio only."""
        gold = self.targets(batch)
        logits = self.forced(self.encode(batch), gold, rho)
        surprise = F.cross_entropy(
            logits.flatten(0, 1), gold.flatten(), ignore_index=PAD, reduction="sum"
        )
        value = self._sum(logits.softmax(-1), gold != PAD)
        return surprise / len(gold) + self.huber * F.huber_loss(value, batch.labels[:, 0])

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        return self.loss(batch, self.rho())

    def _sum(self, p: Float[Tensor, "B T V"], running: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
        return (read(p, self.seconds, self.window, self.read) * running).sum(1)

    # decoding ------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        """Amounts, decoded without any gold token."""
        p, running, _ = self.run_free(self.encode(batch), self.soft)
        return self._sum(p, running)

    def as_trained(self, batch: Batch, rho: float) -> Float[Tensor, " B"]:
        """Amounts read as the loss reads them, with a share rho of gold inputs.

        They know the label: its length, and gold inputs, at rho = 0 through pass 1.
        """
        gold = self.targets(batch)
        return self._sum(self.forced(self.encode(batch), gold, rho).softmax(-1), gold != PAD)

    def run_free(
        self,
        memory: Float[Tensor, "B memory"],
        soft: bool,
        draw: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "B T V"], Bool[Tensor, "B T"], Int[Tensor, "B T"]]:
        """Decode until every row has met eos, or for ``longest`` positions.

        Returns the distribution and the token of each position, and between them whether the row
        still ran there: True up to and including its first eos.
        soft: feed expected embeddings, else the likeliest token. draw: feed tokens drawn from the
        distribution instead.
        """
        token = memory.new_full((len(memory),), SOS, dtype=torch.long)
        x = self.tokens(token)[:, None]
        past: list = [None] * len(self.layers)
        alive = token == SOS
        steps = []
        for _ in range(self.longest):
            for k, layer in enumerate(self.layers):
                x, past[k] = layer(x, memory, past[k])
            p = self.logits(x)[:, 0].softmax(-1)
            token = p.argmax(-1) if draw is None else torch.multinomial(p, 1, generator=draw)[:, 0]
            steps.append((p, alive, token))
            alive = alive & (token != EOS)
            if not alive.any():
                break
            x = (p @ self.tokens.weight if soft and draw is None else self.tokens(token))[:, None]
        p, running, tokens = (torch.stack(column, 1) for column in zip(*steps, strict=True))
        return p, running, tokens

    @torch.no_grad()
    def sample(self, split: Split, draws: int, seed: int = 0) -> Float[Tensor, "n draws"]:
        """Amounts drawn from the model's distribution, in the label's unit."""
        checks.whole(draws=draws)
        self.eval()
        draw, found = torch.Generator(self.device).manual_seed(seed), []
        for start in range(0, len(split), 2048):
            memory = self.encode(split.take(slice(start, start + 2048)).to(self.device))
            rows = memory.repeat_interleave(draws, 0)
            _, running, tokens = self.run_free(rows, False, draw)
            found.append((self.seconds[tokens] * running).sum(1).view(-1, draws))
        return torch.cat(found).cpu()
