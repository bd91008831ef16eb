"""Preference pairs: a prompt, the response that was preferred, and the one that was not.

Pairs of text come from known data sets (`load`) or from a file of one's own (`from_jsonl`), pairs of
symbols with known truth from `paperlab.align.toys`. Both become `Preferences`: tuples of token ids.
A vocabulary is its symbols 0..symbols-1 (text: the 256 bytes), then end-of-text, then padding. Every
response ends with end-of-text, unless it was cut.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

BYTES = 256


class PairTruth(NamedTuple):
    """What a generator knows of a pair.

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

    side: where the padding goes. Raises ValueError when a row is longer than ``length``.
    """
    if side not in ("right", "left"):
        raise ValueError(f"side must be right or left, not {side!r}")
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
        ids[k, start : start + size] = torch.tensor((*prompt, *response))
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
        """The pairs with these numbers as a batch: see `collate`."""
        index = [int(i) for i in index]
        return collate([self.pairs[i] for i in index], self.pad, side, length, index)

    def loader(
        self, batch_size: int, seed: int | None = None, side: str = "right"
    ) -> DataLoader[PairBatch]:
        """Batches in order, or shuffled anew each pass where there is a seed.

        Raises ValueError for a batch_size below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        draw = None if seed is None else torch.Generator().manual_seed(seed)
        return DataLoader(
            range(len(self)),
            batch_size,
            shuffle=seed is not None,
            generator=draw,
            collate_fn=partial(self.take, side=side),
        )

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

        Pairs whose responses cannot be told apart any more are left out.
        """
        if min(prompt, response) < 1:
            raise ValueError(f"prompt and response must be at least 1, got {prompt}, {response}")
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
        if not 0 <= rate <= 1:
            raise ValueError(f"rate must be in 0..1, got {rate}")
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
    """Pairs of (prompt, chosen, rejected) as UTF-8 bytes."""
    encoded = (tuple(tuple(part.encode()) for part in row) for row in texts)
    pairs = tuple(Pair(p, (*c, BYTES), (*r, BYTES)) for p, c, r in encoded)
    return Preferences(name, pairs, BYTES, problems=tuple(problems))


def from_jsonl(path: str | Path) -> Preferences:
    """A file with an object of texts ``prompt``, ``chosen``, ``rejected`` in each line; .gz too.

    Each line that is not one is warned of with its number and left out. Raises FileNotFoundError, or
    ValueError when no line is left.
    """
    path = Path(path)
    rows = (_read(line, ("prompt", "chosen", "rejected")) for line in _lines(path))
    found = _gather(path.name, (r if isinstance(r, str) else _checked(r) for r in rows))
    for number, reason in found.problems:
        warnings.warn(f"{path.name}, line {number}: {reason}", stacklevel=2)
    return found


def load(name: str, **options) -> Preferences:
    """A data set of pairs by its name in the catalogue; its files are found or downloaded.

    hh-rlhf-harmless-test; hh-rlhf-harmless and hh-rlhf-helpful (``part``: train or test);
    alpaca-eval-preferences (``seed``, ``per_prompt`` >= 1 pairs, ``least`` in [0, 1]: the smallest
    difference of the two win rates); ultrafeedback (``part``). Dialogues are written as HH writes
    them. Raises ValueError for an unknown name or option, FileNotFoundError where there is no copy
    and no network, with where to get the files and where to put them.
    """
    if name not in READERS:
        raise ValueError(f"name must be one of {', '.join(READERS)}, not {name!r}")
    reader = READERS[name]
    takes = reader.__code__.co_varnames[1 : reader.__code__.co_argcount]
    wrong = sorted(set(options) - set(takes))
    if wrong:
        raise ValueError(f"{name} takes {', '.join(takes) or 'no options'}, not {', '.join(wrong)}")
    from ..data import catalogue

    return reader(catalogue.entry(name), **options)


def _hh_test(entry) -> Preferences:
    from ..data import fetch

    local = fetch.local_form(entry)
    if not local:
        return _hh_file(entry.name, fetch.official(entry, "test.jsonl.gz"))
    import polars as pl

    rows = pl.read_parquet(next(iter(local.values()))).iter_rows()
    return _gather(entry.name, (_dialogue(*row) for row in rows))


def _hh(entry, part: str = "train") -> Preferences:
    from ..data import fetch

    return _hh_file(f"{entry.name}-{part}", fetch.official(entry, f"{_part(part)}.jsonl.gz"))


def _hh_file(name: str, path: Path) -> Preferences:
    rows = (_read(line, ("chosen", "rejected")) for line in _lines(path))
    return _gather(name, (r if isinstance(r, str) else _dialogue(*r) for r in rows))


def _alpaca(entry, seed: int = 0, per_prompt: int = 4, least: float = 0.3) -> Preferences:
    from ..data import fetch

    if per_prompt < 1 or not 0 <= least <= 1:
        raise ValueError(f"per_prompt must be >= 1 and least in 0..1, got {per_prompt}, {least}")
    local = fetch.local_form(entry)
    if not local:
        raise fetch.missing(entry)
    import polars as pl

    prompts = pl.read_parquet(local["prompts.parquet"]).sort("prompt_id")
    answers = pl.read_parquet(local["responses.parquet"]).sort("prompt_id", "model")
    by_prompt = answers.partition_by("prompt_id", as_dict=True, maintain_order=True)
    draw, texts = torch.Generator().manual_seed(seed), []
    for number, instruction in prompts.select("prompt_id", "instruction").iter_rows():
        mine = by_prompt[number,].select("output", "p_beats_reference").rows()
        order = torch.randperm(len(mine), generator=draw).tolist()
        couples = [(mine[a], mine[b]) for a, b in zip(order[::2], order[1::2], strict=False)]
        apart = [c for c in couples if abs(c[0][1] - c[1][1]) >= max(least, 1e-9)]
        for couple in apart[:per_prompt]:  # disjoint, so that no response is in two pairs
            (lost, _), (won, _) = sorted(couple, key=lambda answer: answer[1])
            texts.append(_checked((_ask(instruction), f" {won}", f" {lost}")))
    return _gather(entry.name, texts)


def _ultrafeedback(entry, part: str = "train") -> Preferences:
    from ..data import fetch

    path = fetch.official(entry, f"{_part(part)}_prefs-00000-of-00001.parquet")
    import polars as pl

    rows = pl.read_parquet(path).select("prompt", "chosen", "rejected").iter_rows()
    texts = (
        _checked((_ask(p), f" {c[-1]['content']}", f" {r[-1]['content']}")) for p, c, r in rows
    )
    return _gather(f"{entry.name}-{part}", texts)


READERS = {
    "hh-rlhf-harmless-test": _hh_test,
    "hh-rlhf-harmless": _hh,
    "hh-rlhf-helpful": _hh,
    "alpaca-eval-preferences": _alpaca,
    "ultrafeedback": _ultrafeedback,
}


def _part(part: str) -> str:
    if part not in ("train", "test"):
        raise ValueError(f"part must be train or test, not {part!r}")
    return part


def _ask(instruction: str) -> str:
    return f"\n\nHuman: {instruction}\n\nAssistant:"


def _dialogue(chosen: str, rejected: str) -> tuple[str, str, str] | str:
    """Two whole dialogues as prompt and last answers, or why they are not a pair."""
    mark = "\n\nAssistant:"
    cut = chosen.rfind(mark) + len(mark)
    if cut < len(mark) or rejected[: rejected.rfind(mark) + len(mark)] != chosen[:cut]:
        return "the two dialogues differ before their last answer"
    return _checked((chosen[:cut], chosen[cut:], rejected[cut:]))


def _checked(row: tuple[str, str, str]) -> tuple[str, str, str] | str:
    if not (row[1].strip() and row[2].strip()):
        return "a response is empty"
    return "the two responses are the same" if row[1] == row[2] else row


def _lines(path: Path) -> Iterable[bytes]:
    from ..data import fetch

    with fetch.reading(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield from file


def _read(line: bytes, fields: Sequence[str]) -> tuple[str, ...] | str:
    """The texts of one line, or what is wrong with it."""
    try:
        found = json.loads(line)
    except ValueError:
        return "not JSON"
    if not isinstance(found, dict):
        return "not an object"
    bad = [f for f in fields if not isinstance(found.get(f), str)]
    return f"{', '.join(bad)} missing or not text" if bad else tuple(found[f] for f in fields)


def _gather(name: str, rows: Iterable[tuple[str, str, str] | str]) -> Preferences:
    """Good rows as pairs; the others as problems, with their numbers from 1."""
    good, problems = [], []
    for number, row in enumerate(rows, 1):
        if isinstance(row, str):
            problems.append((number, row))
        else:
            good.append(row)
    if not good:
        first = f", the first: {problems[0][1]}" if problems else ""
        raise ValueError(f"{name} has no pair: {len(problems)} lines, none of them good{first}")
    return from_text(name, good, problems)
