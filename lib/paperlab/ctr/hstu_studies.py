"""HSTU against softmax attention and SASRec: counting, a repeating stream, real histories, time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import lightning as L
import numpy as np
import torch
from torch.nn import functional as F

from .. import checks, intervals, trials
from ..data.batches import Batches
from ..loop import Trainable
from .baselines.sasrec import SASRecLayer
from .hstu import HSTULayer, TargetReader
from .next_item import NextItem, SequenceParts, hit, ndcg, ranks
from .worlds.counts import LONGEST, Counts, CountWorld, counts, frequency_ceiling
from .worlds.rich_get_richer import count_scores, rich_get_richer

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    Layer = Callable[[int, int, int], torch.nn.Module]  # of dim, heads and length

ON_CPU = {"precision": "32-true", "accelerator": "cpu"}
COUNTERS = {  # arms of the count study: options of HSTULayer
    "HSTU": {},
    "softmax": {"kind": "softmax"},
    "softmax + sink": {"kind": "sink"},
    "HSTU without LN": {"norm": False, "divisor": 8},
    "HSTU, small eps": {"eps": 1e-12},
}
LAYERS: dict[str, Layer] = {  # arms of the next-item studies; all have 5 dim^2 weights a layer
    "HSTU": HSTULayer,
    "softmax": lambda d, h, n, **more: HSTULayer(d, h, n, kind="softmax", **more),
    "SASRec": lambda d, h, n, **more: SASRecLayer(d, h, hidden=d // 2, **more),
    "SASRec without FFN": lambda d, h, n, **more: SASRecLayer(d, h, inner=5 * d // 4, **more),
}


class Counter(L.LightningModule):
    """A `TargetReader` that regresses the count over 4 of each target's category.

    own: whether a target reads its own key. options: of its `HSTULayer`.
    """

    select = None

    def __init__(self, own: bool = True, dim: int = 32, heads: int = 2, **options):
        super().__init__()
        layer = HSTULayer(dim, heads, LONGEST + 1, **options)
        self.reader, self.lr = TargetReader(CountWorld.vocabulary, dim, [layer], own), 3e-3

    def forward(self, part: Counts) -> Float[Tensor, "R 1"]:
        """Predicted counts."""
        return 4 * self.reader(part.history, part.target)

    @torch.no_grad()
    def spread(self, part: Counts) -> Float[Tensor, " R"]:
        """Variance over the entries of each target's A V, to which the LayerNorm adds its eps."""
        mask, at = self.reader.mask(part.history, 1)
        x = self.reader.embed(torch.cat([part.history, part.target], 1))
        mixed, _, _ = self.reader.layers[0].mix(x, mask[:, -1:], at)
        return mixed[:, 0].var(1, correction=0)

    def training_step(self, batch: Counts, batch_idx: int) -> Float[Tensor, ""]:
        return F.mse_loss(self(batch), batch.count) / 16

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def check(self, world: CountWorld) -> None:
        """Any world of counts will do."""

    def batches(self, part: Counts, batch_size: int, seed: int) -> Batches:
        return Batches(part, batch_size, seed)

    def count(self, batch: Counts) -> int:
        return len(batch)

    def evaluate(self, world: CountWorld, part: str = "test") -> dict[str, float]:
        """R^2 of the count: 1 - MSE / variance."""
        rows: Counts = getattr(world, part)
        error = (self(rows) - rows.count).square().mean()
        return {"R²": (1 - error / rows.count.var(correction=0)).item()}

    def count_parameters(self) -> dict[str, int]:
        table = self.reader.table.weight.numel()
        return {"dense": sum(p.numel() for p in self.parameters()) - table, "embedding": table}

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return Counts(**{k: v.to(device) for k, v in vars(batch).items()})


def tuned(
    arms: Mapping[str, Callable[[object, int | None], Trainable]],
    world: Callable[[int], object],
    seeds: Sequence[int],
    rates: Sequence[float],
    tune: Sequence[int] = (),
    **how,
) -> Iterator[tuple[dict, Trainable, object]]:
    """Every arm on a world drawn anew for each seed: rows of `trials.compare`, models and worlds.

    tune: seeds on which each arm's rate is chosen, by `best_rate`; none: the first of ``seeds``.
    how: passed to `trials.compare`.
    Raises ValueError for a seed in both lists.
    """
    if both := {*seeds} & {*tune}:
        raise ValueError(f"tune must hold other seeds than seeds, got {min(both)} in both")
    chosen, edges = {}, {}
    for seed in seeds:
        data = world(seed)
        for name, build in arms.items():
            if tune and len(rates) > 1 and name not in chosen:
                rate, edges[name] = best_rate(name, build, world, tune, rates, **how)
                chosen[name] = [rate]
            grid = chosen.get(name, rates)
            ((row, model),) = trials.compare({name: build}, data, seeds=[seed], rates=grid, **how)
            chosen[name] = [row["lr"]]
            yield row | {"edge": edges.setdefault(name, row["edge"])}, model, data


