"""What all tests share: no test reads or writes the user's prepared data or runs."""

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PAPERLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
