"""The comparisons of ELBO-TDS: in planted worlds whose statistics drift, and on KuaiRand by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .. import checks, loop, metrics
from ..data.schema import Schema
from ..data.store import Log
from ..nn.spectrum import effective_rank
from . import real_videos
from .elbo_tds import ELBOTDS
from .worlds.drifting import BUCKETS, DAYS, NAMES, STATISTICS, drifting

if TYPE_CHECKING:
    from jaxtyping import Float

TWINS = {"linear": {"alpha": 0.0}, "ELBO": {}}
RIVALS = {"ERM": {"alpha": 0.0, "latent": 0}, "jitter": {"alpha": 0.0, "augment": True}}
RIVALS |= {"quantiles": {"alpha": 0.0}}  # on the ranks within a day
ABLATIONS = {"ELBO + jitter": {"augment": True}, "prior only": {"terms": (False, True)}}
ABLATIONS |= {"copy as target": {"target": "copy"}}
ARMS = TWINS | RIVALS | ABLATIONS
WORLD = {"users": NAMES["user"], "statistics": [*NAMES["user"], *NAMES["item"]]}
TOWERS = {"latent": 16, "widths": (24, 12)}


@dataclass
class Study:
    """Arms with the same tables, towers, batches and passes; a pilot log chooses rates and alpha.

    sides: ``users`` and ``statistics`` of `ELBOTDS`. options: of `paperlab.loop.fit`.
    chosen: name -> Adam's rate and alpha. trials: one row a tried setting. curves: one row a pass.
    """

    sides: Mapping[str, Sequence[str]]
    options: dict
    copies: int = 4
    dim: int = 6
    chosen: dict[str, dict[str, float]] = field(default_factory=dict)
    trials: list[dict] = field(default_factory=list)
    curves: list[dict] = field(default_factory=list)

    def fit(
        self, name: str, log: Log, seed: int, lr: float, alpha: float
    ) -> tuple[loop.Fit, ELBOTDS]:
        """Train one arm of ARMS; an arm without the self-supervised loss ignores alpha."""
        torch.manual_seed(seed)
        given = {"alpha": alpha, "copies": self.copies} | TOWERS | self.sides | ARMS[name]
        model = ELBOTDS(log.schema, self.dim, lr=lr, **given)
        options = {"precision": "32-true", "accelerator": "cpu"} | self.options
        return loop.fit(model, log, seed=seed, **options), model

    def choose(
        self, logs: Mapping[str, Log], rates: Sequence[float], alphas: Sequence[float], seed: int
    ) -> None:
        """Choose a rate for every arm of ``logs``, then alpha for ELBO, by validation AUC.

        logs: arm -> pilot log. rates are tried with the first of ``alphas``; where the best lies at an
        end of several, one beyond it is tried too. Where there is one setting, nothing is trained.
        """
        for name, log in logs.items():
            lr, alpha = rates[0], alphas[0]
            if len(rates) > 1:
                found = {r: self._try(name, log, seed, r, alpha) for r in sorted(rates)}
                lr, grid = max(found, key=found.get), sorted(found)
                if lr in (grid[0], grid[-1]):
                    beyond = lr * lr / grid[1 if lr == grid[0] else -2]
                    found[beyond] = self._try(name, log, seed, beyond, alpha)
                    lr = max(found, key=found.get)
            if len(alphas) > 1 and "alpha" not in ARMS[name]:
                found = {a: self._try(name, log, seed, lr, a) for a in alphas}
                alpha = max(found, key=found.get)
            self.chosen[name] = {"lr": lr, "alpha": alpha}

    def _try(self, name: str, log: Log, seed: int, lr: float, alpha: float) -> float:
        """Validation AUC of one setting, which is trained once."""
        row = {"model": name, "lr": lr, "alpha": ARMS[name].get("alpha", alpha)}
        for known in self.trials:
            if row.items() <= known.items():
                return known["validation AUC"]
        run, _ = self.fit(name, log, seed, lr, alpha)
        self.trials.append(row | {"validation AUC": run.valid["auc"]})
        return run.valid["auc"]

    def edges(self) -> list[str]:
        """Arms whose chosen rate or alpha is the lowest or highest of several that were tried."""
        found = []
        for name, own in self.chosen.items():
            tried = [t for t in self.trials if t["model"] == name]
            for key, value in own.items():
                values = {t[key] for t in tried}
                if len(values) > 1 and value in (min(values), max(values)):
                    found.append(f"{name} ({key})")
        return found

    def train(
        self, name: str, log: Log, seed: int, slower: float = 1.0, watch: bool = False
    ) -> tuple[dict, ELBOTDS]:
        """An arm's row and model, at its chosen rate divided by ``slower``; ablations take ELBO's."""
        own = self.chosen.get(name) or self.chosen["ELBO"]
        run, model = self.fit(name, log, seed, own["lr"] / slower, own["alpha"])
        place = {"model": name, "seed": seed}
        if watch:
            self.curves += [
                place | {"pass": k, "auc": h["auc"]} for k, h in enumerate(run.history, 1)
            ]
        kept = {"lr": model.lr, "alpha": model.alpha, "valid_auc": run.valid["auc"]}
        return place | kept | {"seconds": run.seconds}, model


def worlds(
    study: Study,
    arms: Sequence[str],
    seeds: Sequence[int],
    drift: float,
    rows: int,
    slower: float = 1.0,
    watch: int = 0,
) -> list[dict]:
    """Arms in one planted world a seed, scored against the known probabilities.

    slower: divides the rates. watch: the first so many worlds give curves.
    Rows hold AUC by day ("days"), their mean ("all days") and that of days 7 and 8 ("late"); rank,
    latent, day: see `inside`; bayes, reachable: exact AUC of the truth, and see `reachable`.
    Raises ValueError for an unknown arm.
    """
    for name in arms:
        checks.one_of(ARMS, arms=name)
    found = []
    for k, seed in enumerate(seeds):
        log, ranks = (drifting(drift, rows=rows, buckets=b, seed=seed) for b in ("width", "rank"))
        p = log.truth.probability
        ends = {"bayes": metrics.exact_auc(p, p), "reachable": reachable(ranks)}
        for name in arms:
            own = ranks if name == "quantiles" else log
            row, model = study.train(name, own, seed, slower, watch=k < watch)
            days = by_day(model.predict(own.test), own)
            row |= {"drift": drift, "days": days, "late": sum(days[-2:]) / 2}
            row |= {"all days": sum(days) / len(days)} | inside(model, own) | ends
            found.append(row)
    return found


def by_day(scores: Float[Tensor, " n"], log: Log) -> list[float]:
    """Exact AUC on each test day of a planted log."""
    days = [log.truth.day == day for day in range(1, DAYS + 1)]
    return [metrics.exact_auc(scores[rows], log.truth.probability[rows]) for rows in days]


@torch.no_grad()
def inside(model: ELBOTDS, log: Log) -> dict[str, float | None]:
    """What mu holds on the test rows of a planted log; Nones for a model without an encoder.

    rank: effective rank of the centred mu, mean of both sides. latent: R2 of linear probes from mu to
    the true latent vector, mean of both sides; day: from both sides' mu to the day.
    """
    if model.towers[0].decode is None:
        return dict.fromkeys(["rank", "latent", "day"])
    mu = model.latents(log.test.take(slice(None)))
    sides = zip(mu, (log.truth.user, log.truth.item), strict=True)
    day = log.truth.day[:, None].double()
    return {
        "rank": sum(effective_rank(m - m.mean(0)) for m in mu) / 2,
        "latent": sum(probe(m, z) for m, z in sides) / 2,
        "day": probe(torch.cat(mu, 1), day),
    }


def probe(x: Float[Tensor, "n d"], y: Float[Tensor, "n k"]) -> float:
    """R2 of a least-squares fit of y on x and a constant: fitted on even rows, scored on odd ones."""
    x = torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.float64)], 1)
    # mu may lie in fewer directions than it has: gelsd takes the smallest solution
    weights = torch.linalg.lstsq(x[::2], y[::2].double(), driver="gelsd").solution
    rest = y[1::2] - x[1::2] @ weights
    return 1 - (rest.square().sum() / (y[1::2] - y[1::2].mean(0)).square().sum()).item()


def reachable(log: Log) -> float:
    """Exact AUC of the best bilinear score of a day's ranks: the least squares fit of the true logits.

    log: of `drifting` with ``buckets="rank"``. It knows the truth that it is scored on, so that it
    bounds what can be read from the statistics in this form.
    """
    share = (log.test.ids.double() - 0.5) / BUCKETS
    normal = torch.special.ndtri(share)
    one = torch.ones(len(normal), 1, dtype=torch.float64)
    u, i = (torch.cat([one, s], 1) for s in normal.split(STATISTICS, 1))
    x = (u[:, :, None] * i[:, None]).flatten(1)
    p = log.truth.probability
    weights = torch.linalg.lstsq(x, torch.logit(p)[:, None]).solution
    return metrics.exact_auc((x @ weights)[:, 0], p)


def videos(log: Log | None = None) -> tuple[Log, dict[str, list[str]]]:
    """KuaiRand's core for two towers without ids, and its `ELBOTDS` sides.

    log: of `real_videos`; None loads it with the label long_view. The user's side holds the account
    and the user's past days, the item's the video's past days and the duration; all but the account
    are statistics.
    """
    log = log or real_videos.load(("long_view",))
    names = [f.name for f in log.schema.fields]
    past = [n for n in names if n.startswith("past_")]
    statistics = [*past, "duration"]
    kept = [*real_videos.ACCOUNT, *statistics]
    columns = [names.index(n) for n in kept]
    schema = Schema(tuple(log.schema.fields[c] for c in columns), labels=log.schema.labels)
    parts = {
        p: replace(s, ids=s.ids[:, columns].contiguous())
        for p, s in (("train", log.train), ("valid", log.valid), ("test", log.test))
    }
    users = [*real_videos.ACCOUNT, *(n for n in past if "user" in n)]
    return replace(log, schema=schema, **parts), {"users": users, "statistics": statistics}


def moved(log: Log, names: Sequence[str]) -> list[dict]:
    """Total variation between the buckets of training rows and of test rows, for each field named."""
    own = [f.name for f in log.schema.categorical]
    found = []
    for name in names:
        column = own.index(name)
        size = log.schema.categorical[column].size
        shares = [s.ids[:, column].bincount(minlength=size) / len(s) for s in (log.train, log.test)]
        found.append({"statistic": name, "moved": (shares[0] - shares[1]).abs().sum().item() / 2})
    return found


def user_auc(
    scores: Float[Tensor, " n"], log: Log
) -> tuple[Float[np.ndarray, " u"], Float[np.ndarray, " u"]]:
    """AUC of each test user with both labels, in the order of their keys, and the users' rows."""
    users, label = log.user("test"), log.test.labels[:, 0]
    order = users.argsort(stable=True)
    counts = users.unique(return_counts=True)[1].tolist()
    groups = zip(scores[order].split(counts), label[order].split(counts), strict=True)
    found = [(metrics.auc(s, y), len(y)) for s, y in groups if 0 < y.sum() < len(y)]
    return tuple(np.array(column, float) for column in zip(*found, strict=True))


def kuairand(
    study: Study, log: Log, arms: Sequence[str], seeds: Sequence[int]
) -> tuple[list[dict], dict[tuple[str, int], Float[np.ndarray, " u"]], Float[np.ndarray, " u"]]:
    """Rows with the mean user-AUC of the test days, the AUCs of users by (arm, seed), and their rows."""
    rows, units, weights = [], {}, None
    for seed in seeds:
        for name in arms:
            row, model = study.train(name, log, seed)
            scores = model.predict(log.test)
            units[name, seed], weights = user_auc(scores, log)
            mean = float(np.average(units[name, seed], weights=weights))
            row |= {"user-AUC": mean, "auc": metrics.auc(scores, log.test.labels[:, 0])}
            rows.append(row)
    return rows, units, weights
