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
LOGISTIC = "logistic regression"  # without products of the two sides: see `logistic`
WORLD = {"users": NAMES["user"], "statistics": [*NAMES["user"], *NAMES["item"]]}
TOWERS = {"latent": 16, "widths": (24, 12)}
WIDER = 3  # values by which a grid may grow
KEPT = ("lr", "alpha", "valid_auc", "passes", "best pass", "seconds")  # None for LOGISTIC


@dataclass
class Study:
    """Arms with the same tables, towers, batches and passes; pilot logs choose rates and alpha.

    sides: ``users`` and ``statistics`` of `ELBOTDS`. options: of `paperlab.loop.fit`, with epochs.
    chosen: name -> Adam's rate and alpha. trials: one row a tried setting. curves: one row a pass up to
    the limit, with the validation AUC of the weights kept so far.
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
        # a batch reads nearly every row of tables this small: a dense gradient is the quicker one
        model.embed.sparse = model.embed.table.sparse = False
        options = {"precision": "32-true", "accelerator": "cpu"} | self.options
        return loop.fit(model, log, seed=seed, **options), model

    def choose(
        self,
        logs: Mapping[str, Sequence[Log]],
        rates: Sequence[float],
        alphas: Sequence[float],
        seed: int,
    ) -> None:
        """Choose each arm's rate, then ELBO's alpha, by mean validation AUC; equal trials for all.

        logs: arm -> pilot logs; the k-th is trained on with ``seed`` + k.
        rates: tried with the first of ``alphas``. While any arm's best lies at an end, one beyond it
            is tried for every arm.
        alphas: tried for ELBO and widened alike; the others try as many rates next to their best.
        Of a single rate or alpha nothing is trained.
        """
        found, weights = {name: {} for name in logs}, {}
        todo = [*rates] if len(rates) > 1 else []
        while todo:
            for name, tried in found.items():
                tried |= {r: self._try(name, logs[name], seed, r, alphas[0]) for r in todo}
            todo = sorted({v for t in found.values() for v in beyond(t, len(rates))})
        todo = [*alphas] if len(alphas) > 1 and "ELBO" in logs else []
        while todo:
            lr = max(found["ELBO"], key=found["ELBO"].get, default=rates[0])
            weights |= {a: self._try("ELBO", logs["ELBO"], seed, lr, a) for a in todo}
            todo = beyond(weights, len(alphas))
        for name, tried in found.items():
            own = weights if name == "ELBO" else {}
            for k in range(len(weights) - 1 if tried and not own else 0):
                lr = nearer(tried, k)
                tried[lr] = self._try(name, logs[name], seed, lr, alphas[0])
            alpha = max(own, key=own.get, default=ARMS[name].get("alpha", alphas[0]))
            self.chosen[name] = {"lr": max(tried, key=tried.get, default=rates[0]), "alpha": alpha}

    def _try(self, name: str, logs: Sequence[Log], seed: int, lr: float, alpha: float) -> float:
        """Mean validation AUC of one setting, which is trained once on each log."""
        row = {"model": name, "lr": lr, "alpha": ARMS[name].get("alpha", alpha)}
        for known in self.trials:
            if row.items() <= known.items():
                return known["validation AUC"]
        runs = [self.fit(name, log, seed + k, lr, alpha)[0] for k, log in enumerate(logs)]
        row["validation AUC"] = sum(run.valid["auc"] for run in runs) / len(runs)
        self.trials.append(row | {"passes": max(len(run.history) for run in runs)})
        return row["validation AUC"]

    def settings(self) -> list[dict]:
        """What was tried for each arm and chosen, and whether the choice lies at an end."""
        found = []
        for name, own in self.chosen.items():
            row = {"model": name, **own, "trials": 0, "edge": []}
            for key, value in own.items():
                values = [t[key] for t in self.trials if t["model"] == name]
                ends = {min(values, default=value), max(values, default=value)}
                row |= {"trials": len(values), f"{key} tried": [*sorted(ends)]}
                row["edge"] += [key] if len(ends) > 1 and value in ends else []
            found.append(row)
        return found

    def train(
        self, name: str, log: Log, seed: int, slower: float = 1.0, watch: bool = False
    ) -> tuple[dict, Float[Tensor, " n"], ELBOTDS | None]:
        """An arm's row, logits of the test part, and model (None for `logistic`).

        slower: divides its chosen rate. An ablation takes ELBO's rate and alpha.
        """
        place = {"model": name, "seed": seed} | dict.fromkeys(KEPT)
        if name == LOGISTIC:
            return place, logistic(log), None
        own = self.chosen.get(name) or self.chosen["ELBO"]
        run, model = self.fit(name, log, seed, own["lr"] / slower, own["alpha"])
        aucs, limit = [h["auc"] for h in run.history], self.options["epochs"]
        kept = {"lr": model.lr, "alpha": model.alpha, "valid_auc": run.valid["auc"]}
        kept |= {"passes": len(aucs), "best pass": 1 + aucs.index(max(aucs))}
        if watch:
            best = [max(aucs[:k]) for k in range(1, limit + 1)]
            at = {"model": name, "seed": seed}
            self.curves += [at | {"pass": k, "auc": auc} for k, auc in enumerate(best, 1)]
        return place | kept | {"seconds": run.seconds}, model.predict(log.test), model


def beyond(found: Mapping[float, float], given: int) -> list[float]:
    """The next value of a geometric grid (value -> quality) where its best lies at an end, or none.

    given: values that it began with; WIDER more end the search.
    """
    best, grid = max(found, key=found.get), sorted(found)
    if grid[0] < best < grid[-1] or len(grid) >= given + WIDER:
        return []
    return [best * best / grid[1 if best == grid[0] else -2]]


def nearer(found: Mapping[float, float], turn: int) -> float:
    """The geometric mean of the best of a grid and its neighbour: the lower on even turns."""
    best, grid = max(found, key=found.get), sorted(found)
    at = grid.index(best)
    near = [v for v in grid[max(at - 1, 0) : at + 2] if v != best]
    return (best * near[turn % len(near)]) ** 0.5


def logistic(log: Log) -> Float[Tensor, " n"]:
    """Test logits of a logistic regression on the fields' one-hot ids (L2 penalty, C = 1).

    It has no product of user and item: what each side tells alone.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import OneHotEncoder

    code = OneHotEncoder(handle_unknown="ignore")
    x, y = code.fit_transform(log.train.ids.numpy()), log.train.labels[:, 0].numpy()
    model = LogisticRegression(max_iter=1_000).fit(x, y)
    return torch.from_numpy(model.decision_function(code.transform(log.test.ids.numpy())))


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

    arms: of ARMS, and LOGISTIC. slower: divides the rates. watch: the first so many worlds give curves.
    Rows hold AUC by day ("days"), their mean ("all days") and that of days 7 and 8 ("late"); rank,
    latent, day: see `inside`; bayes, reachable: exact AUC of the truth, and see `reachable`.
    Raises ValueError for an unknown arm.
    """
    for name in arms:
        checks.one_of((*ARMS, LOGISTIC), arms=name)
    found = []
    for k, seed in enumerate(seeds):
        log, ranks = (drifting(drift, rows=rows, buckets=b, seed=seed) for b in ("width", "rank"))
        p = log.truth.probability
        ends = {"bayes": metrics.exact_auc(p, p), "reachable": reachable(ranks)}
        for name in arms:
            own = ranks if name == "quantiles" else log
            row, scores, model = study.train(name, own, seed, slower, watch=k < watch)
            days = by_day(scores, own)
            row |= {"drift": drift, "days": days, "late": sum(days[-2:]) / 2}
            row |= {"all days": sum(days) / len(days)} | inside(model, own) | ends
            found.append(row)
    return found


def per_day(rows: Sequence[dict], less: str | None = None) -> list[dict]:
    """Rows of `worlds`, one a test day: "day ahead" and "AUC", minus that of arm ``less`` if given."""
    base = {r["seed"]: r["days"] for r in rows if r["model"] == less}
    found = []
    for row in rows:
        if row["model"] != less:
            other = base.get(row["seed"], [0.0] * DAYS)
            aucs = (a - b for a, b in zip(row["days"], other, strict=True))
            found += [row | {"day ahead": k, "AUC": auc} for k, auc in enumerate(aucs, 1)]
    return found


def by_day(scores: Float[Tensor, " n"], log: Log) -> list[float]:
    """Exact AUC on each test day of a planted log."""
    days = [log.truth.day == day for day in range(1, DAYS + 1)]
    return [metrics.exact_auc(scores[rows], log.truth.probability[rows]) for rows in days]


@torch.no_grad()
def inside(model: ELBOTDS | None, log: Log) -> dict[str, float | None]:
    """What mu holds on the test rows of a planted log; Nones where there is no encoder.

    rank: effective rank of the centred mu, mean of both sides. latent: R2 of linear probes from mu to
    the true latent vector, mean of both sides; day: from both sides' mu to the day.
    """
    if model is None or model.towers[0].decode is None:
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
    """Rows with the user-AUC of the test days; by (arm, seed), users' rows times AUC; and those rows.

    User-AUC is the mean over users by rows: the sum of the second over the sum of the third, which is
    what `Record.scores` takes.
    """
    rows, sums, weights = [], {}, None
    for seed in seeds:
        for name in arms:
            row, scores, _ = study.train(name, log, seed)
            aucs, weights = user_auc(scores, log)
            sums[name, seed] = aucs * weights
            row["user-AUC"] = float(sums[name, seed].sum() / weights.sum())
            rows.append(row | {"auc": metrics.auc(scores, log.test.labels[:, 0])})
    return rows, sums, weights
