"""What notebook 106 compares: arms of OnePiece on group worlds and on judged products.

Every arm of a place tries the same rates on the first seed; the best on validation is kept for the
other seeds. A seed draws a new world, the initial weights and the order of rows, so that rows of one
seed are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from .. import checks, metrics, trials
from . import judged_groups
from .onepiece import OnePiece, gradient_cosine
from .worlds.groups import GroupWorld, groups, regroup, within

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

SIGHT = {"visible": {}, "invisible": {"see": False}}
STEPS = {
    "1 layer": {"layers": 1},
    "1 layer, 1 step": {"layers": 1, "at": (1,)},
    "1 layer, 2 steps": {"layers": 1, "at": (2,)},
    "1 layer, loop of 2": {"layers": 1, "at": (2,), "plain": True},
    "3 layers": {"layers": 3},
}
TASKS = {
    "one task a step": {"layers": 1, "at": (1, 2, 3)},
    "all at the last step": {"layers": 1, "at": (3, 3, 3)},
}
CONTEXTS = ("history", "more history", "anchors", "random anchors")
LOSSES = {"cross-entropy alone": None, "temperature 1": 1.0, "temperature 0.1": 0.1}
NAMES = {"pooled": "click pooled", "within": "click within", "order": "order pooled"}


class Studies:
    """Trainings on equal terms.

    epochs: passes, >= 1. rates: Adam's, tried on the first seed; while the best of several is the
    lowest or the highest, up to two more are tried. batch: groups of 12 candidates a step.
    chosen: the rate of each (place, arm) so far. edges: those whose rate ends the tried range.
    """

    def __init__(self, epochs: int, rates: Sequence[float], batch: int = 128):
        checks.whole(epochs=epochs, batch=batch)
        self.epochs, self.rates, self.batch = epochs, tuple(rates), batch
        self.chosen: dict[tuple[str, str], float] = {}
        self.edges: set[tuple[str, str]] = set()

    def train(
        self,
        place: str,
        world: GroupWorld,
        arms: dict[str, dict],
        seed: int,
        rate: float | None = None,
        share: int = 1,
        longer: int = 1,
    ) -> Iterator[tuple[dict, OnePiece]]:
        """A row of results and the model of each arm.

        rate: instead of a search. share: how many groups a request is cut into. longer: factor of
        the passes.
        """
        for name, options in arms.items():
            known = self.chosen.get((place, name), rate)
            tried = self.rates if known is None else [known]
            for row, model in trials.compare(
                {name: lambda w, _, o=options: OnePiece(w.train, **({"temperature": 1.0} | o))},
                world,
                seeds=[seed],
                rates=tried,
                widen=2 * (len(tried) > 1),
                epochs=longer * self.epochs,
                batch_size=self.batch * share,
                precision="32-true",
                accelerator="cpu",
            ):
                self.chosen[place, name] = row["lr"]
                self.edges |= {(place, name)} if row["edge"] else set()
                kept = {k: row[k] for k in ("model", "seed", "dense", "lr", "seconds")}
                kept |= {k: row[v] for k, v in NAMES.items() if v in row}
                yield kept | {"world": place}, model

    def sight(self, kind: str, rows: int, test: int, seed: int) -> list[dict]:
        """Visible and invisible candidates, and the best score that judges them one by one.

        level: correlation over test groups of the mean score and the mean true logit.
        """
        world, found = groups(kind, rows, test=test, seed=seed), []
        truth = world.test.probability[..., 0].logit(1e-6).mean(1)
        for row, model in self.train(kind, world, SIGHT, seed):
            found.append(row | {"level": _level(model.predict(world.test)[..., 0], truth)})
        top = world.ceilings()
        blind = {m: top[f"utility alone {m}"] for m in ("pooled", "within")}
        blind |= {"level": _level(world.utility, truth), "dense": 0, "seconds": 0.0}
        return [*found, {"model": "utility alone", "world": kind, "seed": seed} | blind]

    def steps(self, rows: int, test: int, seed: int) -> list[dict]:
        """Layers against reasoning steps where the group moves the order; 2 layers: see `sight`."""
        world = groups("sub", rows, test=test, seed=seed)
        return [row for row, _ in self.train("sub", world, STEPS, seed)]

    def tasks(self, rows: int, test: int, seed: int) -> list[dict]:
        """Click, cart and order, a step each or all at the third; cosine: of click and order."""
        world, found = groups("sub", rows, test=test, seed=seed), []
        for row, model in self.train("three tasks", world, TASKS, seed):
            angle = gradient_cosine(model, world.train.take(slice(512)))[0, 2].item()
            found.append(row | {"cosine": angle})
        return found

    def anchors(self, rows: int, test: int, seed: int) -> list[dict]:
        """One layer after four contexts of the same requests."""
        found = []
        for context in CONTEXTS:
            world = groups("query", rows, test=test, context=context, seed=seed)
            found += [r for r, _ in self.train("query", world, {context: {"layers": 1}}, seed)]
        return found

    def cuts(self, rows: int, test: int, seed: int) -> list[dict]:
        """One layer in ``sub`` with other losses, and with requests cut into groups of 6 and of 3.

        All at the rate of "1 layer". A cut group's AUC is pooled alone: within it, pairs are others.
        """
        world, found = groups("sub", rows, test=test, seed=seed), []
        rate = self.chosen["sub", "1 layer"]
        for name, temperature in LOSSES.items():
            arm = {name: {"layers": 1, "temperature": temperature}}
            found += [row for row, _ in self.train("loss", world, arm, seed, rate)]
        for size in (6, 3):
            parts = {p: regroup(getattr(world, p), size, seed) for p in ("train", "valid", "test")}
            cut = GroupWorld("sub", **parts, utility=world.utility.reshape(-1, size))
            arm, share = {f"groups of {size}": {"layers": 1}}, 12 // size
            for row, _ in self.train("cut", cut, arm, seed, rate, share):
                found.append(row | {"within": None})
        return found

    def longer(self, rows: int, test: int, seed: int) -> list[dict]:
        """A step against a layer, each with three times the passes, at the rates of `steps`."""
        world, found = groups("sub", rows, test=test, seed=seed), []
        for name, own in (("2 layers", "visible"), ("1 layer, 1 step",) * 2):
            arm, rate = {name: (SIGHT | STEPS)[own]}, self.chosen["sub", own]
            found += [r for r, _ in self.train("longer", world, arm, seed, rate, longer=3)]
        return [r | {"passes": 3 * self.epochs} for r in found]

    def judged(self, queries: int, seeds: Sequence[int]) -> list[dict]:
        """Visible and invisible candidates on Home Depot's products, beside the cosine; 5 x the passes.

        A seed draws the initial weights and the order of rows; the groups are the same.
        """
        world, rows = judged_groups.load(queries), []
        y = world.test.labels[..., 0]
        auc = {"pooled": metrics.auc(world.utility.flatten(), y.flatten())}
        auc["within"] = within(world.utility, y)
        for seed in seeds:
            rows += [row for row, _ in self.train("judged", world, SIGHT, seed, longer=5)]
            rows.append({"model": "cosine", "world": "judged", "seed": seed, "dense": 0} | auc)
        return rows


def _level(scores: Float[Tensor, "G C"], truth: Float[Tensor, " G"]) -> float:
    return torch.corrcoef(torch.stack([scores.mean(1), truth]))[0, 1].item()
