"""Training steps of HSTU and SORT beside RecBole's SASRec and torch's encoder; requests; tables.

All models rank the same random candidates after the same random histories, with the same loss (the
softmax of the target among the candidates), optimiser (torch's fused Adam), width, layers and heads,
in float32; a peer's feed-forward layer is as wide as gives its layers the weights of ours. The table
of items is dense on both sides. HSTU and its peers score a candidate by its product with the last
event's state. SORT reads candidates as tokens, as its torch encoder does; SASRec does not, so it has
fewer tokens.

Two more comparisons, of equal outputs: a request of N candidates in one sequence or in N sequences
of one, and merged or separate tables. Each side of the first has a process of its own; all sides
alternate, on one thread. Intervals are of medians over pairs, from order statistics.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from ..ctr import recis_studies
from ..ctr.hstu import HSTULayer
from ..ctr.next_item import NextItem
from ..ctr.next_item import Sequences as Histories
from ..ctr.sort import SORT, one_at_a_time, token_ratio
from ..ctr.sort_studies import Encoder
from ..ctr.worlds.requests import Requests
from ..machine import use_threads
from ..nn.table_adam import TableAdam
from ..nn.tables import Setting, Tables
from ..nn.transformer import MatchHead
from . import limits
from .clock import WARM, Clock
from .processes import alone, lasting
from .training import THREADS, row

if TYPE_CHECKING:
    from jaxtyping import Float

AGAINST = [(a, b) for a in ("HSTU", "SORT") for b in ("RecBole SASRec", "torch encoder")]
DIM, HEADS, LAYERS, LENGTH, ITEMS, CANDIDATES, BATCH_SIZE = 64, 2, 2, 50, 5000, 16, 128
HIDDEN = 2 * DIM  # of SORT's SwiGLU: with the gate a layer has 11 dim^2 weights, one of HSTU's 5
FEED = {"HSTU": DIM // 2, "SORT": 7 * DIM // 2}  # of the peers' layers, which have the same number
PAIRS, STEPS = 9, 12
NUMBERS, REQUESTS = (1, 4, 16, 64), 8  # of candidates; requests a batch
FIELDS = (10, 50, 100, 250, 500)


def measure(
    pairs: int = PAIRS, numbers: Sequence[int] = NUMBERS, fields: Sequence[int] = FIELDS
) -> dict:
    """All three comparisons. pairs: runs of each side, >= 6, which an interval needs.

    Without RecBole its rows are left out. Raises ValueError for values out of range.
    """
    checks.whole(6, pairs=pairs)
    against = [(a, b) for a, b in AGAINST if "RecBole" not in b or find_spec("recbole")]
    runs: dict[tuple[str, str], list[dict]] = {}
    with lasting() as ours, lasting() as theirs:
        for seed in range(pairs):
            mine = {name: ours(train, name, name, seed) for name in FEED}
            for name, peer in against:
                pair = {"ours": mine[name], "theirs": theirs(train, peer, name, seed)}
                runs.setdefault((name, peer), []).append(pair)
        limit = {name: ours(least, name) for name in FEED}
    rows = []
    for (name, peer), both in runs.items():
        ratios = [r["theirs"]["seconds"] / r["ours"]["seconds"] for r in both]
        found = row(name, peer, both, limit[name], BATCH_SIZE)
        rows.append(found | {"interval": interval(ratios)})
    about = (
        f"histories of {LENGTH} events, {CANDIDATES} candidates of {ITEMS - 1:,} items, at random"
    )
    sizes = {"dim": DIM, "heads": HEADS, "layers": LAYERS, "batch_size": BATCH_SIZE}
    return {
        **sizes,
        "log": about,
        "threads": THREADS,
        "pairs": pairs,
        "rows": rows,
        "requests": alone(request_rows, numbers, pairs),
        "tables": alone(table_rows, fields, pairs),
    }


def interval(values: Sequence[float]) -> list[float]:
    """95 % interval of a median from order statistics; NaN for fewer than six values."""
    from scipy.stats import quantile_test

    return [float(x) for x in quantile_test(values, p=0.5).confidence_interval(0.95)]


# training steps --------------------------------------------------------------------------------


class TorchLayer(nn.TransformerEncoderLayer):
    """torch's causal encoder layer with the call of `hstu.HSTULayer`; histories must be full."""

    def __init__(self, dim: int, heads: int, feed: int, length: int):
        super().__init__(dim, heads, feed, 0.0, "gelu", batch_first=True, norm_first=True)
        causal = nn.Transformer.generate_square_subsequent_mask(length)
        self.register_buffer("causal", causal, persistent=False)

    def forward(self, x: Float[Tensor, "B T D"], mask, positions, times=None):
        return super().forward(x, self.causal, is_causal=True), None


