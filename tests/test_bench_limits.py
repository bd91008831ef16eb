"""The least time of a step: what is counted, and what it is compared with."""

import time
from functools import partial

import torch
from paperlab.bench import limits, training
from paperlab.bench.criteo_shaped import criteo_shaped
from paperlab.bench.limits import Product
from torch.nn import functional as F


def test_products_of_a_layer_forward_and_backward():
    """y = x W': one product forward; two backward, for x and for W."""
    x, layer = torch.randn(8, 5, requires_grad=True), torch.nn.Linear(5, 3)
    found = limits.watch([lambda: layer(x).sum().backward()] * 2)
    assert found.steps == 2
    wanted = {Product(1, 8, 5, 3): 2, Product(1, 8, 3, 5): 2, Product(1, 3, 8, 5): 2}
    assert found.products == wanted
    x, y = torch.randn(4, 6, 2), torch.randn(4, 2, 7)
    assert limits.watch([lambda: x @ y]).products == {Product(4, 6, 2, 7): 1}


def test_a_causal_attention_counts_half():
    """Q K' and its weights times V forward; five products backward."""
    q, k, v = (torch.randn(2, 3, 16, 8, requires_grad=True) for _ in range(3))

    def step(causal):
        F.scaled_dot_product_attention(q, k, v, is_causal=causal).sum().backward()

    flops = {}
    for causal in (False, True):
        products = limits.watch([partial(step, causal)]).products
        flops[causal] = sum(n * 2 * p.batch * p.m * p.k * p.n for p, n in products.items())
    assert flops[False] == 7 * 2 * 6 * 16 * 16 * 8
    assert flops[True] == flops[False] / 2


def test_the_fastest_repetition_counts(monkeypatch):
    now = iter([0.0, 0.09, 1.0, 1.04, 2.0, 2.001])  # the budget is spent after two repetitions
    monkeypatch.setattr(limits.time, "process_time", lambda: next(now))
    assert round(limits.fastest(lambda: None), 6) == 0.04


def test_lookups_of_a_model_are_all_its_ids():
    """Every batch looks up one id a field; a model without layers has no products."""
    log = criteo_shaped(rows=2000, ids=10_000)
    found = limits.of_model(training.build("LR", log.schema, 0), log.train, 256)
    assert found["gflop"] == 0 and found["gflops_bf16"] is None and found["matrix_ms"] == 0
    assert found["mrows_gathered"] > 0 and found["mrows_scattered"] > 0
    kinds = ("matrix", "gather", "scatter", "update")
    assert abs(sum(found[f"{k}_ms"] for k in kinds) - found["least_ms"]) < 1e-9
    shares = [o["share"] for o in found["operators"]]
    assert shares == sorted(shares, reverse=True) and sum(shares) <= 1 + 1e-9


def test_the_least_time_is_less_than_the_steps():
    """Of a step that is one large product, about all of it."""
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    watched = limits.watch([lambda: a @ b])
    least = limits.least(watched, [], torch.float32)
    took = min(_seconds(lambda: [a @ b for _ in range(4)]) for _ in range(5))
    assert 0 < least["least_ms"] < 3 * 1000 * took / 4  # three: for noise, not for the claim
    assert abs(least["gflop"] - 2 * 512**3 / 1e9) < 1e-9


def _seconds(call) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start
