"""SORT's arms compared: tables that are transferred or frozen, masks, and the time of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .. import loop, metrics, trials
from ..nn.transformer import candidate_mask, causal_mask
from . import real_requests
from .sort import SORT, Generative, kept_queries, one_at_a_time
from .worlds.requests import OWN, within

if TYPE_CHECKING:
    from jaxtyping import Float

    from .real_requests import RequestLog
    from .worlds.requests import Requests, RequestWorld

PRE_RATE = 0.008  # of the pre-training
OWN_SHARE = "user's long-view share"
ON_CPU = {"precision": "32-true", "accelerator": "cpu"}
TABLES = {  # start of the item table, and what training does to it
    "scratch": {},
    "random, frozen": {"freeze": True},
    "transfer": {"transfer": True},
    "transfer, slow table": {"transfer": True, "slow": 0.1},
    "transfer, frozen": {"transfer": True, "freeze": True},
}
PARTS = {  # what is taken from a SORT with two layers and a window
    "no gate": {"gate": False},
    "no QK-norm": {"qk_norm": False},
    "no BOS, SEP": {"special": False},
    "vanilla": {"gate": False, "qk_norm": False, "special": False, "window": None, "hidden": 75},
}


def pre_trained(world: RequestWorld | RequestLog, seed: int, **options) -> Float[Tensor, "V D"]:
    """The item table of `Generative`, trained on the histories of the training part.

    options: of `paperlab.loop.fit`: epochs, batch_size. The weights are those of the epoch with the
    best validation loss.
    """
    torch.manual_seed(seed)
    model = Generative(world.vocabulary, lr=PRE_RATE)
    loop.fit(model, world, seed=seed, **options, **ON_CPU)
    return model.tokens.items.weight.detach()


def tables(
    world: RequestWorld | RequestLog, seed: int, cells: Sequence[str], **options
) -> dict[str, dict]:
    """The settings of the cells of `TABLES`, after a pre-training with ``options`` for those it needs."""
    table, arms = None, {}
    if any("transfer" in TABLES[name] for name in cells):
        table = pre_trained(world, seed, **options)
    for name in cells:
        rest = dict(TABLES[name])
        arms[name] = {"table": table} | rest if rest.pop("transfer", False) else rest
    return arms


def trained(
    arms: Callable[[RequestWorld, int], Mapping[str, dict]],
    worlds: Iterable[tuple[int, RequestWorld | RequestLog]],
    *,
    rates: Sequence[float],
    epochs: int,
    batch_size: int,
) -> Iterator[tuple[dict, list[dict], dict[str, Tensor]]]:
    """Train every arm on the worlds of all seeds; yield a row of results, the checks and the scores.

    arms: of a world and a seed, settings of `SORT` by name. worlds: (seed, world). rates: all are
    tried in the first world; an arm takes the one with the best validation AUC to the other worlds.
    epochs: every arm keeps the weights of the epoch that is best on validation.

    A row has the AUCs of these weights (``auc``, ``gauc``) and of the last (``last``) on the test
    part, the best epoch (from 1), the rate and whether it lies at an end of several, and the numbers
    of weights. A check has ``test``, the AUC of its weights on the test part. The scores are those
    of the test part's candidates, by the ``best`` and by the ``last`` weights.
    """
    chosen: dict[str, tuple[float, bool]] = {}
    how = {"epochs": epochs, "batch_size": batch_size}
    for seed, world in worlds:
        for name, options in arms(world, seed).items():
            tried = [chosen[name][0]] if name in chosen else rates
            runs = {rate: _run(options | {"lr": rate}, world, seed, how) for rate in tried}
            best = max(runs, key=lambda r: runs[r][0].valid["auc"])
            done, scores = runs[best]
            ends = len(rates) > 1 and best in (min(rates), max(rates))
            _, edge = chosen.setdefault(name, (best, ends))
            epoch = 1 + max(range(len(done.history)), key=lambda k: done.history[k]["auc"])
            row = {"log": world.name, "model": name, "seed": seed} | done.test
            row |= {"last": done.history[-1]["test"], "best epoch": epoch, "lr": best, "edge": edge}
            yield row | done.parameters | {"seconds": done.seconds}, done.history, scores


def _run(
    options: dict, world: RequestWorld | RequestLog, seed: int, how: dict
) -> tuple[loop.Fit, dict[str, Tensor]]:
    """One arm at one rate: its fit, and its scores of the test part."""
    scores, test = {}, world.test

    def watch(model: SORT) -> dict[str, float]:
        scores["last"] = model.predict(test).flatten()
        return {"test": metrics.exact_auc(scores["last"], test.probability.flatten())}

    torch.manual_seed(seed)
    model = SORT(world.vocabulary, test.items.shape[1], **options)
    done = loop.fit(model, world, seed=seed, watch=watch, **how, **ON_CPU)
    return done, scores | {"best": model.eval().predict(test).flatten()}


def item_rate(world: RequestWorld | RequestLog) -> Float[Tensor, " n"]:
    """A trivial rival's scores of the test part: the candidate's click rate in training.

    Rates are drawn to the mean rate as if each item had ten more rows of it.
    """
    shown, clicks = (x.flatten() for x in (world.train.candidates, world.train.labels))
    zeros = torch.zeros(world.vocabulary)
    n, k = zeros.index_add(0, shown, torch.ones_like(clicks)), zeros.index_add(0, shown, clicks)
    return ((k + 10 * clicks.mean()) / (n + 10))[world.test.candidates.flatten()]


def own_share(log: RequestLog) -> Float[Tensor, " n"]:
    """A trivial rival's scores of the test part: the share of long views in the user's own history.

    One number for all candidates of a request; 0 without a history.
    """
    there, liked = log.test.present, log.test.flags == OWN
    share = (liked & there).sum(1) / there.sum(1).clamp(min=1)
    return share[:, None].expand_as(log.test.labels).flatten()


def rival(
    world: RequestWorld | RequestLog,
    seed: int,
    name: str = "item's click rate",
    rule: Callable[[RequestWorld | RequestLog], Float[Tensor, " n"]] = item_rate,
) -> dict:
    """The row of a rule without weights, with the columns of `trained`'s that it can have."""
    score, chance = rule(world), world.test.probability
    auc = metrics.exact_auc(score, chance.flatten())
    row = {"model": name, "seed": seed, "auc": auc, "last": auc, "dense": 0}
    row["gauc"] = within(score.view_as(chance), chance)
    return row | {"log": world.name, "best epoch": None, "lr": None, "edge": False, "seconds": 0.0}


