"""Preference pairs: a prompt, the response that was preferred, and the one that was not.

Pairs of text come from known data sets (`load`) or from a file of one's own (`from_jsonl`), pairs of
symbols with known truth from `paperlab.align.worlds.toys`. Both become `Preferences`: tuples of token
ids. A vocabulary is its symbols 0..symbols-1 (text: the 256 bytes), then end-of-text, then padding.
Every response ends with end-of-text, unless it was cut. In a batch an empty prompt is end-of-text, so
that the first token of a response is always predicted from a token before it.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .. import checks

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

BYTES = 256


class PairTruth(NamedTuple):
    """The ground truth of a generated pair.

    margin: true reward of the chosen minus that of the rejected (nats), the logit of the label.
    marks: for each token of the chosen and of the rejected response, whether it is of the kind that
        the generator is about (key, shared or decisive).
    """

    margin: float
    marks: tuple[tuple[bool, ...], tuple[bool, ...]]


class Pair(NamedTuple):
    """Token ids of a prompt and its two responses."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    truth: PairTruth | None = None

    def swapped(self) -> Pair:
        """The pair with the label turned round."""
        truth = self.truth and PairTruth(-self.truth.margin, self.truth.marks[::-1])
        return Pair(self.prompt, self.rejected, self.chosen, truth)


class PairBatch(NamedTuple):
    """B pairs as 2B padded rows, the chosen first. mask: completion tokens, the part to score."""

    ids: Int[Tensor, "2B T"]
    attention: Bool[Tensor, "2B T"]
    mask: Bool[Tensor, "2B T"]
    index: Int[Tensor, " B"]  # numbers of the pairs in their `Preferences`


def collate(
    pairs: Sequence[Pair],
    pad: int,
    side: str = "right",
    length: int | None = None,
    index: Sequence[int] | None = None,
) -> PairBatch:
    """Rows [prompt, chosen] and then [prompt, rejected], padded to the longest or to ``length``.

    side: where the padding goes.
    Raises ValueError when there is no pair, a token is no integer, or a row is longer than ``length``.
    """
    if not pairs:
        raise ValueError("a batch needs at least one pair")
    checks.one_of(("right", "left"), side=side)
    rows = [(p.prompt, p.chosen) for p in pairs] + [(p.prompt, p.rejected) for p in pairs]
    longest = max(len(prompt) + len(response) for prompt, response in rows)
    length = longest if length is None else length
    if longest > length:
        raise ValueError(f"length must be at least {longest}, the longest row, got {length}")
    ids = torch.full((len(rows), length), pad)
    attention, mask = (torch.zeros(ids.shape, dtype=torch.bool) for _ in range(2))
    for k, (prompt, response) in enumerate(rows):
        size = len(prompt) + len(response)
        start = 0 if side == "right" else length - size
        tokens = torch.tensor((*prompt, *response))
        if size and tokens.is_floating_point():
            raise ValueError("tokens must be integers")
        ids[k, start : start + size] = tokens
        attention[k, start : start + size] = True
        mask[k, start + len(prompt) : start + size] = True
    return PairBatch(ids, attention, mask, torch.tensor(list(index or range(len(pairs)))))


def mismatched(pairs: Sequence[Pair]) -> list[Pair]:
    """Each prompt with the responses of the next pair, for KTO's baseline."""
    following = [*pairs[1:], *pairs[:1]]
    return [Pair(p.prompt, q.chosen, q.rejected) for p, q in zip(pairs, following, strict=True)]


