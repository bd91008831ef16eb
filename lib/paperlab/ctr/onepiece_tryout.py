"""What `paperlab.tryout` compares on a reader's requests: OnePiece, and arms of notebook 106."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from .onepiece_studies import SIGHT, STEPS, Studies

if TYPE_CHECKING:
    from torch import Tensor

    from .own_requests import Cut

ARMS = {
    "OnePiece": STEPS["1 layer, 1 step"],
    "invisible": STEPS["1 layer, 1 step"] | SIGHT["invisible"],
    "2 layers": SIGHT["visible"],
    "1 layer": STEPS["1 layer"],
}


def contenders() -> dict[str, Callable[..., Iterator[tuple[dict, Tensor]]]]:
    """OnePiece is a layer and a reasoning step; the others lack sight of each other, or the step."""
    return dict.fromkeys(ARMS, compete)


def compete(
    cut: Cut,
    names: Sequence[str],
    seeds: Sequence[int],
    *,
    rates: Sequence[float],
    epochs: int,
    batch_size: int,
) -> Iterator[tuple[dict, Tensor]]:
    """`Studies.train`'s row and the scores of each test candidate."""
    world, studies = cut.groups(), Studies(epochs, rates, batch_size)
    for seed in seeds:
        for row, model in studies.train("own", world, {n: ARMS[n] for n in names}, seed):
            edge = ("own", row["model"]) in studies.edges
            yield row | {"auc": row["pooled"], "edge": edge}, model.predict(world.test).flatten()
