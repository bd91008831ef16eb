"""One headless Chromium for all tests of this folder; they skip, or fail in CI, where there is none."""

from pathlib import Path

import pytest
from paperlab import plots, records

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    (records.project_root(Path(__file__)) / "test-artefacts").mkdir(exist_ok=True)
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=plots.browser(), args=FLAGS)
        yield found
        found.close()
