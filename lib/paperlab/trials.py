"""Fair comparisons: models x learning rates x seeds to rows of results, for any metric."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from . import checks
from .loop import Fit, Trainable, fit
from .nn.budget import width_for


def compare(
    builders: Mapping[str, Callable[[object, int | None], Trainable]],
    data: object,
    *,
    seeds: Sequence[int],
    rates: Sequence[float] = (1e-3,),
    widen: int = 0,
    budget: int | None = None,
    metric: tuple[str, str] | None = None,
    **options,
) -> Iterator[tuple[dict, Trainable]]:
    """Train every model on the same data with equal trials; yield a row of results and the model.

    builders: name -> function of the data's schema (of the data, where it has none) and a width.
    seeds: different whole numbers. A seed draws the initial weights and the order of rows, so that
        rows of one seed are paired over models.
    rates: different learning rates, above 0, all tried at the first seed; the one with the best
        metric is taken. One that ends in a loss or a score that is not finite loses to all others.
    widen: how many more rates may be tried while the best lies at an end of several: each continues
        the grid by the ratio of the two rates at that end.
    budget: dense parameters of every model, within 5 %, reached by its width; None: no search.
    metric: (name, "higher" or "lower"), of the validation part, else of the last check; None takes
        the model's ``select``.
    options: passed to `paperlab.loop.fit`.

    A row holds log, model, seed, the metrics (of the test part, else of the validation part, else of
    the last check), valid_METRIC, parameters by kind, width, lr, seconds, samples_per_second, and
    ``edge``: the best rate is the lowest or highest of all that were tried, so that a better one may
    lie beyond.
    Raises ValueError for an empty list, a repeated seed or rate, one out of range, and a budget that
    no width meets; FloatingPointError where no rate trains or has a finite metric.
    """
    checks.whole(0, widen=widen)
    for name, values in (("builders", builders), ("seeds", seeds), ("rates", rates)):
        if not len(values):
            raise ValueError(f"{name} must not be empty")
    for name, values in (("seeds", seeds), ("rates", rates)):
        if repeated := sorted({v for v in values if [*values].count(v) > 1}):
            raise ValueError(f"{name} must differ, got {', '.join(map(str, repeated))} twice")
    for seed in seeds:
        checks.whole(0, seeds=seed)
    for rate in rates:
        checks.positive(rates=rate)
    if metric is not None:
        checks.one_of(("higher", "lower"), better=metric[1])
    given = getattr(data, "schema", data)
    for name, build in builders.items():
        width = None
        if budget is not None:
            width = width_for(lambda w, build=build: build(given, w), budget)

        def run(rate: float, seed: int, build=build, width=width) -> tuple[Fit, Trainable]:
            torch.manual_seed(seed)
            model = build(given, width)
            model.lr = rate
            return fit(model, data, seed=seed, **options), model

        tried, grid, todo, failed = {}, [], [*rates], None
        while todo:
            grid = sorted([*grid, *todo])
            for rate in todo:
                try:
                    tried[rate] = run(rate, seeds[0])
                except FloatingPointError as error:
                    failed = error
            if not tried:
                raise failed
            best = next(iter(tried))
            if len(grid) > 1:
                quality = {rate: _quality(*tried[rate], metric) for rate in tried}
                best = max(quality, key=quality.get)
                if math.isinf(quality[best]):
                    raise FloatingPointError(f"{name}: the metric is NaN or infinite at every rate")
            edge = len(grid) > 1 and best in (grid[0], grid[-1])
            more = edge and len(grid) < len(rates) + widen
            todo = [best * best / grid[1 if best == grid[0] else -2]] if more else []
        for seed in seeds:
            done, model = tried[best] if seed == seeds[0] else run(best, seed)
            key = (metric or model.select or (None,))[0]
            last = done.history[-1]
            row = {"log": getattr(data, "name", None), "model": name, "seed": seed}
            row |= done.test or done.valid or last
            row |= {f"valid_{key}": done.valid[key]} if key in done.valid else {}
            row |= done.parameters | {"width": width, "lr": best, "edge": edge}
            row |= {"seconds": done.seconds, "samples_per_second": done.samples_per_second}
            yield row, model


def _quality(run: Fit, model: Trainable, metric: tuple[str, str] | None) -> float:
    """The metric with its sign, so that higher is better; NaN loses to all."""
    if (metric or model.select) is None:
        raise ValueError("metric must be given for a model that selects by none")
    name, better = metric or model.select
    scores = run.valid or run.history[-1]
    checks.one_of(scores, metric=name)
    value = scores[name] if better == "higher" else -scores[name]
    return -math.inf if math.isnan(value) else value


def milliseconds(call: Callable[[], object], passes: int = 20) -> float:
    """Median time of ``call`` over ``passes`` >= 3, after one that warms up, in milliseconds."""
    checks.whole(3, passes=passes)
    spent = []
    for _ in range(passes + 1):
        began = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    return 1e3 * statistics.median(spent[1:])


def milliseconds_in_turn(
    calls: Mapping[str, Callable[[], object]], laps: int = 7
) -> dict[str, float]:
    """`milliseconds` of several calls on one thread, by turns; of ``laps`` >= 3 each its quickest.

    Other work on the machine slows laps, and hardly ever all of them.
    """
    checks.whole(3, laps=laps)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        spent = [{name: milliseconds(call, 3) for name, call in calls.items()} for _ in range(laps)]
    finally:
        torch.set_num_threads(threads)
    return {name: min(lap[name] for lap in spent) for name in calls}
