"""Where our training loop spends its time, by operator."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from .. import loop
from ..data.store import Log
from ..machine import use_threads
from .criteo_shaped import criteo_shaped
from .training import BATCH_SIZE, IDS, MODELS, ROWS, THREADS, build


def model_name(text: str) -> str:
    """A model of the bench by its name in any case; ValueError lists them."""
    for name in MODELS:
        if name.lower() == text.lower():
            return name
    raise ValueError(f"bench has no model {text!r}; it has {', '.join(MODELS)}")


def print_profile(name: str, log: Log | None = None, top: int = 12) -> None:
    """Train one epoch under torch's profiler and print the operators with most CPU time.

    log: None for the log of the bench.
    """
    name = model_name(name)
    log = log or criteo_shaped(rows=ROWS, ids=IDS, seed=0)
    use_threads(THREADS)
    few = log.valid.rows(slice(1000))
    log = replace(log, valid=few, test=few)  # scoring is not what is asked about
    model = build(name, log.schema, 0)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        done = loop.fit(model, log, batch_size=BATCH_SIZE)
    operators = sorted(profiler.key_averages(), key=lambda o: -o.self_cpu_time_total)
    total = sum(o.self_cpu_time_total for o in operators)
    table = Table(title=f"{name}: {done.steps} steps, {done.seconds:.1f} s under the profiler")
    table.add_column("operator")
    table.add_column("calls", justify="right")
    table.add_column("self CPU %", justify="right")
    for o in operators[:top]:
        table.add_row(o.key, f"{o.count:,}", f"{100 * o.self_cpu_time_total / total:.1f}")
    Console().print(table)