def kuairand(
    seeds: Sequence[int],
    cells: Sequence[str],
    *,
    rates: Sequence[float],
    epochs: int,
    batch_size: int = 96,
) -> tuple[list[dict], dict[tuple[str, int], Tensor], RequestLog]:
    """The cells on KuaiRand, beside two rules without weights: `item_rate` and `own_share`.

    Returns rows, the scores of the test part by arm and seed, and the log. Scores of the last
    epoch's weights, where the table was transferred, are those of the arm "NAME, last epoch".
    """
    log = real_requests.load()
    how = {"epochs": epochs, "batch_size": batch_size}
    rows, scores = [], {}
    for seed in seeds:
        rows += [rival(log, seed), rival(log, seed, OWN_SHARE, own_share)]
        scores[OWN_SHARE, seed] = own_share(log)

    def arms(log: RequestLog, seed: int) -> dict[str, dict]:
        return tables(log, seed, cells, **how)

    for row, _, found in trained(arms, [(seed, log) for seed in seeds], rates=rates, **how):
        rows.append(row)
        scores[row["model"], row["seed"]] = found["best"]
        if row["model"].startswith("transfer"):
            scores[row["model"] + ", last epoch", row["seed"]] = found["last"]
    return rows, scores, log


def first_held(
    length: int, window: int | None, last: int | None, layers: int
) -> Float[Tensor, "T T"]:
    """The first layer after which a token holds another, NaN where none does; 0 for itself.

    Tokens are the events of a history, without BOS and SEP, and a candidate.
    """
    reads, event = candidate_mask(causal_mask(length, window), 1), torch.arange(length + 1)
    holds, left = torch.eye(length + 1, dtype=torch.bool), event >= 0
    first = torch.where(holds, 0.0, torch.nan)
    kept = kept_queries(torch.tensor(length), layers, last)
    for layer, count in enumerate(kept.tolist(), 1):
        stays = event >= length - count
        now = (reads & left & stays[:, None]).float() @ holds.float() > 0
        first[now & ~holds] = layer
        holds, left = holds | now, stays
    return first


@torch.no_grad()
def differences(model: SORT, requests: Requests) -> dict[str, float]:
    """Largest differences of logits: from candidates alone, and of those beside a replaced one."""
    model.eval()
    joint = model(requests)
    alone = model(one_at_a_time(requests)).view_as(joint)
    moved = requests.candidates.clone()
    moved[:, 0] = moved[:, 0] % (model.tokens.items.num_embeddings - 1) + 1
    rows = vars(requests) | {"candidates": moved}
    beside = (model(type(requests)(**rows)) - joint)[:, 1:]
    return {
        "one candidate a sequence": (alone - joint).abs().max().item(),
        "another first candidate": beside.abs().max().item(),
    }


class Encoder(nn.Module):
    """torch's TransformerEncoder over history and candidates, with SORT's mask and sizes."""

    def __init__(self, like: SORT, layers: int, dim: int, hidden: int, heads: int = 2):
        super().__init__()
        self.tokens, self.length = like.tokens, like.length
        block = nn.TransformerEncoderLayer(
            dim, heads, hidden * 3 // 2, 0.0, batch_first=True, norm_first=True
        )  # two matrices of 1.5 times the width have the weights of SwiGLU's three
        self.stack = nn.TransformerEncoder(block, layers, nn.LayerNorm(dim), False)

    def forward(self, batch: Requests) -> Float[Tensor, "B N D"]:
        past, chosen = self.tokens(batch.items, batch.flags), self.tokens(batch.candidates)
        mask = candidate_mask(causal_mask(self.length), chosen.shape[1])
        return self.stack(torch.cat([past, chosen], 1), mask=~mask)[:, self.length :]


@torch.no_grad()
def request_times(
    world: RequestWorld,
    candidates: Sequence[int],
    *,
    requests: int = 32,
    layers: int = 2,
    laps: int = 3,
) -> list[dict]:
    """Milliseconds a request of N candidates: SORT jointly and one by one, and torch's encoder."""
    torch.manual_seed(0)
    length = world.train.items.shape[1]
    model = SORT(world.vocabulary, length, layers=layers, window=4, last=length // 4).eval()
    plain = Encoder(model, layers, 32, 64).eval()
    rows, few = [], world.test.take(slice(requests))
    for n in candidates:
        again = -(-n // few.candidates.shape[1])
        wide = {
            k: getattr(few, k).repeat(1, again)[:, :n]
            for k in ("candidates", "labels", "probability")
        }
        batch = type(few)(**vars(few) | wide)
        alone = one_at_a_time(batch)
        calls = {"SORT": lambda b=batch: model(b), "SORT, one by one": lambda b=alone: model(b)}
        calls["torch encoder"] = lambda b=batch: plain(b)
        spent = trials.milliseconds_in_turn(calls, laps)
        rows += [{"N": n, "model": k, "ms": ms / requests} for k, ms in spent.items()]
    return rows
