"""Click models on equal terms: rates and regularisers chosen on logs that give no result.

Every model has the same trials and the same dense weights. The logs that choose are not those that
the rows of results come from, so that no row was seen while choosing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from .. import trials
from ..data.store import Log

if TYPE_CHECKING:
    from ..nn.click import ClickModel

    Build = Callable[..., Callable[[object, int | None], ClickModel]]

BEYOND = 2  # rates tried beyond those given while the best lies at an end
UNSIZED = ("FM", "LR")  # models without a dense layer, whose size is not theirs to choose


@dataclass(frozen=True)
class Chosen:
    """The best rate and setting; edge: the rate is the lowest or highest of several tried."""

    rate: float
    setting: dict[str, float]
    edge: bool = False


def choose(
    build: Build,
    logs: Sequence[tuple[Log, int]],
    *,
    rates: Sequence[float],
    settings: Mapping[str, Sequence[float]],
    budget: int | None = None,
    **options,
) -> Chosen:
    """The rate and setting with the highest mean validation AUC over logs, found one after the other.

    First the rate, at every setting's first value; while the best lies at an end, up to `BEYOND` more
    are tried. Then the values of each setting, at that rate, and the best ones of settings before it.
    Then the rate again, where a setting has changed. Nothing is trained for one candidate.

    build: a setting's values, such as build(dropout=0.2) -> builder of `paperlab.trials.compare`.
    logs: of each the log and the seed of weights and order. settings: name -> values.
    budget, options: see `paperlab.trials.compare`. A run that is not finite loses to all.
    """
    tried: dict[tuple, float] = {}
    first = {name: values[0] for name, values in settings.items()}

    def auc(rate: float, setting: dict[str, float]) -> float:
        key = (rate, *setting.values())
        if key not in tried:
            given = {"rates": [rate], "budget": budget, **options}
            try:
                runs = [
                    next(trials.compare({"": build(**setting)}, log, seeds=[seed], **given))[0]
                    for log, seed in logs
                ]
                tried[key] = fmean(row["valid_auc"] for row in runs)
            except FloatingPointError:
                tried[key] = -math.inf
        return tried[key]

    def search(grid: list[float]) -> tuple[float, bool, list[float]]:
        best = max(grid, key=lambda rate: auc(rate, setting))
        edge = best in (grid[0], grid[-1])
        if not edge or len(grid) == len(rates) + BEYOND:
            return best, edge, grid
        return search(sorted([*grid, best * best / grid[1 if best == grid[0] else -2]]))

    setting, (best, edge, grid) = first, (rates[0], False, [])
    if len(rates) > 1:
        best, edge, grid = search(sorted(rates))
    for name, values in settings.items():
        if len(values) > 1:
            found = max(values, key=lambda v, name=name: auc(best, setting | {name: v}))
            setting = setting | {name: found}
    if grid and setting != first:
        best, edge, _ = search(grid)
    return Chosen(best, setting, edge)


@dataclass
class Trials:
    """Equal trials of many models.

    rates: Adam's. settings: name -> values to try (see `choose`). budget: dense weights of all but
    `UNSIZED`. options: of `paperlab.loop.fit`. chosen: by model, of the last `tune`.
    """

    rates: Sequence[float]
    settings: Mapping[str, Sequence[float]]
    budget: int
    options: dict
    chosen: dict[str, Chosen] = field(default_factory=dict)

    def tune(
        self,
        builders: Mapping[str, Build],
        make: Callable[[int], Log],
        seeds: Sequence[int],
        untuned: Collection[str] = (),
    ) -> None:
        """Choose for each model on the logs of these seeds, which `train` should not see.

        make: seed -> log. untuned: names that try rates alone, as `UNSIZED` do.
        """
        self.chosen, logs = {}, [(make(seed), seed) for seed in seeds]
        for name, build in builders.items():
            settings = {} if name in (*untuned, *UNSIZED) else self.settings
            given = {"rates": self.rates, "settings": settings, "budget": self._budget(name)}
            self.chosen[name] = choose(build, logs, **given, **self.options)

    def train(
        self, builders: Mapping[str, Build], make: Callable[[int], Log], seeds: Sequence[int]
    ) -> Iterator[tuple[dict, ClickModel, Log]]:
        """A row, the model and its log for each seed and model, as chosen.

        make: seed -> log. The row is that of `paperlab.trials.compare`, with the chosen settings,
        None where none was chosen; ``edge`` is the choice's.
        """
        for seed in seeds:
            for name, build in builders.items():
                best, log = self.chosen[name], make(seed)
                given = {"rates": [best.rate], "budget": self._budget(name), **self.options}
                found = trials.compare({name: build(**best.setting)}, log, seeds=[seed], **given)
                row, model = next(found)
                row |= dict.fromkeys(self.settings) | best.setting | {"edge": best.edge}
                yield row, model.eval(), log

    def _budget(self, name: str) -> int | None:
        return None if name in UNSIZED else self.budget
