"""The alignment part of the bench: it measures both sides."""

import pytest
from paperlab.bench import alignment


def test_it_measures_both_sides(monkeypatch):
    pytest.importorskip("ot", reason="POT is not installed: pip install pot")
    for name, value in {"PAIRS": 2, "PROMPT": 3, "TOKENS": 8, "DIM": 16, "THREADS": 1}.items():
        monkeypatch.setattr(alignment, name, value)
    found = alignment.measure(rounds=1)
    step, *transports = found["rows"]
    assert step["ours_ms"] > 0 and step["tokens_per_second"] > 0
    assert step["limit"]["gflop"] > 0 and step["share"] > 0
    assert [row["name"] for row in transports] == ["transport, ε₁ = 1", "transport, ε₁ = 0.1"]
    assert all(row["ratio"] == row["peer_ms"] / row["ours_ms"] for row in found["rows"])
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        alignment.measure(rounds=0)


def test_medians_leave_the_first_round_out(monkeypatch):
    clock = iter([0, 9, 9, 9, 10, 11, 12, 15, 15, 17, 17, 18])
    monkeypatch.setattr(alignment.time, "process_time", lambda: next(clock))
    assert alignment._in_turn({"a": lambda: None, "b": lambda: None}, 2) == {"a": 1500, "b": 2000}