def best_rate(
    name: str,
    build: Callable[[object, int | None], Trainable],
    world: Callable[[int], object],
    seeds: Sequence[int],
    rates: Sequence[float],
    *,
    metric: tuple[str, str],
    widen: int = 0,
    **how,
) -> tuple[float, bool]:
    """The rate with the highest mean metric of the validation part, and whether it is at an edge.

    The grid is widened as by `trials.compare`, whose arguments these are; ``metric`` must be one
    where higher is better. A rate with a loss that is not finite loses to all others.
    """

    def quality(rate: float) -> float:
        total = 0.0
        for seed in seeds:
            one = {"seeds": [seed], "rates": [rate], "metric": metric}
            try:
                ((row, _),) = trials.compare({name: build}, world(seed), **one, **how)
            except FloatingPointError:
                return -math.inf
            total += row[f"valid_{metric[0]}"]
        return total / len(seeds)

    found = {rate: quality(rate) for rate in rates}
    while True:
        grid, best = sorted(found), max(found, key=found.get)
        edge = best in (grid[0], grid[-1])
        if not edge or len(grid) == len(rates) + widen:
            return best, edge
        beyond = best * best / grid[1 if best == grid[0] else -2]
        found[beyond] = quality(beyond)


def counting(
    seeds: Sequence[int],
    steps: int,
    arms: Sequence[str],
    rates: Sequence[float],
    own: bool = True,
    position: bool = True,
    tune: Sequence[int] = (),
) -> Iterator[dict]:
    """R^2 of each arm of `COUNTERS` after ``steps`` batches of 64 histories, none seen twice.

    own, position: whether targets read their own key, and the bias. tune: as in `tuned`; three
    rates or more may be widened by two. spread: median `Counter.spread` in the test part; ceiling:
    `frequency_ceiling`.
    Raises ValueError for an unknown arm.
    """
    for name in arms:
        checks.one_of(COUNTERS, arms=name)
    builders = {
        name: lambda _, __, name=name: Counter(own, **COUNTERS[name] | {"position": position})
        for name in arms
    }

    def world_of(seed: int) -> CountWorld:
        return counts(64 * steps, seed=seed)

    how = {
        "steps": steps,
        "batch_size": 64,
        "metric": ("R²", "higher"),
        "widen": 2 * (len(rates) > 2),
    }
    for row, model, world in tuned(builders, world_of, seeds, rates, tune, **how, **ON_CPU):
        more = {"steps": steps, "own": own, "position": position}
        more |= {"spread": model.spread(world.test).median().item()}
        yield row | more | {"ceiling": frequency_ceiling(world.test)}


def stream(
    seeds: Sequence[int],
    records: int,
    arms: Sequence[str],
    rates: Sequence[float],
    kind: Literal["fixed", "arriving"] = "fixed",
) -> Iterator[dict]:
    """HR@10 of each arm of `LAYERS` on a stream read once, and of two rules without weights.

    records: of the stream; 80 % train. rates: three or more may be widened by one. kind: whether all
    items are there from the start.
    Raises ValueError for an unknown arm or kind.
    """
    checks.one_of(("fixed", "arriving"), kind=kind)
    for name in arms:
        checks.one_of(LAYERS, arms=name)

    def builder(layer: Layer) -> Callable:
        return lambda world, _: NextItem(
            world.vocabulary, world.length, 32, [layer(32, 2, world.length) for _ in range(2)]
        )

    def world_of(seed: int) -> SequenceParts:
        return rich_get_richer(records, arrivals=kind == "arriving", seed=seed)

    how = {"batch_size": 64, "metric": ("HR@10", "higher"), "widen": int(len(rates) > 2)}
    builders = {name: builder(LAYERS[name]) for name in arms}
    for row, _, world in tuned(builders, world_of, seeds, rates, **how, **ON_CPU):
        yield row | {"stream": kind}
        if row["model"] == arms[-1]:
            for name, scores in oracles(world).items():
                found = ranks(scores.flatten(0, 1), world.test.target.flatten())
                plain = {"model": name, "seed": row["seed"], "stream": kind, "dense": 0}
                yield plain | {
                    "HR@10": hit(found).mean().item(),
                    "NDCG@10": ndcg(found).mean().item(),
                }


