"""What `paperlab.tryout` compares on a reader's requests: SORT, and notebook 104's arms beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from . import sort_studies
from .sort_studies import PARTS, TABLES

if TYPE_CHECKING:
    from torch import Tensor

    from .own_requests import Cut
    from .real_requests import RequestLog
    from .worlds.requests import Requests

CELLS = {  # of `TABLES`
    "SORT": "transfer, frozen",
    "transfer": "transfer",
    "scratch": "scratch",
    "random, frozen": "random, frozen",
}


def contenders() -> dict[str, Callable[..., Iterator[tuple[dict, Tensor]]]]:
    """SORT has a transferred, frozen table; "vanilla" is a plain transformer of equal size, from scratch."""
    return dict.fromkeys((*CELLS, "vanilla"), compete)


def compete(
    cut: Cut,
    names: Sequence[str],
    seeds: Sequence[int],
    *,
    rates: Sequence[float],
    epochs: int,
    batch_size: int,
) -> Iterator[tuple[dict, Tensor]]:
    """`sort_studies.trained`'s row and the best weights' scores of each test candidate.

    Tables are pre-trained on histories of two events or more, for as many passes.
    Raises ValueError where the training or validation part has none.
    """
    log, passes = cut.requests(), {"epochs": epochs, "batch_size": batch_size}

    def arms(_: RequestLog, seed: int) -> dict[str, dict]:
        cells = [CELLS[name] for name in names if name in CELLS]
        found = sort_studies.tables(past, seed, cells, **passes)
        return {name: found[CELLS[name]] if name in CELLS else PARTS[name] for name in names}

    past = replace(log, train=with_past(log.train), valid=with_past(log.valid))
    if any("transfer" in TABLES[CELLS[n]] for n in names if n in CELLS):
        for part in ("train", "valid"):
            if not len(getattr(past, part)):
                raise ValueError(
                    f"{log.name}.{part}: no user has two candidates in earlier requests, on which "
                    "SORT's table is trained"
                )
    logs = [(seed, log) for seed in seeds]
    for row, _, scores in sort_studies.trained(arms, logs, rates=rates, **passes):
        yield row, scores["best"]


def with_past(part: Requests) -> Requests:
    """The requests whose history has two events, so that one comes after another."""
    return part.take(part.present.sum(1) > 1)
