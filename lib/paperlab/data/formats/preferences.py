"""Preference texts: from JSON lines of three texts, or of two whole dialogues as HH-RLHF writes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..kinds import PreferenceTexts
from . import json_lines

ASSISTANT = "\n\nAssistant:"


def from_lines(path: Path) -> PreferenceTexts:
    """The texts ``prompt``, ``chosen``, ``rejected`` of each line; other lines are set aside."""
    rows = (
        json_lines.texts(line, ("prompt", "chosen", "rejected")) for line in json_lines.lines(path)
    )
    return gather(path.name, (r if isinstance(r, str) else checked(r) for r in rows))


def checked(row: tuple[str, str, str]) -> tuple[str, str, str] | str:
    """A row of prompt, chosen, rejected, or why it is not a preference."""
    if not (row[1].strip() and row[2].strip()):
        return "a response is empty"
    return "the two responses are the same" if row[1] == row[2] else row


def gather(name: str, rows: Iterable[tuple[str, str, str] | str]) -> PreferenceTexts:
    """Good rows, and the others set aside with their numbers from 1.

    Raises ValueError when no row is good.
    """
    good, bad = [], []
    for number, row in enumerate(rows, 1):
        if isinstance(row, str):
            bad.append((number, row))
        else:
            good.append(row)
    if not good:
        first = f", the first: {bad[0][1]}" if bad else ""
        raise ValueError(f"{name} has no pair: {len(bad)} lines, none of them good{first}")
    return PreferenceTexts(name, tuple(good), tuple(bad))


def question(instruction: str) -> str:
    """One instruction as the prompt of a dialogue."""
    return f"\n\nHuman: {instruction}{ASSISTANT}"


def from_dialogues(name: str, path: Path) -> PreferenceTexts:
    """The two dialogues ``chosen`` and ``rejected`` of each line."""
    rows = (json_lines.texts(line, ("chosen", "rejected")) for line in json_lines.lines(path))
    return gather(name, (r if isinstance(r, str) else split(*r) for r in rows))


def split(chosen: str, rejected: str) -> tuple[str, str, str] | str:
    """Two whole dialogues as prompt and last answers, or why they are not a pair."""
    cut = chosen.rfind(ASSISTANT) + len(ASSISTANT)
    if (
        cut < len(ASSISTANT)
        or rejected[: rejected.rfind(ASSISTANT) + len(ASSISTANT)] != chosen[:cut]
    ):
        return "the two dialogues differ before their last answer"
    return checked((chosen[:cut], chosen[cut:], rejected[cut:]))