def oracles(world: SequenceParts) -> dict[str, Float[Tensor, "R N V"]]:
    """Scores of the test part by counts in the record so far, and by popularity in training."""
    counted = count_scores(world.test, world.train)
    popular = world.train.items.flatten().bincount(minlength=world.vocabulary).float()
    popular[0] = -1.0
    return {"count oracle": counted, "popularity": popular.expand_as(counted)}


def real(
    data: SequenceParts,
    arms: Mapping[str, dict],
    seeds: Sequence[int],
    rates: Sequence[float],
    epochs: int,
    *,
    dim: int = 50,
    batch_size: int = 128,
) -> tuple[list[dict], dict[tuple[str, int], np.ndarray]]:
    """Rows and NDCG@10 of every user, for each arm of two layers and one head, and for popularity.

    arms: name -> ``layer`` of `LAYERS`, and options of the layer and of `NextItem` (request_time).
    The epoch is chosen on validation, the rate at the first seed; three rates or more may be widened
    by one.
    """
    rows, units = [], {}

    def build(layer: str, request_time: bool = True, **options) -> NextItem:
        layers = [LAYERS[layer](dim, 1, data.length, dropout=0.2, **options) for _ in range(2)]
        more = {"dropout": 0.2, "request_time": request_time, "select": ("NDCG@10", "higher")}
        return NextItem(data.vocabulary, data.length, dim, layers, **more)

    builders = {name: lambda _, __, o=o: build(**o) for name, o in arms.items()}
    how = {"epochs": epochs, "batch_size": batch_size, "widen": int(len(rates) > 2)}
    for row, model, _ in tuned(builders, lambda seed: data, seeds, rates, **how, **ON_CPU):
        rows.append(row)
        units[row["model"], row["seed"]] = ndcg(model.eval().ranks(data.test)).numpy()
    last = data.test.target[:, -1]
    popular = data.train.target.flatten().bincount(minlength=data.vocabulary).float()
    scores = popular.expand(len(last), -1).masked_fill(data.test.met, -1.0)
    found = ranks(scores, last)
    for seed in seeds:
        plain = {"model": "popularity", "seed": seed, "dense": 0}
        rows.append(
            plain | {"HR@10": hit(found).mean().item(), "NDCG@10": ndcg(found).mean().item()}
        )
        units["popularity", seed] = ndcg(found).numpy()
    return rows, units


def user_gaps(
    units: Mapping[tuple[str, int], np.ndarray], names: Sequence[str], rival: str
) -> list[dict]:
    """Each name's mean minus the rival's, with its 95 % interval over seeds and users.

    units: as `real` returns them.
    """
    rows = []
    for name in names:
        pairs = [(units[m, s], units[rival, s]) for m, s in units if m == name]
        gap = intervals.two_level(*np.stack(pairs, 1))
        low, high = gap.interval()
        rows.append({"model": name, "against": rival, "difference": float(gap.value)})
        rows[-1] |= {"from": float(low), "to": float(high)}
    return rows


def throughput(seed: int, history: int = 50, candidates: int = 64, dim: int = 50) -> list[dict]:
    """Candidates scored a second by two HSTU layers with random weights, in four ways, in turn.

    copied histories: one batch with the whole history beside each candidate. apart: the largest
    difference of a way's scores from those of one pass a candidate.
    """
    torch.manual_seed(seed)
    reader = TargetReader(1000, dim, [HSTULayer(dim, 1, history + 1) for _ in range(2)]).eval()
    past = torch.randint(1, 1000, (1, history))
    some = torch.randint(1, 1000, (1, candidates))
    ways = {
        f"{candidates} at once": lambda: reader.in_microbatches(past, some, candidates),
        "1 at once": lambda: reader.in_microbatches(past, some, 1),
        "copied histories": lambda: reader(past.expand(candidates, -1), some.T).T,
        "no cache": lambda: torch.cat([reader(past, one) for one in some.split(1, 1)], 1),
    }
    with torch.no_grad():
        apart = {
            name: (way() - ways["no cache"]()).abs().max().item() for name, way in ways.items()
        }
        spent = trials.milliseconds_in_turn(ways, 3)
    return [
        {"model": name, "seed": seed, "candidates/s": 1e3 * candidates / ms, "apart": apart[name]}
        for name, ms in spent.items()
    ]
