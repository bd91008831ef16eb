"""Programs to write, with the tests that they must pass: HumanEval, MBPP, CodeContests."""

from __future__ import annotations

from typing import Literal

from ..catalogue import Entry
from ..formats import parquet
from ..kinds import Problems


def load(
    entry: Entry, *, part: Literal["humaneval", "mbpp", "code_contests_test"] = "humaneval"
) -> Problems:
    """The problems of a part; an answer is the source of its tests.

    humaneval: ``check(candidate)`` and its call. mbpp: assertions, after their set-up.
    code_contests_test: inputs and outputs as the source writes them. Run no solution outside a
    sandbox.
    """
    (frame,) = parquet.local(entry, f"{part}.parquet")
    if part == "humaneval":
        rows = frame.select("prompt", "test", "entry_point").rows()
        pairs = [(prompt, f"{test}\ncheck({name})\n") for prompt, test, name in rows]
    elif part == "mbpp":
        rows = frame.select("text", "test_setup_code", "test_list").rows()
        pairs = [(text, "\n".join([first or "", *tests])) for text, first, tests in rows]
    else:
        pairs = frame.select("problem", "tests").rows()
    return Problems(f"{entry.name}-{part}", *zip(*pairs, strict=True))
