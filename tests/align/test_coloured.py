"""The coloured text: rows of weights by hand, and figures that hold every token."""

import pytest
import torch
from paperlab.align import coloured
from paperlab.lm.preferences import Pair, Preferences
from paperlab.lm.tiny_lm import TinyLM

NAMES = (*tuple("abcdefgh"), "<b>")
PAIRS = Preferences("made", (Pair((0,), (1, 2, 3), (4, 5)), Pair((), (8,), (6, 7, 1, 2))), 9, NAMES)


def rows(reg: float) -> list[dict]:
    torch.manual_seed(0)
    return coloured.weighed(TinyLM(PAIRS.vocabulary, 8, 1, heads=2), PAIRS, reg=reg)


def test_every_token_has_a_row_and_weights_average_to_one():
    found = rows(0.1)
    assert [r["token"] for r in found] == ["b", "c", "d", "e", "f", "<b>", "g", "h", "b", "c"]
    for pair in (0, 1):
        for side, count in (("chosen", 3 - 2 * pair), ("rejected", 2 + 2 * pair)):
            own = [r["weight"] for r in found if (r["pair"], r["side"]) == (pair, side)]
            assert len(own) == count and sum(own) == pytest.approx(count, rel=1e-5)
    assert max(abs(r["weight"] - 1) for r in found) > 1e-3


def test_a_large_entropy_weight_is_the_uniform_budget():
    assert all(r["weight"] == pytest.approx(1, abs=1e-3) for r in rows(1000.0))


def test_the_text_wraps_and_escapes():
    figure = coloured.text(rows(0.1), 1, wide=3)
    words = [[*line] for line in figure.data[0].text]
    assert words == [["&lt;b>", "", ""], ["g", "h", "b"], ["c", "", ""]]
    assert [*figure.data[0].y] == ["chosen 1–1", "rejected 1–3", "rejected 4–4"]
    with pytest.raises(ValueError, match="pair"):
        coloured.text(rows(0.1), 2)
