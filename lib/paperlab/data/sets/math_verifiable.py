"""Mathematics with verifiable answers, from seven collections."""

from __future__ import annotations

from typing import Literal

from ..catalogue import Entry
from ..formats import parquet
from ..kinds import Problems

COLUMNS = {  # of prompt and answer
    "math_train_answers": ("problem", "answer"),
    "math_test5000": ("problem", "solution"),
    "dapo_math_17k": ("prompt", "answer"),
    "svamp": ("Question", "Answer"),
    "asdiv": ("question", "answer"),
    "mawps": ("input", "target"),
    "aime24": ("problem", "answer"),
    "minerva_math": ("problem", "solution"),
}
Part = Literal[
    "math_train_answers",
    "math_test5000",
    "dapo_math_17k",
    "svamp",
    "asdiv",
    "mawps",
    "aime24",
    "minerva_math",
]
BODY = {"svamp": "Body", "asdiv": "body"}  # what stands before the question


def load(entry: Entry, *, part: Part = "math_train_answers") -> Problems:
    """The problems of a collection; from a solution the last boxed answer.

    Rows without an answer are set aside. 993 prompts of dapo_math_17k have the text of a problem of
    math_test5000: drop them before you report on MATH.
    """
    (frame,) = parquet.local(entry, f"{part}.parquet")
    prompt, answer = COLUMNS[part]
    rows = frame.select(*([BODY[part]] if part in BODY else []), prompt, answer).rows()
    good, bad = [], []
    for number, (*texts, solution) in enumerate(rows, 1):
        answer_text = boxed(solution) if answer == "solution" else _written(solution)
        if answer_text and all(texts):
            good.append((" ".join(texts), answer_text))
        else:
            bad.append((number, "no answer"))
    return Problems(f"{entry.name}-{part}", *zip(*good, strict=True), tuple(bad))


def boxed(solution: str | None) -> str:
    """The content of the last ``\\boxed{...}``, its braces balanced; "" where there is none."""
    start = (solution or "").rfind("\\boxed{")
    depth = 0
    for end in range(start + 6, len(solution or "")) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(solution[end], 0)
        if depth == 0:
            return solution[start + 7 : end].strip()
    return ""


def _written(answer: str | float | None) -> str:
    if isinstance(answer, float):
        return f"{answer:.12g}"
    return (answer or "").strip()
