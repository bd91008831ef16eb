"""Text as words: by hand, every word back, and what falls outside the vocabulary."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.lm.preferences import Pair, Preferences
from paperlab.lm.words import in_words


def text(prompt: str, chosen: str, rejected: str) -> Preferences:
    coded = [tuple(part.encode()) for part in (prompt, chosen, rejected)]
    return Preferences("text", (Pair(coded[0], (*coded[1], 256), (*coded[2], 256)),), 256)


def test_by_hand():
    made = in_words(text("A cat?", "a cat, a Cat", "a dog"), size=5)
    assert made.names == ("a", " cat", "?", ",", "<other>")  # three times, three, then as met
    assert made.pairs[0].prompt == (0, 1, 2)
    assert made.pairs[0].chosen == (0, 1, 3, 4, 1, 5)  # " a" is no " cat", nor "a"
    assert made.pairs[0].rejected == (0, 4, 5) and made.eos == 5


@settings(deadline=None, max_examples=30)
@given(*[st.text("abc ,.\n", min_size=1, max_size=30)] * 3)
def test_a_large_vocabulary_gives_the_text_back(prompt, chosen, rejected):
    made = in_words(text(prompt, chosen, rejected))
    assert len(made.names) == made.symbols == 1000
    for part, ids in zip((prompt, chosen, rejected), made.pairs[0][:3], strict=True):
        assert "".join(made.names[i] for i in ids if i != made.eos) == part


def test_a_vocabulary_of_one_symbol_is_refused():
    with pytest.raises(ValueError, match="size must be at least 2, got 1"):
        in_words(text("a", "b", "c"), size=1)
