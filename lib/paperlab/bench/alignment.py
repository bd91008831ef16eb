"""Preference tuning's own costs: an OTPO step next to a DPO step, our transport next to POT's.

Both sides of a comparison run in turn in one process, and what is reported is the median over
rounds. The language model is `TinyLM` at its default size on random bytes; its reference is
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

PAIRS, PROMPT, TOKENS, DIM, THREADS = 8, 64, 256, 128, 2
EPSILONS = (1.0, 0.1)  # the authors' two settings


def measure(rounds: int = 9) -> dict:
    """Milliseconds of both steps and of both solvers, and tokens a second. rounds >= 1.

    Raises ModuleNotFoundError without POT.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    use_threads(THREADS)
    return {
        "pairs": PAIRS,
        "tokens": TOKENS,
        "threads": THREADS,
        "rounds": rounds,
        "step": _steps(rounds),
        "transport": [_transport(epsilon, rounds) for epsilon in EPSILONS],
    }


def markdown(found: dict) -> str:
    """The README's table of a `measure`."""
    step = found["step"]
    lines = [
        "| alignment | ours | beside it | ratio |",
        "|---|---:|---:|---:|",
        f"| OTPO step, DPO step ({step['parameters'] / 1e6:.1f} M weights), ms | {step['otpo']:.0f} | "
        f"{step['dpo']:.0f} | {step['otpo'] / step['dpo']:.2f} |",
        f"| tokens trained on a second, OTPO and DPO | {step['tokens_per_second']['otpo']:,.0f} | "
        f"{step['tokens_per_second']['dpo']:,.0f} | |",
    ]
    for row in found["transport"]:
        lines.append(
            f"| transport of {found['pairs']} pairs of {found['tokens']} tokens, ε₁ = {row['reg']:g}: "
            f"ours, POT's loop, ms | {row['ours']:.1f} | {row['pot']:.1f} | "
            f"{row['ours'] / row['pot']:.2f} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"{found['threads']} threads, medians of {found['rounds']} alternating rounds; a batch is "
            f"{found['pairs']} pairs of {found['tokens']} tokens a response.",
        ]
    )


def _steps(rounds: int) -> dict:
    draw = np.random.default_rng(0)

    def word(size: int) -> tuple[int, ...]:
        return tuple(draw.integers(BYTES, size=size).tolist())

    rows = tuple(Pair(word(PROMPT), word(TOKENS), word(TOKENS)) for _ in range(PAIRS))
    pairs = Preferences("random bytes", rows, BYTES)
    steps = {}
    for weighting in ("dpo", "otpo"):
        torch.manual_seed(0)
        module = PreferenceTuning(TinyLM(pairs.vocabulary, DIM), weighting)
        batch = module.refer(pairs).take(range(PAIRS))
        optimizer = torch.optim.AdamW(module.policy.parameters(), 1e-4)

        def step(module=module, batch=batch, optimizer=optimizer) -> None:
            module.compare(batch)[0].mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        steps[weighting] = step
    took = _in_turn(steps, rounds)
    tokens = 2 * PAIRS * (PROMPT + TOKENS)
    return {
        **took,
        "parameters": sum(p.numel() for p in module.policy.parameters()),
        "tokens_per_second": {k: 1000 * tokens / v for k, v in took.items()},
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
    return {"reg": reg, **took}


def _in_turn(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each call; the first round warms up and does not count."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            took[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values[1:]) for name, values in took.items()}
