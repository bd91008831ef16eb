"""The least time of a training step: its operators alone, at the rates that this processor reaches.

A few steps are watched. Then each operator that no implementation can do without is timed by itself,
with operands of the same sizes, and the fastest of several repetitions counts. Products find their
operands in the cache; row operators take the ids of several batches in turn, as training does.

    matrix   every matrix product (batch, m, k, n) of the forward and backward pass
    gather   rows read from embedding tables, one for each id of the batch
    scatter  gradients of rows, summed over equal ids
    update   Adam: dense weights; distinct rows with both moments, read and written

The share of the limit is the sum over the time of the real step. What the sum leaves out counts as
loss: element-wise passes, sorting ids, making batches, Python.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import cycle, islice
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ..nn.embedding import FeatureEmbedding
from ..nn.optim import RowAdam

BATCHES = 4  # whose steps are watched
REPEATS, BUDGET = 5, 0.1  # repetitions of an operator, and seconds after which no more follow


class Product(NamedTuple):
    """A batched matrix product (batch, m, k) x (batch, k, n)."""

    batch: int
    m: int
    k: int
    n: int


class Watched(NamedTuple):
    """What steps did: calls of each product (a causal attention's count half), ids by table."""

    steps: int
    products: Counter[Product]
    lookups: dict[Tensor, list[Tensor]]


class _Products(TorchDispatchMode):
    """Count matrix products as torch dispatches them, backward passes included."""

    def __init__(self):
        super().__init__()
        self.found: Counter[Product] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        if name in ("mm", "addmm", "bmm", "baddbmm"):
            a, b = args[-2:]
            self.found[Product(*([1] if a.ndim == 2 else []), *a.shape, b.shape[-1])] += 1
        elif name.startswith("_scaled_dot_product_flash_attention_for_cpu"):
            backward = name.endswith("backward")
            (b, h, t, d), s = args[backward].shape, args[1 + backward].shape[2]
            causal = args[7] if backward else (kwargs or {}).get("is_causal", (*args, 0, 0)[4])
            once = 0.5 if causal else 1
            self.found[Product(b * h, t, d, s)] += once * (3 if backward else 1)
            self.found[Product(b * h, t, s, d)] += once * (2 if backward else 1)
        return func(*args, **(kwargs or {}))


def watch(
    steps: Iterable[Callable[[], object]], embeds: Iterable[FeatureEmbedding] = ()
) -> Watched:
    """Run steps and note their products and lookups.

    embeds: embeddings whose lookups count, as `RowAdam` has set them up.
    """
    lookups: dict[Tensor, list[Tensor]] = {}
    for embed in embeds:
        inner = embed.lookup

        def lookup(table, ids, inner=inner):
            lookups.setdefault(table, []).append(ids.flatten())
            return inner(table, ids)

        embed.lookup = lookup
    count = 0
    with _Products() as products:
        for step in steps:
            step()
            count += 1
    return Watched(count, products.found, lookups)


def fastest(*calls: Callable[[], object]) -> float:
    """Seconds of the fastest call at its fastest repetition; each is called once before."""
    best = float("inf")
    for call in calls:
        call()
        spent = 0.0
        for _ in range(REPEATS):
            start = time.process_time()
            call()
            took = time.process_time() - start
            best, spent = min(best, took), spent + took
            if spent > BUDGET:
                break
    return best


def matrix_seconds(product: Product, dtype: torch.dtype) -> float:
    """Seconds of a matrix product in the better of two layouts."""
    batch, m, k, n = product
    a = torch.randn(batch, m, k).to(dtype)
    b, flipped = torch.randn(batch, k, n).to(dtype), torch.randn(batch, n, k).to(dtype).mT
    if batch == 1:
        a, b, flipped = a[0], b[0], flipped[0]
    out = a @ b
    return fastest(lambda: torch.matmul(a, b, out=out), lambda: torch.matmul(a, flipped, out=out))


def row_seconds(table: Tensor, lookups: list[Tensor]) -> dict[str, float]:
    """Seconds to gather the rows of a lookup, to sum their gradients, and of Adam on them.

    lookups: ids of several batches, each (n,), which take turns.
    """
    plans = []
    for ids in lookups:
        distinct, place = ids.long().unique(return_inverse=True)
        order = place.argsort()
        starts = torch.searchsorted(place[order], torch.arange(len(distinct)))
        plans.append((ids, distinct, place, order, starts))
    gradient = torch.randn(max(map(len, lookups)), table.shape[1])
    stores = [torch.zeros_like(table) for _ in range(3)]  # weights and Adam's two moments

    def turns(work: Callable) -> Callable[[], object]:
        batches = cycle(plans)
        return lambda: work(*next(batches))

    def bag(ids, distinct, place, order, starts):
        F.embedding_bag(order, gradient[: len(ids)], starts, mode="sum")

    def add(ids, distinct, place, order, starts):
        gradient.new_zeros(len(distinct), table.shape[1]).index_add_(0, place, gradient[: len(ids)])

    def read(ids, distinct, *_):
        for store in stores:
            store.index_select(0, distinct)

    def write(ids, distinct, *_):
        for store in stores:
            store.index_copy_(0, distinct, gradient[: len(distinct)])

    return {
        "gather": fastest(turns(lambda ids, *_: F.embedding(ids, table))),
        "scatter": fastest(turns(bag), turns(add)),
        "update": fastest(turns(read)) + fastest(turns(write)),
    }


def dense_seconds(weights: Iterable[Tensor]) -> float:
    """Seconds of torch's fused Adam on weights of these sizes."""
    copies = [nn.Parameter(w.detach().clone()) for w in weights]
    if not copies:
        return 0.0
    for c in copies:
        c.grad = torch.zeros_like(c)
    adam = torch.optim.Adam(copies, fused=True)
    return fastest(adam.step)


@torch.no_grad()
def least(watched: Watched, dense: Iterable[Tensor], dtype: torch.dtype) -> dict:
    """Milliseconds by kind of work, and the rates behind them.

    dtype: of the products. rates: Gflop/s of the products in float32 and in bfloat16, and million
    rows a second gathered and scattered; None without such work.
    """
    products = {p: times / watched.steps for p, times in watched.products.items()}
    flops = sum(2 * p.batch * p.m * p.k * p.n * times for p, times in products.items())
    matrix = {
        d: sum(times * matrix_seconds(p, d) for p, times in products.items())
        for d in (torch.float32, torch.bfloat16)
    }
    work = {"matrix": matrix[dtype], "gather": 0.0, "scatter": 0.0, "update": dense_seconds(dense)}
    rows = 0
    for table, lookups in watched.lookups.items():
        for kind, seconds in row_seconds(table, lookups).items():
            work[kind] += seconds
        rows += sum(map(len, lookups)) / len(lookups)
    return {
        **{f"{kind}_ms": 1000 * seconds for kind, seconds in work.items()},
        "least_ms": 1000 * sum(work.values()),
        "gflop": flops / 1e9,
        "gflops_fp32": flops / matrix[torch.float32] / 1e9 if flops else None,
        "gflops_bf16": flops / matrix[torch.bfloat16] / 1e9 if flops else None,
        "mrows_gathered": rows / work["gather"] / 1e6 if rows else None,
        "mrows_scattered": rows / work["scatter"] / 1e6 if rows else None,
    }


def of_model(model, split, batch_size: int) -> dict:
    """`least` of a click model's training step, in the precision that `paperlab.loop.fit` takes."""
    from ..hardware import best_precision

    half = best_precision("cpu") == "bf16-mixed"
    optimizer: RowAdam = model.configure_optimizers()
    embeds = [m for m in model.modules() if isinstance(m, FeatureEmbedding)]

    def step(batch) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model.training_step(batch, 0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    model.train()
    steps = [partial(step, b) for b in islice(model.batches(split, batch_size, 0), BATCHES)]
    costly = operators(steps)
    watched = watch(steps, embeds)
    dense = [p for g in optimizer.param_groups if not g["rows"] for p in g["params"]]
    dtype = torch.bfloat16 if half else torch.float32
    dtype_name = str(dtype).removeprefix("torch.")
    return {"dtype": dtype_name, **least(watched, dense, dtype), "operators": costly}


def operators(steps: list[Callable[[], object]], top: int = 8) -> list[dict]:
    """The operators in which steps spend most time themselves: name, calls a step, share."""
    from torch.profiler import ProfilerActivity, profile

    steps[0]()  # what only the first step does is no part of it
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for step in steps:
            step()
    found = sorted(profiler.key_averages(), key=lambda o: -o.self_cpu_time_total)
    total = sum(o.self_cpu_time_total for o in found)
    return [
        {
            "operator": o.key.removeprefix("aten::"),
            "calls": o.count / len(steps),
            "share": o.self_cpu_time_total / total,
        }
        for o in found[:top]
    ]
