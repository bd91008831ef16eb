"""The comparisons of generative regression: on planted worlds, of vocabularies, on KuaiRand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from .. import checks, trials
from ..data.store import Log
from ..summaries import differences
from . import amount_units, real_videos
from . import watch_time_scores as scores
from .amount_contenders import contenders
from .generative_regression import SPECIAL, tokens_of
from .regressors import AmountModel
from .worlds.watch_time import watch_time

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int
    from torch import Tensor

RIVALS = ("GR teacher forcing", "L1", "quantile bins", "ordinal")
ABLATIONS = ("GR hard tokens", "GR without Huber")
DECAY = 0.8  # the rate's factor at each check that is not the best so far
BEYOND = 2  # rates tried beyond those given while the best lies at an end
HEADS = 8  # width of a head of GR's decoder, whose dense weights are everyone's budget


@dataclass
class Study:
    """Models trained on equal terms: equal trials of rates, equal dense weights, the same `DECAY`.

    rates: Adam's. options: of `paperlab.loop.fit`, such as epochs and batch_size.
    rows: one a model and seed; readings: of GR and of teacher forcing, one a way to decode; curves:
    validation scores after each epoch, on the first three logs; chosen: each model's rate; edges: models whose best rate is
    the lowest or highest tried. models, log: of the last log.
    """

    rates: Sequence[float]
    options: dict
    rows: list[dict] = field(default_factory=list)
    readings: list[dict] = field(default_factory=list)
    curves: list[dict] = field(default_factory=list)
    edges: set[str] = field(default_factory=set)
    models: dict[str, AmountModel] = field(default_factory=dict)
    log: Log | None = None
    chosen: dict[str, float] = field(default_factory=dict)

    def choose(self, names: Sequence[str], trials_on: Sequence[tuple[Log, dict, int]]) -> None:
        """Choose rates by the mean validation MAE over logs, which then give no row.

        trials_on: log, builders by name and seed of each. A trial takes a third of the passes. While
        the best rate lies at an end, up to `BEYOND` more are tried. One rate needs no trial.
        """
        short = {"epochs": -(-self.options.get("epochs", 1) // 3)}
        for name in names:
            tried, todo = {}, [*self.rates]
            if len(todo) == 1:
                self.chosen[name], todo = todo[0], []
            while todo:
                for rate in todo:
                    try:
                        runs = [self._fit(name, *on, [rate], **short)[0] for on in trials_on]
                        tried[rate] = fmean(row["valid_mae"] for row in runs)
                    except FloatingPointError:  # this rate diverges
                        tried[rate] = math.inf
                grid, best = sorted(tried), min(tried, key=tried.get)
                edge = best in (grid[0], grid[-1])
                more = edge and len(grid) < len(self.rates) + BEYOND
                todo = [best * best / grid[1 if best == grid[0] else -2]] if more else []
                self.chosen[name] = best
                self.edges |= {name} if edge and not todo else set()

    def train(self, name: str, log: Log, build: dict, seed: int, watch: bool = False) -> dict:
        """The row of one model; the model goes into ``models``.

        A model whose rate is not chosen tries all of them on this log. watch: add to ``curves``.
        """
        grid, points = [self.chosen[name]] if name in self.chosen else [*self.rates], []

        def seen(model: AmountModel) -> dict:
            place = {"model": name, "seed": seed, "epoch": model.current_epoch + 1}
            points.append(place | {"rate": model.lr} | model.evaluate(log, "valid"))
            return {}

        more = {"widen": int(len(grid) > 1), "watch": seen if watch else None}
        row, model = self._fit(name, log, build, seed, grid, **more)
        self.chosen[name], self.models[name], self.log = row["lr"], model, log
        self.edges |= {name} if row["edge"] else set()
        self.curves += [p for p in points if p["rate"] == row["lr"]]
        return row | {"edge": name in self.edges}

    def _fit(self, name: str, log: Log, build: dict, seed: int, rates: Sequence[float], **more):
        budget = build["GR"](log.schema, HEADS).count_parameters()["dense"]
        equal = {"decay": DECAY, "budget": budget, "precision": "32-true", "accelerator": "cpu"}
        given = equal | self.options | more
        [found] = trials.compare({name: build[name]}, log, seeds=[seed], rates=rates, **given)
        return found


def planted(
    rivals: Sequence[str],
    seeds: Sequence[int],
    rows: int,
    test: int,
    rates: Sequence[float],
    **options,
) -> Study:
    """GR and its rivals on one planted log a seed, scored against the known distribution.

    rivals: of RIVALS and ABLATIONS. rows, test: of the training and test parts. rates, options: see
    `Study`; the two seeds after the largest choose among several rates. Rows hold "log mae" too;
    those of `scores.references` stand among them.
    Raises ValueError for an unknown rival.
    """
    for rival in rivals:
        checks.one_of(RIVALS + ABLATIONS, rivals=rival)
    study, names = Study(rates, options), list(dict.fromkeys(["GR", *rivals]))

    def world(seed: int) -> tuple[Log, dict, int]:
        log = watch_time(rows, test=test, seed=seed)
        return log, contenders(log, dropout=0.0), seed

    study.choose(names, [world(seed) for seed in _unused(seeds)] if len(rates) > 1 else [])
    for k, seed in enumerate(seeds):
        log, build, _ = world(seed)
        for name in names:
            row = study.train(name, log, build, seed, watch=k < 3)
            study.rows.append(row | scores.of_model(study.models[name], log))
            if name in ("GR", "GR teacher forcing"):
                ways = scores.readings(study.models[name], log)
                study.readings += [
                    {"model": name, "seed": seed, "read": w} | s for w, s in ways.items()
                ]
        blank = dict.fromkeys(["as trained", "free", "mass", "mass gap", "dense", "lr", "seconds"])
        known = scores.references(log)
        study.rows += [blank | {"model": name, "seed": seed} | s for name, s in known.items()]
    for row in study.rows + study.readings:
        row["log mae"] = math.log(row["mae"])
    return study


def _unused(seeds: Sequence[int]) -> list[int]:
    return [max(seeds) + 1, max(seeds) + 2]


def convergence(curves: Sequence[dict]) -> list[dict]:
    """Where training stood, a line a model, means over seeds.

    best pass: of the least validation MAE; passes: all of them; last third: by how much the least MAE
    of the last third of passes is below that of the passes before, in per cent.
    """
    runs: dict[str, dict[int, list[float]]] = {}
    for row in sorted(curves, key=lambda row: row["epoch"]):
        runs.setdefault(row["model"], {}).setdefault(row["seed"], []).append(row["mae"])
    lines = []
    for name, seeds in runs.items():
        early = [min(maes[: -(len(maes) // 3) or None]) for maes in seeds.values()]
        late = [min(maes[-(len(maes) // 3) :]) for maes in seeds.values()]
        won = [100 * (1 - b / a) for a, b in zip(early, late, strict=True)]
        at = [1 + maes.index(min(maes)) for maes in seeds.values()]
        most = max(map(len, seeds.values()))
        lines.append(
            {"model": name, "best pass": fmean(at), "passes": most, "last third": fmean(won)}
        )
    return lines


def round_trip(ticks: Int[Tensor, " n"], values: Sequence[int]) -> dict[str, float]:
    """What a vocabulary makes of amounts.

    length: mean tokens of an amount, eos included; longest; tokens: size of the vocabulary, eos
    included; error: the largest, in ticks; evenness: entropy of the tokens in use over its maximum.
    """
    found = tokens_of(ticks, values)
    worth = torch.tensor([0] * SPECIAL + [*values])
    share = found[found > 0].bincount()[2:].double() / (found > 0).sum()
    entropy = -torch.xlogy(share, share).sum().item()
    return {
        "length": (found > 0).sum(1).double().mean().item(),
        "longest": found.shape[1],
        "tokens": len(values) + 1,
        "evenness": entropy / math.log(len(values) + 1),
        "error": (worth[found].sum(1) - ticks).abs().max().item(),
    }


def exposure(rows: Sequence[dict]) -> list[dict]:
    """Mean error as trained and in free running of each kind of GR, and the gap between them."""
    lines = {}
    for row in rows:
        if row["as trained"] is not None and not math.isnan(row["as trained"]):
            lines.setdefault(row["model"], []).append((row["as trained"], row["free"]))
    means = {name: [sum(c) / len(c) for c in zip(*v, strict=True)] for name, v in lines.items()}
    return [
        {"model": name, "as trained": known, "free": free, "gap": free - known}
        for name, (known, free) in means.items()
    ]


def gains(rows: Sequence[dict], terms: Sequence[tuple[float, float]]) -> list[dict]:
    """MAE and XAUC in units of the smallest effect that matters, higher is better.

    terms: for "claim 1", "claim 2", ... a share of the MAE in (0, 1) and a difference in XAUC. A row
    of results gives one with "measure" MAE, log(mae) / log(1 - share), and one with XAUC.
    """
    found = []
    for row in rows:
        keys = {"model": row["model"], "seed": row["seed"]}
        error = {
            f"claim {k}": math.log(row["mae"]) / math.log(1 - s)
            for k, (s, _) in enumerate(terms, 1)
        }
        order = {f"claim {k}": row["xauc"] / step for k, (_, step) in enumerate(terms, 1)}
        found += [keys | {"measure": "MAE"} | error, keys | {"measure": "XAUC"} | order]
    return found


def difference(rows: Sequence[dict], a: str, b: str, by: str = "model") -> str:
    """a minus b in words: MAE in per cent (of log MAE) and XAUC, with 95 % intervals over seeds."""
    rows, words = [r | {"percent": 100 * r["log mae"]} for r in rows if r[by] in (a, b)], []
    for name, metric, form in (("MAE", "percent", "{:+.1f} %"), ("XAUC", "xauc", "{:+.3f}")):
        [gap] = differences(rows, metric, b, by=by)
        value, *ends = [form.format(gap[k]) for k in ("value", "low", "high") if gap[k] is not None]
        words.append(f"{name} {value} [{', '.join(ends) or 'error unknown'}]")
    return ", ".join(words)


@dataclass(frozen=True)
class Real:
    """Models on KuaiRand's watch times: rows, one a model and seed, the constant's too; test values.

    predicted: by (model, seed). curves: see `Study`.
    """

    rows: list[dict]
    predicted: dict[tuple[str, int], Float[Tensor, " n"]]
    log: Log
    curves: list[dict]

    def units(
        self, rival: str, share: float, step: float
    ) -> dict[str, dict[tuple[str, int], Float[np.ndarray, " users"]]]:
        """Sums by user of MAE (below 0) and XAUC, in units of ``share`` of the rival's MAE and of ``step``.

        Divide by the users' rows, `weights`.
        """
        y, users = self.log.test.labels[:, 0], self.log.test.users
        errors = [r["mae"] for r in self.rows if r["model"] == rival]
        unit = share * sum(errors) / len(errors)
        summed = partial(amount_units.by_user, users=users)
        order = amount_units.xauc_by_row
        return {
            "MAE": {k: -summed((p - y).abs())[0] / unit for k, p in self.predicted.items()},
            "XAUC": {k: summed(order(p, y))[0] / step for k, p in self.predicted.items()},
        }

    @property
    def weights(self) -> Float[np.ndarray, " users"]:
        """Test rows of each user."""
        return amount_units.by_user(self.log.test.labels[:, 0], self.log.test.users)[1]


def kuairand(
    rivals: Sequence[str], seeds: Sequence[int], rates, log: Log | None = None, **options
) -> Real:
    """GR and rivals on KuaiRand's core, dropout 0.1 for all; rates, options: see `planted`."""
    log = log or real_videos.load(("seconds",))
    study, build = Study(rates, options), contenders(log)
    labels, median = log.test.labels[:, 0], log.train.labels[:, 0].median()
    study.choose(["GR", *rivals], [(log, build, seed) for seed in _unused(seeds)])
    rows, predicted = [], {}
    for seed in seeds:
        for name in ["GR", *rivals]:
            rows.append(study.train(name, log, build, seed, watch=True))
            predicted[name, seed] = study.models[name].predict(log.test)
        predicted["constant", seed] = median.expand(len(labels))
        blank = dict.fromkeys(["dense", "lr", "seconds"])
        floor = {"mae": (labels - median).abs().mean().item(), "xauc": 0.5}
        rows.append({"model": "constant", "seed": seed} | floor | blank)
    return Real([r | {"log mae": math.log(r["mae"])} for r in rows], predicted, log, study.curves)
