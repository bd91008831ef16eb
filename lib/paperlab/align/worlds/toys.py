"""Preferences whose truth is known: an enumerable problem and three kinds of token pairs.

`Enumerable` lists every response, so that the policy that is best under a KL leash is exact. The
generators of pairs return `Preferences` whose pairs carry a `PairTruth`: the logit of their label and
which tokens matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...lm.preferences import Pair, PairTruth, Preferences

if TYPE_CHECKING:
    from jaxtyping import Float, Int

MOST_RESPONSES = 4096


@dataclass(frozen=True)
class Enumerable:
    """Every response of ``length`` symbols to each of P prompts, with its reward and reference.

    responses: symbols. reward: r*(x, y) in nats. reference: log pi_ref(y | x); its exponentials sum to
    1 over the responses of a prompt.
    """

    responses: Int[Tensor, "R length"]
    reward: Float[Tensor, "P R"]
    reference: Float[Tensor, "P R"]
    symbols: int

    def optimum(self, beta: float) -> Float[Tensor, "P R"]:
        """log pi*, pi* ~ pi_ref exp(r* / beta): the best of `value` reward - beta KL. beta > 0."""
        if not beta > 0:
            raise ValueError(f"beta must be above 0, got {beta}")
        return (self.reference + self.reward / beta).log_softmax(1)

    def value(self, logp: Float[Tensor, "P R"]) -> tuple[Tensor, Tensor]:
        """Expected reward and KL(pi || pi_ref) of a policy, both in nats, means over prompts."""
        p = logp.exp()
        return (p * self.reward).sum(1).mean(), self.kl(logp, self.reference)

    @staticmethod
    def kl(logp: Float[Tensor, "P R"], other: Float[Tensor, "P R"]) -> Float[Tensor, ""]:
        """KL(p || other) in nats, mean over prompts."""
        return F.kl_div(other, logp, reduction="none", log_target=True).sum(1).mean()

    def preference(self) -> Float[Tensor, "P R R"]:
        """Bradley-Terry's P(response i beats response j | x) = sigma(r*_i - r*_j)."""
        return torch.sigmoid(self.reward[:, :, None] - self.reward[:, None, :])

    def sample(self, pairs: int, seed: int = 0, sharpness: float = 1.0) -> Int[Tensor, "pairs 3"]:
        """Rows (prompt, chosen, rejected): two different responses from the reference, labelled.

        sharpness > 0: the label's logit is sharpness times the difference of rewards; large is near
        deterministic. Raises ValueError for pairs < 1 or sharpness <= 0.
        """
        if pairs < 1 or not sharpness > 0:
            raise ValueError(f"pairs must be >= 1 and sharpness above 0, got {pairs}, {sharpness}")
        draw = torch.Generator().manual_seed(seed)
        x = torch.randint(len(self.reward), (pairs,), generator=draw)
        both = torch.multinomial(self.reference.exp()[x], 2, generator=draw)
        gap = sharpness * self.reward[x].gather(1, both).diff(dim=1).squeeze(1)
        second = torch.rand(pairs, generator=draw) < torch.sigmoid(gap)
        both = torch.where(second[:, None], both.flip(1), both)
        return torch.cat([x[:, None], both], 1)

    def tokens(self, index: Int[Tensor, "pairs 3"]) -> Preferences:
        """Rows of `sample` as pairs of tokens; the prompt is one symbol of its own."""
        words, pairs = self.responses.tolist(), []
        symbols = self.symbols + len(self.reward)
        for x, won, lost in index.tolist():
            margin = (self.reward[x, won] - self.reward[x, lost]).item()
            marks = ((False,) * (len(words[0]) + 1),) * 2
            chosen, rejected = ((*words[k], symbols) for k in (won, lost))
            pairs.append(Pair((self.symbols + x,), chosen, rejected, PairTruth(margin, marks)))
        names = [chr(97 + v) for v in range(self.symbols)]
        names += [f"x{p}" for p in range(len(self.reward))]
        return Preferences("enumerable", tuple(pairs), symbols, tuple(names))


