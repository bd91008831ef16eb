"""Seconds until the first line of one's own can run: imports and a notebook's kernel."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

# Ours, the floors under it (torch, lightning), and the peer.
PEER = "fuxictr.pytorch.models"
IMPORTS = ("torch", "lightning", "paperlab", "paperlab.ctr.ssr", "paperlab.loop", PEER)
CELLS = ("from paperlab import data, loop; from paperlab.ctr.ssr import SSR", f"import {PEER}")


def measure(times: int = 5) -> dict:
    """Median seconds to import each module in a fresh interpreter, and to a ready notebook."""
    imports = {m: [] for m in IMPORTS}
    kernels = {c: [] for c in CELLS}
    for _ in range(times):  # in turn, so that a busy moment does not fall on one of them alone
        for module, seconds in imports.items():
            seconds.append(import_seconds(module))
        for cell, seconds in kernels.items():
            seconds.append(kernel_seconds(cell))
    rows = [
        {"name": name, "seconds": statistics.median(seconds), "range": [min(seconds), max(seconds)]}
        for name, seconds in (
            *((f"import {m}", s) for m, s in imports.items()),
            *((f"start a kernel, {c}", s) for c, s in kernels.items()),
        )
    ]
    return {"times": times, "rows": rows}


def markdown(found: dict) -> str:
    """A line a start."""
    lines = ["| start | seconds |", "|---|---:|"]
    lines += [f"| `{r['name']}` | {r['seconds']:.2f} |" for r in found["rows"]]
    return "\n".join([*lines, "", f"Medians of {found['times']} fresh interpreters."])


def import_seconds(module: str) -> float:
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def kernel_seconds(cell: str) -> float:
    """From asking for a kernel to the end of its first cell."""
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3")
    start = time.perf_counter()
    manager.start_kernel(stderr=subprocess.DEVNULL)  # its notices of start-up
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        reply = client.execute_interactive(cell, timeout=120)
        seconds = time.perf_counter() - start
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok":
        raise RuntimeError(f"{cell!r} failed in a kernel: {reply['content']['evalue']}")
    return seconds
