"""What all tests share: no network but loopback, one thread, nothing of the user's data or runs."""

import os
import runpy
import sys
from pathlib import Path

import pytest
from helpers.seconds import Seconds

OFFLINE = str(Path(__file__).parent / "offline")
path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
if OFFLINE not in path:  # or it is done: a worker has its starter's environment
    os.environ["PYTHONPATH"] = os.pathsep.join([OFFLINE, *filter(None, path)])  # of all children
    runpy.run_path(f"{OFFLINE}/sitecustomize.py")
# Workers, kernels and commands that tests start inherit these: one thread each. Not OMP_THREAD_LIMIT:
# where torch then asks for two threads, its bf16 products are wrong without a word.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
os.environ["PAPERLAB_EXPLORE"] = "ends"


def pytest_configure(config):
    config.pluginmanager.register(Seconds(), "seconds")  # of notebooks too, which lie elsewhere


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """One thread before a test's fixtures, of whatever scope: a run started in the process leaves its own."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PAPERLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("PAPERLAB_LOCAL", str(tmp_path_factory.mktemp("local")))


@pytest.fixture(autouse=True)
def _seeded():
    """A test that draws without a seed of its own draws the same numbers every time."""
    if "torch" in sys.modules:  # the test's file or the library has loaded it
        sys.modules["torch"].manual_seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
