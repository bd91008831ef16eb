"""Token pairs whose truth is known: three kinds of preferences.

The generators return `Preferences` whose pairs have a `PairTruth`: the logit of the label, and marks
on the tokens that matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...lm.preferences import Pair, PairTruth, Preferences


@dataclass(frozen=True)
class KeyTokens:
    """Pairs whose label depends on a few key tokens, with length as a spurious cue.

    A response is ``keys`` key tokens, each good (+) or bad (-) by a fair coin, at random places among
    random fillers. Its reward is strength / 2 times (good - bad), so that turning a bad key good is
    worth ``strength`` nats. Of two lengths drawn uniformly from lowest..highest (including the keys,
    without end-of-text), the longer goes to the chosen response with probability (1 + cue) / 2,
    independently of the content: cue is the correlation of the label with the sign of the length
    difference. With strength 0 the label depends on length alone. A prompt is three fillers.
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

        (s_w - s_l) / (highest - lowest) is the slope of a reward on length at fixed content.
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
    """Responses with ``shared`` common tokens in the same order, and tokens of their own in between.

    Shared tokens come from ``words`` fillers, the chosen response's own from as many good words, the
    rejected one's from as many bad words. marks: the shared tokens. The label is certain (margin inf).
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
    """Responses that differ in one token: a decisive one in the chosen, a filler in the rejected.

    Nothing in the rejected response resembles the decisive token. marks: the decisive token (none in the
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
