"""The environment of a run: processor, memory, commit, versions."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path


def describe() -> str:
    """Processor and number of cores; no host name."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{model}, {os.cpu_count()} cores"


def use_threads(count: int) -> int:
    """Set torch's threads to ``count``, or to OpenMP's limit if that is lower; returns the number.

    oneDNN divides a bf16 product among torch's threads. If OMP_THREAD_LIMIT allows fewer, the rest
    of the product is never computed: it holds arbitrary memory.
    """
    import torch

    limit = os.environ.get("OMP_THREAD_LIMIT", "")
    count = min(count, int(limit)) if limit.isdigit() and int(limit) else count
    torch.set_num_threads(count)
    return count


def peak_memory_mb() -> float:
    """The most memory that this process has held so far, in MB.

    Linux's VmHWM where there is one: getrusage's number begins at what the parent process held.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = [x for x in status.read_text().splitlines() if x.startswith("VmHWM:")]
        if lines:
            return int(lines[0].split()[1]) / 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1024 if sys.platform == "linux" else 1024**2)


def code_version(root: Path) -> dict:
    """Commit, and whether library or notebooks differ from it (outputs of notebooks included)."""

    def git(*words: str) -> str:
        try:
            done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
        except FileNotFoundError:  # no git on this machine: the code counts as not committed
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    dirty = not commit or bool(git("status", "--porcelain", "lib", "notebooks"))
    return {"commit": commit, "dirty": dirty}


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide or draw a run's numbers."""
    from importlib.metadata import version

    names = ("paperlab", "torch", "lightning", "polars", "plotly", "papermill")
    return {"python": platform.python_version()} | {n: version(n).split("+")[0] for n in names}
