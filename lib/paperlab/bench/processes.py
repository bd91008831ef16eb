"""Calls in processes of their own: neither side of a comparison warms a cache for the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context


@contextmanager
def lasting() -> Iterator[Callable]:
    """One process for many calls: ``call(function, *args)`` returns what the function does.

    Libraries are imported once. Between calls the process waits and takes no processor time.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield lambda call, *args: pool.submit(call, *args).result()


def alone(call: Callable, *args):
    """What a call returns from a fresh process."""
    with lasting() as process:
        return process(call, *args)
