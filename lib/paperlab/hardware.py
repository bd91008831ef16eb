"""Settings that depend on the machine: precision, where a log lies, how memory is reused."""

from __future__ import annotations

import ctypes
import sys

import lightning as L
import torch


def best_precision(accelerator: str = "auto") -> str:
    """``bf16-mixed`` where the device multiplies faster in bf16, else ``32-true``."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported()
    else:
        known = getattr(torch.cpu, "get_capabilities", dict)()
        # Of the processors with AVX-512's bf16 but no AMX, Intel's take twice as long as in float32.
        vector = known.get("avx512_bf16", False) and "Intel" not in known.get("cpu_name", "")
        fast = known.get("amx_bf16", False) or vector
    return "bf16-mixed" if fast else "32-true"


def resident(part: object, runner: L.Trainer) -> object:
    """The part itself, moved to the GPU if there is one and the part fits in half its free memory."""
    device = runner.strategy.root_device
    if device.type != "cuda" or runner.world_size > 1 or not hasattr(part, "nbytes"):
        return part
    free, _ = torch.cuda.mem_get_info(device)
    return part.to(device) if 2 * part.nbytes <= free else part


def keep_freed_memory() -> None:
    """Let glibc keep the buffers of one step for the next.

    By default glibc returns blocks above a few MB to the system, and mapping and zeroing them again
    takes a third of a step's time. Does nothing on other systems.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mmap_threshold, trim_threshold = -3, -1
        mallopt(mmap_threshold, 32 << 20)  # the most that it takes
        mallopt(trim_threshold, 2**31 - 1)
