"""The alignment part of the bench: it measures both sides and writes a table."""

import pytest
from paperlab.bench import alignment


def test_it_measures_and_writes(monkeypatch):
    pytest.importorskip("ot", reason="POT is not installed: pip install pot")
    for name, value in {"PAIRS": 2, "PROMPT": 3, "TOKENS": 8, "DIM": 16, "THREADS": 1}.items():
        monkeypatch.setattr(alignment, name, value)
    found = alignment.measure(rounds=1)
    assert found["step"]["otpo"] > 0 and found["step"]["tokens_per_second"]["dpo"] > 0
    assert [row["reg"] for row in found["transport"]] == [1.0, 0.1]
    table = alignment.markdown(found)
    assert "transport of 2 pairs of 8 tokens, ε₁ = 0.1" in table
    assert all(line.count("|") == 5 for line in table.splitlines()[:6])
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        alignment.measure(rounds=0)


def test_medians_leave_the_first_round_out(monkeypatch):
    clock = iter([0, 9, 9, 9, 10, 11, 12, 15, 15, 17, 17, 18])
    monkeypatch.setattr(alignment.time, "perf_counter", lambda: next(clock))
    assert alignment._in_turn({"a": lambda: None, "b": lambda: None}, 2) == {"a": 1500, "b": 2000}
