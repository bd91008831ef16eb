"""The comparisons of generative regression: on planted worlds, of vocabularies, on KuaiRand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
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
HEADS = 8  # width of a head of GR's decoder, whose dense weights are everyone's budget


@dataclass
class Study:
    """Models trained on equal terms: rates tried on the first log, equal dense weights.

    rates: Adam's, one of them or, where the best is at an end of several, one beyond. options: of
    `paperlab.loop.fit`, such as epochs and batch_size.
    rows: one a model and seed; ablations: those of GR and its ablations, on the first logs;
    readings: of GR and of teacher forcing, one a way to decode; curves: validation scores after each
    epoch, on the first three logs; edges: models whose best rate is the lowest or highest tried.
    models, log: of the last log.
    """

    rates: Sequence[float]
    options: dict
    rows: list[dict] = field(default_factory=list)
    ablations: list[dict] = field(default_factory=list)
    readings: list[dict] = field(default_factory=list)
    curves: list[dict] = field(default_factory=list)
    edges: set[str] = field(default_factory=set)
    models: dict[str, AmountModel] = field(default_factory=dict)
    log: Log | None = None
    chosen: dict[str, float] = field(default_factory=dict)

    def train(self, name: str, log: Log, build: dict, seed: int, watch: bool = False) -> dict:
        """The row of one model; the model goes into ``models``."""
        budget = build["GR"](log.schema, HEADS).count_parameters()["dense"]
        grid, points = [self.chosen[name]] if name in self.chosen else [*self.rates], []

        def seen(model: AmountModel) -> dict:
            place = {"model": name, "seed": seed, "epoch": model.current_epoch + 1}
            points.append(place | {"rate": model.lr} | model.evaluate(log, "valid"))
            return {}

        [(row, model)] = trials.compare(
            {name: build[name]},
            log,
            seeds=[seed],
            rates=grid,
            widen=int(len(grid) > 1),
            budget=budget,
            watch=seen if watch else None,
            precision="32-true",
            accelerator="cpu",
            **self.options,
        )
        self.chosen[name], self.models[name], self.log = row["lr"], model, log
        self.edges |= {name} if row["edge"] else set()
        self.curves += [p for p in points if p["rate"] == row["lr"]]
        return row


def planted(
    rivals: Sequence[str],
    ablated: int,
    seeds: Sequence[int],
    rows: int,
    test: int,
    rates,
    **options,
) -> Study:
    """GR and its rivals on one planted log a seed, scored against the known distribution.

    rivals: of RIVALS. ablated: the first so many logs also train ABLATIONS. rows, test: of the
    training and test parts. rates, options: see `Study`. Rows hold "log mae" too; those of
    `scores.references` stand among them.
    Raises ValueError for an unknown rival.
    """
    for rival in rivals:
        checks.one_of(RIVALS, rivals=rival)
    study = Study(rates, options)
    for k, seed in enumerate(seeds):
        log = watch_time(rows, test=test, seed=seed)
        build = contenders(log, dropout=0.0)
        for name in dict.fromkeys(["GR", *rivals, *ABLATIONS * (k < ablated)]):
            row = study.train(name, log, build, seed, watch=k < 3 and name not in ABLATIONS)
            row |= scores.of_model(study.models[name], log)
            study.rows += [row] * (name not in ABLATIONS)
            study.ablations += [row] * (k < ablated and name in ("GR", *ABLATIONS))
            if name in ("GR", "GR teacher forcing"):
                ways = scores.readings(study.models[name], log)
                study.readings += [
                    {"model": name, "seed": seed, "read": w} | s for w, s in ways.items()
                ]
        blank = dict.fromkeys(["as trained", "free", "mass", "mass gap", "dense", "lr", "seconds"])
        known = scores.references(log)
        study.rows += [blank | {"model": name, "seed": seed} | s for name, s in known.items()]
    for row in study.rows + study.ablations + study.readings:
        row["log mae"] = math.log(row["mae"])
    return study


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

    predicted: by (model, seed). edges: see `Study`.
    """

    rows: list[dict]
    predicted: dict[tuple[str, int], Float[Tensor, " n"]]
    log: Log
    edges: set[str]

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
    """GR and rivals on KuaiRand's core, dropout 0.1 for all; rates, options: see `Study`."""
    log = log or real_videos.load(("seconds",))
    study, build = Study(rates, options), contenders(log)
    labels, median = log.test.labels[:, 0], log.train.labels[:, 0].median()
    rows, predicted = [], {}
    for seed in seeds:
        for name in ["GR", *rivals]:
            rows.append(study.train(name, log, build, seed))
            predicted[name, seed] = study.models[name].predict(log.test)
        predicted["constant", seed] = median.expand(len(labels))
        blank = dict.fromkeys(["dense", "lr", "seconds"])
        floor = {"mae": (labels - median).abs().mean().item(), "xauc": 0.5}
        rows.append({"model": "constant", "seed": seed} | floor | blank)
    return Real([r | {"log mae": math.log(r["mae"])} for r in rows], predicted, log, study.edges)
