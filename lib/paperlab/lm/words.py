"""Text as words: what a small model can learn where bytes are too many."""

from __future__ import annotations

import re
from collections import Counter

from .. import checks
from .preferences import BYTES, Pair, Preferences

WORD = re.compile(r" ?\w+|\s|[^\w\s]")  # a word takes the space before it


def in_words(data: Preferences, size: int = 1000) -> Preferences:
    """Pairs of bytes as pairs of words: the ``size - 1`` most frequent, and one symbol for all others.

    size: symbols of the new vocabulary, at least 2. Labels play no part; text is lowered. A cut
    response gets an end-of-text token as every other.
    """
    checks.whole(2, size=size)

    def cut(part: tuple[int, ...]) -> list[str]:
        return WORD.findall(bytes(b for b in part if b < BYTES).decode(errors="replace").lower())

    rows = [[cut(part) for part in pair[:3]] for pair in data.pairs]
    count = Counter(word for row in rows for part in row for word in part)
    number = {word: k for k, (word, _) in enumerate(count.most_common(size - 1))}

    def ids(part: list[str], *end: int) -> tuple[int, ...]:
        return (*(number.get(word, size - 1) for word in part), *end)

    made = tuple(Pair(ids(p), ids(c, size), ids(r, size)) for p, c, r in rows)
    names = [*number, *(f"<unused {k}>" for k in range(len(number), size - 1)), "<other>"]
    return Preferences(data.name, made, size, tuple(names))
