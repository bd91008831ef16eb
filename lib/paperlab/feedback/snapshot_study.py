"""Methods that serve a function of frozen snapshots, compared on equal terms.

The base model is tuned for fine-tuning alone. Then every method reads the same snapshots and the
same next periods, and chooses one number of its own among equally many on rows that are not
judged. Ours; the methods are those of `asmg`, `snapshots` and popularity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from .. import checks
from .asmg import ASMG, TABLES, Base, GRUGenerator, LinearGenerator, freeze
from .baselines.item_counts import ItemCounts
from .prequential import Method, Stream, rows, test_then_train
from .snapshots import Served, Weights, exponential, extrapolate, window

FIRST = 6  # periods that the base is trained on before the first test

GRU_RATES = (0.003, 0.01, 0.001, 0.03, 0.0003)
# method -> the numbers that it may try, the first where it tries one only
TRIED: dict[str, Sequence[float]] = {
    "popularity": (0.9, 1.0, 0.7, 0.5, 0.3),  # decay
    "fine-tuned": (),
    "EMA": (0.4, 0.1, 0.8, 0.9, 0.2),  # decay
    "extrapolation": (0.1, 0.03, 0.3, 1.0, 0.01),  # step
    "ASMG-linear": (0.03, 0.1, 0.01, 0.3, 0.003),  # Adam's rates from here on
    "ASMG": GRU_RATES,
    "map without history": GRU_RATES,
    "as in the paper": (0.01, 0.003, 0.03, 0.1, 0.001),
    "single period": (),
    "zero state": (),
}
SAME_AS_ASMG = ("single period", "zero state")  # in their number
OPTIONS = {
    "map without history": {"carried": False},
    "single period": {"shares": "single"},
    "zero state": {"carried": False},
}  # of `ASMG`
RULES: dict[str, Callable] = {"EMA": exponential, "extrapolation": extrapolate}


def run(stream: Stream, method: Method) -> tuple[list[dict], list[tuple[int, torch.Tensor]]]:
    """Rows of metrics and (period, logits) of all tested periods."""
    tested = [*test_then_train(method, stream, FIRST)]
    return rows(stream, tested), tested


def mean(found: Sequence[dict], name: str) -> float:
    """Mean of a column."""
    return sum(row[name] for row in found) / len(found)


def best(found: Sequence[dict], *columns: str) -> tuple:
    """The values of the columns at which the mean AUC is best; the first in order of ties."""
    places: dict[tuple, list[dict]] = {}
    for row in found:
        places.setdefault(tuple(row[c] for c in columns), []).append(row)
    return max(sorted(places), key=lambda place: mean(places[place], "AUC"))


@dataclass(frozen=True)
class Study:
    """What all methods share.

    judged: last periods that are judged.
    trials: numbers that each method tries, 1..5. meta_batch: rows of each period in a generator's
    step. batch_size: of the base model.
    Raises ValueError for values out of range.
    """

    judged: int
    trials: int = 4
    meta_batch: int = 256
    batch_size: int = 256

    def __post_init__(self):
        checks.whole(judged=self.judged, meta_batch=self.meta_batch, batch_size=self.batch_size)
        checks.inside("[1, 5]", trials=self.trials)

    @property
    def earlier(self) -> slice:
        """As many tested periods before the judged ones, to choose on in the judged stream itself."""
        return slice(-2 * self.judged, -self.judged)

    def base(
        self, stream: Stream, setting: tuple[float, int], seed: int
    ) -> tuple[Base, list[Weights | None]]:
        """A base model and its snapshots; setting: Adam's rate, passes a period."""
        torch.manual_seed(seed)
        model = Base(stream.schema, lr=setting[0])
        options = {"epochs": setting[1], "batch_size": self.batch_size, "seed": seed}
        return model, freeze(model, stream, FIRST, **options)

    def method(self, name: str, base: tuple, x: float | None, seed: int) -> Method:
        """A method by name; base: as `base` returns it; x: the method's number."""
        checks.one_of(TRIED, method=name)
        model, frozen = base
        if name == "popularity":
            return ItemCounts(model.item.num_embeddings, x)
        if name == "fine-tuned":
            return Served(model, frozen, partial(window, size=1))
        if name in RULES:
            number = {"EMA": "decay", "extrapolation": "step"}[name]
            return Served(model, frozen, partial(RULES[name], **{number: x}))
        torch.manual_seed(seed)
        options = {"lr": x, "batch_size": self.meta_batch, "seed": seed} | OPTIONS.get(name, {})
        if name == "ASMG-linear":
            generator: nn.Module = LinearGenerator(frozen[-1], [*TABLES])
            options["shares"] = "single"
        else:
            form = {"residual": name != "as in the paper", "memory": name != "map without history"}
            generator = GRUGenerator(frozen[-1], [*TABLES], **form)
        return ASMG(model, frozen, generator, **options)

    def tune(
        self, streams: dict[int, Stream], settings: Iterable[tuple[float, int]], part: slice
    ) -> list[dict]:
        """AUC of fine-tuning alone: rate, passes, seed, AUC.

        streams: by seed. part: of the tested periods.
        """
        found = []
        for rate, passes in settings:
            for seed, stream in streams.items():
                base = self.base(stream, (rate, passes), seed)
                auc = mean(run(stream, self.method("fine-tuned", base, None, seed))[0][part], "auc")
                found.append({"rate": rate, "passes": passes, "seed": seed, "AUC": auc})
        return found

    def choose(
        self,
        streams: dict[int, Stream],
        setting: tuple[float, int],
        names: Iterable[str],
        part: slice,
    ) -> dict[str, float | None]:
        """Each method's number, by mean AUC.

        streams: by seed. part: of the tested periods.
        """
        values = {name: TRIED[name][: self.trials] for name in (*names, "ASMG")}
        tries: dict[str, list[dict]] = {name: [] for name, v in values.items() if len(v) > 1}
        for seed, stream in streams.items() if tries else ():
            base = self.base(stream, setting, seed)
            for name in tries:
                for x in values[name]:
                    found, _ = run(stream, self.method(name, base, x, seed))
                    tries[name].append({"value": x, "AUC": mean(found[part], "auc")})
        chosen = {name: v[0] for name, v in values.items() if v}
        chosen |= {name: best(tried, "value")[0] for name, tried in tries.items()}
        chosen |= dict.fromkeys(SAME_AS_ASMG, chosen["ASMG"]) | {"fine-tuned": None}
        return {name: chosen[name] for name in names}

    def compete(
        self,
        stream: Stream,
        seed: int,
        setting: tuple[float, int],
        chosen: dict[str, float | None],
    ) -> Iterator[tuple[dict, list[tuple[int, torch.Tensor]], Method]]:
        """Every chosen method on the same snapshots: (row, its tested periods, the method).

        row: model, seed, setting (its number), edge (whether that is the least or the largest of those
        tried), meta (weights of its generator), and the means of `prequential.rows` over the judged periods.
        """
        base = self.base(stream, setting, seed)
        for name, x in chosen.items():
            method, tried = self.method(name, base, x, seed), TRIED[name][: self.trials]
            found, tested = run(stream, method)
            late = {k: mean(found[-self.judged :], k) for k in found[0] if k != "period"}
            edge = len(tried) > 1 and x in (min(tried), max(tried))
            meta = sum(w.numel() for w in getattr(method, "generator", nn.Module()).parameters())
            row = {"model": name, "seed": seed, "setting": x, "edge": edge, "meta": meta}
            yield row | late, tested, method


def movement(method: Served, table: str = "user.weight") -> tuple[float, float]:
    """(a, c) of theta* - theta_t ~ a theta_t + c (theta_t - theta_{t-1}), by least squares.

    Over the rows of one table but its first (the unknown id); theta* is what is served last.
    """
    *_, before, last = (w[table][1:].flatten() for w in method.so_far())
    with torch.no_grad():
        new = method.make(method.so_far())[table][1:].flatten()
    columns = torch.stack([last, last - before], 1)
    a, c = torch.linalg.lstsq(columns, (new - last)[:, None]).solution.flatten().tolist()
    return a, c