class TorchRanker(nn.Module):
    """torch's encoder over SORT's tokens under SORT's mask, with SORT's head; without positions."""

    def __init__(self, feed: int):
        super().__init__()
        like = SORT(ITEMS, LENGTH, DIM, special=False)
        self.encoder = Encoder(like, LAYERS, DIM, -(-2 * feed // 3), HEADS)
        self.tokens, self.head = like.tokens, MatchHead(DIM, DIM)

    def forward(self, batch: Requests) -> Float[Tensor, "B N"]:
        return self.head(self.encoder(batch), self.tokens.items(batch.candidates))


def build(name: str, beside: str, seed: int = 0) -> nn.Module:
    """A model by its name in `AGAINST`; a peer at the sizes of ours, ``beside``."""
    torch.manual_seed(seed)
    feed = FEED[beside]
    if name == "SORT":
        return SORT(ITEMS, LENGTH, DIM, heads=HEADS, layers=LAYERS, hidden=HIDDEN)
    if name == "RecBole SASRec":
        from . import recbole

        return recbole.sasrec(ITEMS, LENGTH, DIM, feed, LAYERS, HEADS)
    if name == "torch encoder" and beside == "SORT":
        return TorchRanker(feed)
    layers = (
        HSTULayer(DIM, HEADS, LENGTH) if name == "HSTU" else TorchLayer(DIM, HEADS, feed, LENGTH)
        for _ in range(LAYERS)
    )
    return NextItem(ITEMS, LENGTH, DIM, layers)


def table(model: nn.Module) -> Tensor:
    """A model's item vectors (V, D)."""
    if hasattr(model, "item_embedding"):  # RecBole's
        return model.item_embedding.weight
    return (model.items if isinstance(model, NextItem) else model.tokens.items).weight


def logits(model: nn.Module, batch: Requests) -> Float[Tensor, "B N"]:
    """Scores of a request's candidates: a model's own, or products with the last event's state."""
    if isinstance(model, SORT | TorchRanker):
        return model(batch)
    if isinstance(model, NextItem):
        state = model(Histories(batch.items, target=batch.items))[:, -1]  # no target is read
    else:
        state = model(batch.items, batch.present.sum(1))
    return (F.embedding(batch.candidates, table(model)) @ state[:, :, None]).squeeze(2)


def draw(rows: int, candidates: int, seed: int) -> Requests:
    """Random requests with full histories; the first candidate is the target."""
    generator = torch.Generator().manual_seed(seed)
    items, shown = (
        torch.randint(1, ITEMS, (rows, n), generator=generator) for n in (LENGTH, candidates)
    )
    labels = F.one_hot(torch.zeros(rows, dtype=torch.long), candidates).float()
    return Requests(items, torch.zeros_like(items), shown, labels, labels, torch.arange(rows))


def steps(model: nn.Module, batches: Sequence[Requests]) -> list[Callable[[], None]]:
    """Training steps of one model, one a batch."""
    adam = torch.optim.Adam(model.parameters(), fused=True)
    model.train()

    def step(batch: Requests) -> None:
        adam.zero_grad()
        F.cross_entropy(logits(model, batch), batch.labels).backward()
        adam.step()

    return [partial(step, batch) for batch in batches]


def train(name: str, beside: str, seed: int) -> dict[str, float | None]:
    """Processor seconds of ``STEPS`` steps from new weights, and rows trained on in them."""
    use_threads(THREADS)
    clock = Clock()
    batches = [draw(BATCH_SIZE, CANDIDATES, seed + k) for k in range(WARM + STEPS)]
    for step in steps(build(name, beside, seed), batches):
        step()
        clock.tick(BATCH_SIZE)
    return clock.run() | {"auc": None}


def least(name: str) -> dict:
    """The least time of our training step: see `paperlab.bench.limits`.

    It has Adam on the rows that a batch reads; the step moves all rows of the table. Scores that the
    mask hides count in full.
    """
    use_threads(THREADS)
    model = build(name, name)
    batches = [draw(BATCH_SIZE, CANDIDATES, k) for k in range(limits.BATCHES)]
    todo = steps(model, batches)
    costly = limits.operators(todo)
    ids = [torch.cat([b.items.flatten(), b.candidates.flatten()]) for b in batches]
    watched = limits.watch(todo)._replace(lookups={table(model).detach(): ids})
    dense = [p for p in model.parameters() if p is not table(model)]
    found = limits.least(watched, dense, torch.float32)
    return {"dtype": "float32", **found, "operators": costly}


# equal outputs in two ways ---------------------------------------------------------------------


def in_turn(ours: Callable[[], object], theirs: Callable[[], object], pairs: int) -> dict:
    """Median milliseconds of two calls that alternate, and the ratio; the first pair warms up."""
    took = {"ours": [], "theirs": []}
    for _ in range(pairs + 1):
        for side, call in (("ours", ours), ("theirs", theirs)):
            start = time.process_time()
            call()
            took[side].append(1000 * (time.process_time() - start))
    a, b = (values[1:] for values in took.values())
    ratios = [y / x for x, y in zip(a, b, strict=True)]
    return {
        "ours_ms": statistics.median(a),
        "peer_ms": statistics.median(b),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "interval": interval(ratios),
    }


def request_rows(numbers: Sequence[int], pairs: int) -> list[dict]:
    """A training step of SORT on requests of N candidates, beside N sequences of one candidate.

    tokens: ratio of the tokens, `sort.token_ratio`. Raises AssertionError where logits differ.
    """
    use_threads(THREADS)
    found = []
    for n in numbers:
        model, joint = build("SORT", "SORT"), draw(REQUESTS, n, n)
        ways = joint, one_at_a_time(joint)
        same(*(model(way).flatten() for way in ways))

        def step(batch: Requests, model=model) -> None:
            model.zero_grad()
            model.training_step(batch, 0).backward()

        spent = in_turn(*(partial(step, way) for way in ways), pairs)
        tokens = token_ratio(LENGTH, n)
        found.append({"candidates": n, "requests": REQUESTS, "tokens": tokens} | spent)
    return found


def table_rows(fields: Sequence[int], pairs: int) -> list[dict]:
    """A training step of merged tables beside separate ones: `recis_studies.stepper`.

    Raises AssertionError where their vectors differ, before or after a step.
    """
    use_threads(THREADS)
    found = []
    for n in fields:
        same(*(vectors(n, merged) for merged in (True, False)))
        both = (recis_studies.stepper(n, merged) for merged in (True, False))
        found.append({"fields": n} | in_turn(*both, pairs))
    return found


def vectors(fields: int, merged: bool) -> Float[Tensor, "2 n d"]:
    """What tables give for the same random ids, before and after a training step."""
    settings = {f"f{k}": Setting(8, std=0.1) for k in range(fields)}
    tables, generator = Tables(settings, merged), torch.Generator().manual_seed(0)
    adam = TableAdam(tables, lr=0.01)
    ids = {name: torch.randint(0, 1000, (16,), generator=generator) for name in settings}
    before = torch.cat([*tables(ids).values()])
    before.square().sum().backward()
    adam.step()
    return torch.stack([before, torch.cat([*tables(ids).values()])]).detach()


def same(ours: Tensor, theirs: Tensor) -> None:
    """Refuse outputs of two ways that differ by more than rounding, and outputs of zeros."""
    assert ours.std() > 0, "outputs do not vary: nothing is compared"
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
