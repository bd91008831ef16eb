"""Real histories for next-item models: a user's last item tests, the one before it validates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import checks
from ..data.store import Log, Split
from .next_item import SequenceParts, Sequences

if TYPE_CHECKING:
    from jaxtyping import Int


def user_sequences(log: Log, length: int) -> SequenceParts:
    """The parts of a log of `paperlab.data.next_items`, its negatives left out.

    Training has each user's last ``length`` pairs of successive items before those of validation
    and test; these two rank all items but what the user had met. Times stand where the log has them.
    length >= 1, of a history as models see it.
    """
    checks.whole(length=length)
    vocabulary = log.schema.categorical[0].size
    valid, test = (_held(part, length, vocabulary) for part in (log.valid, log.test))
    return SequenceParts(log.name, vocabulary, _train(log.valid, length), valid, test)


def _events(
    split: Split, length: int
) -> tuple[Int[Tensor, " R"], Int[Tensor, "R N"], Int[Tensor, "R N"] | None]:
    """Of every positive row: its place, and items and times of its last events."""
    rows = (split.labels[:, 0] > 0).nonzero().squeeze(1)
    start, stop = split.spans[rows].unbind(1)
    place = stop[:, None] - torch.arange(length, 0, -1)
    there = place >= start[:, None]
    place = place.clamp(min=0)
    items = split.events.ids[:, 0][place].long() * there
    times = split.events.times
    return rows, items, None if times is None else times[place] * there


def _train(split: Split, length: int) -> Sequences:
    """The histories of validation, all but the last item of each, and what came next."""
    _, items, times = _events(split, length + 1)
    target = items[:, 1:] * (items[:, :-1] > 0)
    if times is None:
        return Sequences(items[:, :-1], target)
    return Sequences(items[:, :-1], target, times[:, :-1], times[:, 1:])


def _held(split: Split, length: int, vocabulary: int) -> Sequences:
    """Histories whose last position alone has a target, and the items that they hold."""
    rows, items, times = _events(split, length)
    target = torch.zeros_like(items)
    target[:, -1] = split.ids[rows, 0].long()
    met = torch.zeros(len(rows), vocabulary, dtype=torch.bool)
    spans = split.spans[rows]
    users = torch.arange(len(rows)).repeat_interleave(spans[:, 1] - spans[:, 0])
    every = torch.cat([torch.arange(a, b) for a, b in spans.tolist()])
    met[users, split.events.ids[every, 0].long()] = True
    met[:, 0] = True
    if times is None:
        return Sequences(items, target, met=met)
    asked = torch.cat([times[:, 1:], split.times[rows, None]], 1)
    return Sequences(items, target, times, asked, met)