def enumerable(
    prompts: int = 4,
    symbols: int = 4,
    length: int = 4,
    strength: float = 1.0,
    spread: float = 1.0,
    seed: int = 0,
) -> Enumerable:
    """A drawn `Enumerable` in float64.

    The reference is autoregressive, with logits N(0, spread^2) after every prefix. The reward adds a
    table of (place, symbol) for each prompt and one of neighbouring symbols for all; over a prompt's
    responses it has mean 0 and standard deviation ``strength``.
    prompts, length >= 1; 2 <= symbols <= 26; symbols ** length <= 4096; strength, spread >= 0.
    """
    if prompts < 1 or length < 1 or not 2 <= symbols <= 26 or symbols**length > MOST_RESPONSES:
        raise ValueError(
            f"symbols ** length must be at most {MOST_RESPONSES}, with 2..26 symbols and length and "
            f"prompts at least 1, got {symbols} ** {length}, {prompts} prompts"
        )
    if min(strength, spread) < 0:
        raise ValueError(f"strength and spread must be at least 0, got {strength}, {spread}")
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    every = torch.arange(symbols**length)
    places = symbols ** torch.arange(length - 1, -1, -1)
    responses = every[:, None] // places % symbols
    reference = torch.zeros(prompts, len(every), dtype=torch.float64)
    place, neighbour = normal(prompts, length, symbols), normal(symbols, symbols)
    reward = neighbour[responses[:, :-1], responses[:, 1:]].sum(1).repeat(prompts, 1)
    for t in range(length):
        after = (spread * normal(prompts, symbols**t, symbols)).log_softmax(-1)
        reference += after.flatten(1)[:, every // places[t]]
        reward += place[:, t, responses[:, t]]
    reward = reward - reward.mean(1, keepdim=True)
    reward = strength * reward / reward.std(1, correction=0, keepdim=True)
    return Enumerable(responses, reward, reference, symbols)


# Pairs of tokens -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeyTokens:
    """Pairs whose label comes from a few key tokens, with length as a cue that says nothing.

    A response is ``keys`` key tokens, each good (+) or bad (-) by a fair coin, at random places among
    random fillers. Its reward is strength / 2 times (good - bad), so that a bad key turned good is
    worth ``strength`` nats. Of two lengths drawn uniformly from lowest..highest (the keys included,
    end-of-text not), the longer goes to the chosen response with probability (1 + cue) / 2, whatever
    the content: cue is the correlation of label and sign of the length difference. With strength 0 the
    label says nothing but length. A prompt is three fillers.
    """

    keys: int = 3
    lowest: int = 6
    highest: int = 18
    cue: float = 0.0
    strength: float = 2.0
    fillers: int = 16
    kinds: int = 2  # how many different good, and how many different bad key tokens

    def __post_init__(self):
        if not 1 <= self.keys <= self.lowest <= self.highest:
            raise ValueError(
                f"1 <= keys <= lowest <= highest must hold, got {self.keys}, {self.lowest}, {self.highest}"
            )
        if not -1 <= self.cue <= 1 or self.strength < 0:
            raise ValueError(
                f"cue must be in -1..1 and strength at least 0, got {self.cue}, {self.strength}"
            )
        if min(self.fillers, self.kinds) < 1:
            raise ValueError(
                f"fillers and kinds must be at least 1, got {self.fillers}, {self.kinds}"
            )

    def pairs(self, count: int, seed: int = 0) -> Preferences:
        """``count`` >= 1 labelled pairs."""
        draw, made = _generator(count, seed), []
        for _ in range(count):
            prompt = tuple(draw.integers(self.fillers, size=3).tolist())
            content = draw.integers(2, size=(2, self.keys))  # 1: good
            reward = self.strength * (content.sum(1) - self.keys / 2)
            won = int(draw.random() < 1 / (1 + np.exp(reward[0] - reward[1])))
            long, short = sorted(draw.integers(self.lowest, self.highest + 1, 2), reverse=True)
            lengths = (long, short) if draw.random() < (1 + self.cue) / 2 else (short, long)
            chosen, rejected = (
                self._response(content[k], n, draw)
                for k, n in zip((won, 1 - won), lengths, strict=True)
            )
            margin = float(reward[won] - reward[1 - won])
            truth = PairTruth(margin, (self._marks(chosen), self._marks(rejected)))
            made.append(Pair(prompt, chosen, rejected, truth))
        return self._preferences(f"key_tokens_{self.cue}", made)

    def probe(self, count: int, seed: int = 0) -> Preferences:
        """Pairs of equal keys in equal order, ``highest`` tokens against ``lowest``: margin 0.

        A reward that has not learned length gives both the same; (s_w - s_l) / (highest - lowest) is
        its slope on length at fixed content.
        """
        draw, made = _generator(count, seed), []
        for _ in range(count):
            prompt = tuple(draw.integers(self.fillers, size=3).tolist())
            content = draw.integers(2, size=self.keys)
            kinds = draw.integers(self.kinds, size=self.keys)
            both = [self._response(content, n, draw, kinds) for n in (self.highest, self.lowest)]
            made.append(Pair(prompt, *both, PairTruth(0.0, tuple(map(self._marks, both)))))
        return self._preferences("key_tokens_probe", made)

    def _response(self, content, length: int, draw, kinds=None) -> tuple[int, ...]:
        kinds = draw.integers(self.kinds, size=self.keys) if kinds is None else kinds
        words = draw.integers(self.fillers, size=length)
        places = np.sort(draw.permutation(length)[: self.keys])
        words[places] = self.fillers + np.where(content == 1, 0, self.kinds) + kinds
        return (*words.tolist(), self.fillers + 2 * self.kinds)

    def _marks(self, response: tuple[int, ...]) -> tuple[bool, ...]:
        return tuple(self.fillers <= t < self.fillers + 2 * self.kinds for t in response)

    def _preferences(self, name: str, pairs: list[Pair]) -> Preferences:
        names = [f"w{k}" for k in range(self.fillers)]
        names += [f"{sign}{k}" for sign in "+-" for k in range(self.kinds)]
        return Preferences(name, tuple(pairs), len(names), tuple(names))


def shared_pairs(
    count: int,
    shared: int = 8,
    chosen_only: int = 8,
    rejected_only: int = 4,
    words: int = 16,
    seed: int = 0,
) -> Preferences:
    """Responses that share ``shared`` tokens in the same order, each with tokens of its own between.

    Shared tokens come from ``words`` fillers, the chosen response's own from as many good words, the
    rejected one's from as many bad ones. marks: the shared tokens. The label is certain (margin inf).
    count, words >= 1; the other numbers >= 0, with chosen_only + rejected_only >= 1.
    """
    if min(shared, chosen_only, rejected_only) < 0 or chosen_only + rejected_only < 1:
        raise ValueError(
            "shared, chosen_only and rejected_only must be at least 0 and the last two not both 0, "
            f"got {shared}, {chosen_only}, {rejected_only}"
        )
    draw, made = _generator(count, seed, words), []
    for _ in range(count):
        prompt = tuple(draw.integers(words, size=3).tolist())
        common = draw.integers(words, size=shared)
        sides = []
        for own, offset in ((chosen_only, words), (rejected_only, 2 * words)):
            mark = draw.permutation(shared + own) < shared
            response = np.empty(shared + own, int)
            response[mark] = common
            response[~mark] = offset + draw.integers(words, size=own)
            sides.append(((*response.tolist(), 3 * words), (*mark.tolist(), False)))
        (chosen, in_chosen), (rejected, in_rejected) = sides
        truth = PairTruth(float("inf"), (in_chosen, in_rejected))
        made.append(Pair(prompt, chosen, rejected, truth))
    names = tuple(f"{sign}{k}" for sign in "w+-" for k in range(words))
    return Preferences("shared_pairs", tuple(made), 3 * words, names)


def decisive_pairs(count: int, length: int = 12, words: int = 16, seed: int = 0) -> Preferences:
    """Equal responses but for one place: a decisive token in the chosen one, a filler in the other.

    Nothing in the rejected response resembles what decides. marks: the decisive token (none in the
    rejected response). The label is certain (margin inf). count, length, words >= 1.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    draw, made = _generator(count, seed, words), []
    for _ in range(count):
        prompt = tuple(draw.integers(words, size=3).tolist())
        rejected = draw.integers(words, size=length)
        mark = draw.permutation(length) == 0
        chosen = np.where(mark, words, rejected)
        marks = ((*mark.tolist(), False), (False,) * (length + 1))
        both = ((*r.tolist(), words + 1) for r in (chosen, rejected))
        made.append(Pair(prompt, *both, PairTruth(float("inf"), marks)))
    names = (*(f"w{k}" for k in range(words)), "!")
    return Preferences("decisive_pairs", tuple(made), words + 1, names)


def _generator(count: int, seed: int, words: int = 1) -> np.random.Generator:
    if min(count, words) < 1:
        raise ValueError(f"count and words must be at least 1, got {count}, {words}")
    return np.random.default_rng(seed)
