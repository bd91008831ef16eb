"""Preference tuning's own costs: an OTPO step beside a DPO step, our transport beside POT's.

Both sides of a comparison run in turn in one process on one thread; reported are medians of
processor time over rounds. The language model is `TinyLM` at its default size on random bytes; its reference is
computed beforehand, so that a step is one forward pass, the weights, the loss, the backward pass
and the optimiser.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

from ..align import otpo
from ..align.tuning import PreferenceTuning
from ..lm.preferences import BYTES, Pair, Preferences
from ..lm.tiny_lm import TinyLM
from ..machine import use_threads
from . import limits

PAIRS, PROMPT, TOKENS, DIM, THREADS = 8, 64, 256, 128, 1
EPSILONS = (1.0, 0.1)  # the authors' two settings


def measure(rounds: int = 9) -> dict:
    """Milliseconds of both steps and of both solvers, with the ratio; tokens a second. rounds >= 1.

    Raises ModuleNotFoundError without POT.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    use_threads(THREADS)
    about = {"pairs": PAIRS, "tokens": TOKENS, "dim": DIM, "threads": THREADS, "rounds": rounds}
    return {**about, "rows": [_steps(rounds), *(_transport(e, rounds) for e in EPSILONS)]}


def _steps(rounds: int) -> dict:
    draw = np.random.default_rng(0)

    def word(size: int) -> tuple[int, ...]:
        return tuple(draw.integers(BYTES, size=size).tolist())

    rows = tuple(Pair(word(PROMPT), word(TOKENS), word(TOKENS)) for _ in range(PAIRS))
    pairs = Preferences("random bytes", rows, BYTES)
    steps, modules = {}, {}
    for weighting in ("dpo", "otpo"):
        torch.manual_seed(0)
        module = modules[weighting] = PreferenceTuning(TinyLM(pairs.vocabulary, DIM), weighting)
        batch = module.refer(pairs).take(range(PAIRS))
        optimizer = torch.optim.AdamW(module.policy.parameters(), 1e-4)

        def step(module=module, batch=batch, optimizer=optimizer) -> None:
            module.compare(batch)[0].mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        steps[weighting] = step
    took = _in_turn(steps, rounds)
    weights = list(modules["otpo"].policy.parameters())
    limit = limits.least(limits.watch([steps["otpo"]]), weights, torch.float32)
    return {
        "name": "OTPO step",
        "peer": "DPO step",
        "ours_ms": took["otpo"],
        "peer_ms": took["dpo"],
        "ratio": took["dpo"] / took["otpo"],
        "tokens_per_second": 1000 * 2 * PAIRS * (PROMPT + TOKENS) / took["otpo"],
        "parameters": sum(w.numel() for w in weights),
        "share": limit["least_ms"] / took["otpo"],
        "limit": limit,
    }


def _transport(reg: float, rounds: int) -> dict:
    import ot

    draw = torch.Generator().manual_seed(0)
    states = torch.randn(2, PAIRS, TOKENS, DIM, generator=draw)
    everything = torch.ones(PAIRS, TOKENS, dtype=torch.bool)
    cost = otpo.transport_cost(*states, everything, everything)
    mass, costs, one = everything.float(), cost.double().numpy(), np.ones(TOKENS)

    def loop() -> None:
        for pair in costs:
            ot.unbalanced.sinkhorn_unbalanced(
                one, one, pair, reg, 0.2, method="sinkhorn_stabilized", reg_type="entropy"
            )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that its entropy ignores a reference plan
        took = _in_turn(
            {"ours": lambda: otpo.unbalanced_sinkhorn(cost, mass, mass, reg, 0.2), "pot": loop},
            rounds,
        )
    name, ratio = f"transport, ε₁ = {reg:g}", took["pot"] / took["ours"]
    return {
        "name": name,
        "peer": "POT's loop",
        "ours_ms": took["ours"],
        "peer_ms": took["pot"],
        "ratio": ratio,
    }


def _in_turn(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each call; the first round warms up and does not count."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            took[name].append(1000 * (time.process_time() - start))
    return {name: statistics.median(values[1:]) for name, values in took.items()}
