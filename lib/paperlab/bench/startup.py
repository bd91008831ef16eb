"""Seconds until the first line of one's own can run: imports, and a notebook's kernel.

Processor seconds, so that others on the machine change little; a first start after a boot, which
reads files from the disk, takes longer.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

# Ours, the floors under it (torch, lightning), and the peer.
PEER = "fuxictr.pytorch.models"
IMPORTS = ("torch", "lightning", "paperlab", "paperlab.ctr.ssr", PEER)
CELLS = ("from paperlab import data, loop; from paperlab.ctr.ssr import SSR", f"import {PEER}")


def measure(times: int = 3) -> dict:
    """Median seconds to import each module in a fresh interpreter, and to a ready notebook."""
    starts = {f"import {m}": (import_seconds, m) for m in IMPORTS}
    starts |= {f"kernel: {c}": (kernel_seconds, c) for c in CELLS}
    found = {name: [] for name in starts}
    for _ in range(times):  # in turn, so that a busy moment does not fall on one of them alone
        for name, (call, argument) in starts.items():
            found[name].append(call(argument))
    rows = [
        {"name": name, "seconds": statistics.median(s), "range": [min(s), max(s)]}
        for name, s in found.items()
    ]
    return {"times": times, "rows": rows}


def import_seconds(module: str) -> float:
    code = f"import time; t = time.process_time(); import {module}; print(time.process_time() - t)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def kernel_seconds(cell: str) -> float:
    """From the start of a kernel to the end of its first cell, this process's part included."""
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3")
    start = sum(os.times()[:4])  # children's count when they have ended
    manager.start_kernel(stderr=subprocess.DEVNULL)  # its notices of start-up
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        reply = client.execute_interactive(cell, timeout=120)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok":
        raise RuntimeError(f"{cell!r} failed in a kernel: {reply['content']['evalue']}")
    return sum(os.times()[:4]) - start
