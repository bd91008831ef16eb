"""ResFlow's experiments: arms in funnels whose truth is known, and watch time of KuaiRand's videos."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import metrics, trials
from ..data.store import Log
from .resflow import ProgressiveResFlow, ResFlow
from .towers import MultiTask
from .worlds.funnel import FunnelTruth, funnel

if TYPE_CHECKING:
    from jaxtyping import Float

tower = partial(ResFlow, widths=(64, 32))
SEPARATE = partial(tower, fr=False, combine="separate")
ARMS = {  # residuals add no weights: all have as many
    "separate towers": SEPARATE,
    "ESMM": partial(tower, fr=False, combine="product"),
    "logit residual": partial(tower, fr=False),
    "ResFlow": tower,
}
MORE = {
    "feature residual": partial(tower, combine="separate"),
    "order first": partial(tower, chain=("order", "click")),
}
WATCH = {"chain": "sum", "separate towers": "separate", "one number": None}
PILOTS = (1_000_003, 1_000_004)  # seeds of the worlds that choose rates


def trained(
    name: str, arm: Callable, log: Log, seeds: Sequence[int], rate: float, **options: Any
) -> Iterator[tuple[dict, Any]]:
    """`trials.compare` of one arm, which starts at the base rates of the log's training part.

    A row has ``passes``: how many were made over the training rows, until validation or the limit
    ended them.
    """

    def build(schema, width):
        return arm(schema).start_at(log.train)

    for row, model in trials.compare({name: build}, log, seeds=seeds, rates=[rate], **options):
        trained_on = row["samples_per_second"] * row["seconds"]
        yield row | {"passes": round(trained_on / len(log.train), 1)}, model


def best_rate(
    name: str,
    arm: Callable,
    pilots: Sequence[tuple[Log, int]],
    rates: Sequence[float],
    **options: Any,
) -> dict[str, Any]:
    """``lr``, the rate with the lowest mean validation loss, and ``edge``: it is an end of those tried.

    pilots: (log, seed) of the runs at each rate. rates: while the best lies at an end of several, up to
    four more are tried, each by the ratio of the two rates at that end.
    """
    loss, todo = {}, [*rates] if len(rates) > 1 else []
    best, edge = rates[0], False
    while todo:
        for rate in todo:
            loss[rate] = statistics.fmean(
                _valid_loss(name, arm, log, seed, rate, options) for log, seed in pilots
            )
        grid, best = sorted(loss), min(loss, key=loss.get)
        edge = best in (grid[0], grid[-1])
        more = edge and len(grid) < len(rates) + 4
        todo = [best * best / grid[1 if best == grid[0] else -2]] if more else []
    return {"lr": best, "edge": edge}


def _valid_loss(name: str, arm: Callable, log: Log, seed: int, rate: float, options: dict) -> float:
    """Infinite where training at the rate diverges."""
    try:
        [(row, model)] = trained(name, arm, log, [seed], rate, **options)
    except FloatingPointError:
        return math.inf
    return row[f"valid_{model.select[0]}"]


def against(truth: FunnelTruth, logits: Float[Tensor, "n 2"]) -> dict[str, float]:
    """Logits of click and order against known probabilities.

    exact AUC: of orders; exact click AUC: of clicks. KL: of orders, in nats. falls: share of rows
    whose order is predicted rarer than the click. r: correlation of r_2 = s_2 - s_1 with the true one.
    """
    true = torch.logit(truth.order) - torch.logit(truth.click)
    r = logits[:, 1] - logits[:, 0]
    return {
        "exact AUC": metrics.exact_auc(logits[:, 1], truth.order),
        "exact click AUC": metrics.exact_auc(logits[:, 0], truth.click),
        "KL": metrics.kl(logits[:, 1], truth.order),
        "falls": (r <= 0).double().mean().item(),
        "r": torch.corrcoef(torch.stack([r.double(), true]))[0, 1].item(),
    }


@dataclass
class Funnels:
    """Arms in funnels; each takes the rate with the best validation loss in two worlds of their own.

    rows, held: as in `funnel`. rates: tried where there are several. options: of `loop.fit`.
    chosen: `best_rate` of each (arm, b).
    """

    rows: int
    held: int
    rates: Sequence[float]
    options: Mapping[str, Any]
    chosen: dict[tuple[str, float], dict] = field(default_factory=dict)

    def world(self, b: float, seed: int, rho: float | None = None) -> Log:
        """rho: .8 by default; with many orders, b >= -3, it is .7, and there are half more rows."""
        many = b >= -3
        rho = (0.7 if many else 0.8) if rho is None else rho
        rows = self.rows * 3 // 2 if many else self.rows
        return funnel(rows, rho=rho, b=b, held=self.held, seed=seed)

    def runs(
        self, arms: Mapping[str, Callable], b: float, seed: int, rho: float | None = None
    ) -> Iterator[tuple[dict, MultiTask]]:
        """(row, model) of each arm in one world, and the rivals that need no training.

        The click score of the separate towers, and the base rates (with the separate towers' model).
        """
        log = self.world(b, seed, rho)
        truth = log.truth
        facts = {
            "b": b,
            "orders": truth.orders,
            "best": metrics.exact_auc(truth.order, truth.order),
        }
        for name, arm in arms.items():
            if (name, b) not in self.chosen:
                pilots = [(self.world(b, pilot), pilot) for pilot in PILOTS]
                self.chosen[name, b] = best_rate(name, arm, pilots, self.rates, **self.options)
            rate = self.chosen[name, b]["lr"]
            [(row, model)] = trained(name, arm, log, [seed], rate, **self.options)
            s = model.predict_all(log.test)
            yield row | facts | against(truth, s), model
            if name == "separate towers":
                none = facts | dict.fromkeys(("lr", "auc_order", "passes")) | {"dense": 0}
                rates = torch.logit(log.train.labels.mean(0)).expand(len(s), 2)
                for free, scores in {"click score": s[:, [0, 0]], "constant": rates}.items():
                    row = (
                        none | {"model": free, "seed": seed} | against(truth, scores) | {"r": None}
                    )
                    yield row | ({"KL": None} if free == "click score" else {}), model


def gains(rows: Sequence[dict]) -> list[dict]:
    """Rows of `Funnels.runs` with ``gain``: exact AUC minus that of separate towers, world by world.

    ``orders`` becomes the mean over the worlds of one b.
    """
    base = {(r["b"], r["seed"]): r for r in rows if r["model"] == "separate towers"}
    orders = {b: [r["orders"] for key, r in base.items() if key[0] == b] for b, _ in base}
    return [
        r
        | {"orders": round(sum(orders[r["b"]]) / len(orders[r["b"]]))}
        | {"gain": r["exact AUC"] - base[r["b"], r["seed"]]["exact AUC"]}
        for r in rows
    ]


def watch_time(
    log: Log, seeds: Sequence[int], rates: Sequence[float], **options: Any
) -> tuple[list[dict], dict[tuple[str, int], Float[np.ndarray, " n"]]]:
    """An amount by chain, separate towers, one number and a constant: rows, and squared errors.

    The errors are in units of the mean of the separate towers', so that a difference is a share of it.
    """
    rows, errors, y = [], {}, log.test.labels[:, 0]
    for name, combine in WATCH.items():
        arm = partial(ProgressiveResFlow, combine=combine, widths=(64, 32))
        found = best_rate(name, arm, [(log, seed) for seed in seeds[:2]], rates, **options)
        for row, model in trained(name, arm, log, seeds, found["lr"], **options):
            rows.append(row | found)
            errors[name, row["seed"]] = (model.predict(log.test) - y).square().numpy()
    flat = (y - log.train.labels.mean()).square().numpy()
    for seed in seeds:
        errors["constant", seed] = flat
        none = {
            "model": "constant",
            "seed": seed,
            "dense": 0,
            "lr": None,
            "passes": None,
            "edge": None,
        }
        rows.append(none | {"mse": float(flat.mean())})
    unit = np.mean([errors["separate towers", seed] for seed in seeds])
    return rows, {key: e / unit for key, e in errors.items()}
