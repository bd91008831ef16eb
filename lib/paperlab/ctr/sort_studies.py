"""SORT's arms compared: tables that are transferred or frozen, masks, and the time of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .. import loop, metrics, trials
from ..nn.transformer import candidate_mask, causal_mask
from .sort import SORT, Generative, one_at_a_time

if TYPE_CHECKING:
    from jaxtyping import Float

    from .real_requests import RequestLog
    from .worlds.requests import Requests, RequestWorld

ON_CPU = {"precision": "32-true", "accelerator": "cpu"}
TABLES = {  # start of the item table, and what training does to it
    "scratch": {},
    "random, frozen": {"freeze": True},
    "transfer": {"transfer": True},
    "transfer, slow table": {"transfer": True, "slow": 0.1},
    "transfer, frozen": {"transfer": True, "freeze": True},
}
PARTS = {  # components of a SORT with two layers and a window; the widths make up for their weights
    "SORT": {},
    "no gate": {"gate": False},
    "no QK-norm": {"qk_norm": False},
    "no BOS, SEP": {"special": False},
    "vanilla": {"gate": False, "qk_norm": False, "special": False, "window": None, "hidden": 75},
}


def pre_trained(
    world: RequestWorld | RequestLog, seed: int, *, dim: int = 32, **options
) -> tuple[Float[Tensor, "V D"], dict]:
    """The item table of `Generative`, trained on the histories of the training part, and its row.

    options: of `trials.compare`: rates, epochs, batch_size.
    """
    build = {"GPSD": lambda world, _: Generative(world.vocabulary, dim)}
    row, model = next(trials.compare(build, world, seeds=[seed], **ON_CPU, **options))
    return model.tokens.items.weight.detach(), row


def tables(
    world: RequestWorld | RequestLog, seed: int, cells: Sequence[str], **options
) -> dict[str, dict]:
    """The settings of the cells of `TABLES`, after a pre-training with ``options``."""
    table, _ = pre_trained(world, seed, **options)
    arms = {}
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
    laps: int = 5,
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
