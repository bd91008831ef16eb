"""AlpacaEval 2: answers of 24 models, paired by their judged win rates."""

from __future__ import annotations

import torch

from ... import checks
from ..catalogue import Entry
from ..formats import parquet, preferences
from ..kinds import PreferenceTexts


def load(
    entry: Entry, *, seed: int = 0, per_prompt: int = 4, least: float = 0.3
) -> PreferenceTexts:
    """Pairs of answers to one prompt whose win rates differ.

    per_prompt: most pairs of a prompt; no answer is in two of them. least: smallest difference of
    the two win rates, in [0, 1]. seed: of the pairing.
    """
    checks.inside("[0, 1]", least=least)
    prompts, answers = parquet.local(entry, "prompts.parquet", "responses.parquet")
    prompts, answers = prompts.sort("prompt_id"), answers.sort("prompt_id", "model")
    by_prompt = answers.partition_by("prompt_id", as_dict=True, maintain_order=True)
    draw, texts = torch.Generator().manual_seed(seed), []
    for number, instruction in prompts.select("prompt_id", "instruction").iter_rows():
        mine = by_prompt[number,].select("output", "p_beats_reference").rows()
        order = torch.randperm(len(mine), generator=draw).tolist()
        couples = [(mine[a], mine[b]) for a, b in zip(order[::2], order[1::2], strict=False)]
        apart = [c for c in couples if abs(c[0][1] - c[1][1]) >= max(least, 1e-9)]
        for couple in apart[:per_prompt]:
            (lost, _), (won, _) = sorted(couple, key=lambda answer: answer[1])
            row = preferences.question(instruction), f" {won}", f" {lost}"
            texts.append(preferences.checked(row))
    return preferences.gather(entry.name, texts)