@dataclass(frozen=True)
class Preferences:
    """Pairs over one vocabulary.

    names: how to write each symbol; None writes bytes. problems: (number from 1, reason) of the lines or
    rows of the source that gave no pair.
    """

    name: str
    pairs: tuple[Pair, ...]
    symbols: int
    names: tuple[str, ...] | None = None
    problems: tuple[tuple[int, str], ...] = ()

    @property
    def eos(self) -> int:
        return self.symbols

    @property
    def pad(self) -> int:
        return self.symbols + 1

    @property
    def vocabulary(self) -> int:
        """Size of the vocabulary: symbols, end-of-text and padding."""
        return self.symbols + 2

    def __len__(self) -> int:
        return len(self.pairs)

    def take(
        self, index: Iterable[int], side: str = "right", length: int | None = None
    ) -> PairBatch:
        """The pairs with these numbers as a batch: see `collate`. An empty prompt is end-of-text.

        Raises IndexError for a number outside 0..len-1, ValueError for a token that is not in the
        vocabulary.
        """
        index = [int(i) for i in index]
        if index and not 0 <= min(index) <= max(index) < len(self):
            wrong = next(i for i in index if not 0 <= i < len(self))
            raise IndexError(f"{self.name} has pairs 0..{len(self) - 1}, not {wrong}")
        rows = [self.pairs[i] for i in index]
        rows = [p if p.prompt else p._replace(prompt=(self.eos,)) for p in rows]
        batch = collate(rows, self.pad, side, length, index)
        low, high = (int(edge) for edge in batch.ids.aminmax())
        if low < 0 or high >= max(self.vocabulary, self.pad + 1):
            raise ValueError(
                f"{self.name}: tokens must lie in 0..{self.vocabulary - 1}, got {low}..{high}"
            )
        return batch

    def subset(self, index: Iterable[int]) -> Preferences:
        """The pairs with these numbers."""
        return replace(self, pairs=tuple(self.pairs[i] for i in index), problems=())

    def split(self, seed: int = 0, shares: Sequence[float] = (0.8, 0.1, 0.1)) -> list[Preferences]:
        """Parts of about these shares. All pairs of a prompt fall into the same part.

        The part is drawn by a seeded hash of the prompt, so that new pairs move no old ones.
        Raises ValueError where shares are negative or do not sum to 1.
        """
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
            raise ValueError(f"shares must be at least 0 and sum to 1, got {tuple(shares)}")
        edges = torch.tensor(shares, dtype=torch.float64).cumsum(0)[:-1]
        places = torch.tensor([_uniform(seed, p.prompt) for p in self.pairs], dtype=torch.float64)
        part = torch.bucketize(places, edges, right=True).tolist()
        return [
            self.subset(i for i, k in enumerate(part) if k == want) for want in range(len(shares))
        ]

    def truncated(self, prompt: int, response: int) -> Preferences:
        """At most so many tokens each, >= 1: prompts keep their end, responses their start.

        Pairs whose responses have become equal are left out.
        """
        checks.whole(prompt=prompt, response=response)
        cut = []
        for pair in self.pairs:
            marks = pair.truth and tuple(m[:response] for m in pair.truth.marks)
            short = Pair(
                pair.prompt[-prompt:],
                pair.chosen[:response],
                pair.rejected[:response],
                pair.truth and pair.truth._replace(marks=marks),
            )
            if short.chosen != short.rejected:
                cut.append(short)
        return replace(self, pairs=tuple(cut))

    def flipped(self, rate: float, seed: int = 0) -> Preferences:
        """A share ``rate`` in [0, 1] of the labels turned round, each by its own seeded coin."""
        checks.inside("[0, 1]", rate=rate)
        coin = torch.rand(len(self), generator=torch.Generator().manual_seed(seed)) < rate
        pairs = zip(self.pairs, coin.tolist(), strict=True)
        return replace(self, pairs=tuple(p.swapped() if turn else p for p, turn in pairs))

    def strings(self, tokens: Sequence[int]) -> list[str]:
        """How each token is written, one string a token."""
        special = {self.eos: "<eos>", self.pad: "<pad>"}
        names = self.names or [_printable(b) for b in range(self.symbols)]
        return [special[t] if t in special else names[t] for t in map(int, tokens)]


def _printable(byte: int) -> str:
    return chr(byte) if 32 <= byte < 127 else {10: "⏎", 9: "⇥"}.get(byte, f"·{byte:02x}")


def _uniform(seed: int, prompt: tuple[int, ...]) -> float:
    digest = hashlib.blake2b(f"{seed}:{prompt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


# Text ----------------------------------------------------------------------------------------------


def from_text(
    name: str, texts: Iterable[tuple[str, str, str]], problems: Iterable[tuple[int, str]] = ()
) -> Preferences:
    """Pairs of (prompt, chosen, rejected) as UTF-8 bytes.

    Raises ValueError for a text that is not valid Unicode.
    """
    try:
        encoded = [tuple(tuple(part.encode()) for part in row) for row in texts]
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: a text is not valid Unicode ({error.reason})") from None
    pairs = tuple(Pair(p, (*c, BYTES), (*r, BYTES)) for p, c, r in encoded)
    return Preferences(name, pairs, BYTES, problems=tuple(problems))


def from_jsonl(path: str | Path) -> Preferences:
    """A file with an object of texts ``prompt``, ``chosen``, ``rejected`` in each line; .gz too.

    Each line that is not one gets a warning with its number and is left out. Raises
    FileNotFoundError, or ValueError when no line is left.
    """
    from ..data.formats import preferences

    path = Path(path)
    texts = preferences.from_lines(path)
    for number, reason in texts.set_aside:
        warnings.warn(f"{path.name}, line {number}: {reason}", stacklevel=2)
    return from_text(texts.name, texts.rows, texts.set_aside)


def load(name: str, **options) -> Preferences:
    """Load a data set of preferences by its name in the catalogue, as pairs of UTF-8 bytes.

    options: those of the set's loader. Dialogues are written as HH-RLHF writes them.
    Raises ValueError for an unknown name or option, or a set of another kind; FileNotFoundError as
    `paperlab.data.load` does.
    """
    from .. import data

    known = [e.name for e in data.catalogue.entries().values() if e.kind == "preferences"]
    checks.one_of(known, name=name)
    texts = data.load(name, **options)
    return from_text(texts.name, texts.rows, texts.set_aside)
