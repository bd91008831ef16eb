"""What all tests share: no network but loopback, nothing of the user's prepared data or runs."""

import os
import runpy
from pathlib import Path

import pytest

OFFLINE = str(Path(__file__).parent / "offline")
path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
if OFFLINE not in path:  # or it is done: see the Makefile
    os.environ["PYTHONPATH"] = os.pathsep.join([OFFLINE, *filter(None, path)])  # of all children
    runpy.run_path(f"{OFFLINE}/sitecustomize.py")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PAPERLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
