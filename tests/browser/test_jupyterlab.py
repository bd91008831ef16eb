"""The real JupyterLab in headless Chromium: the start page and each paper, run from top to bottom."""

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from paperlab import plots, records

ROOT = records.project_root(Path(__file__))
BOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
ARTEFACTS = ROOT / "test-artefacts"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

if plots.browser() is None:
    assert not os.environ.get("CI"), "CI must have a Chromium: see .ci/run"
    pytest.skip("no Chrome or Chromium on this machine", allow_module_level=True)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on loopback over copies of the notebooks' folder, so that nothing is changed."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    for book in BOOKS:
        (folder / "notebooks" / book.name).write_text(book.read_text())
    (folder / "notebooks/profiles.yaml").write_text((ROOT / "notebooks/profiles.yaml").read_text())
    (folder / "pyproject.toml").touch()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    command += [f"--port={port}", "--ip=127.0.0.1", f"--IdentityProvider.token={token}"]
    environment = os.environ | {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    environment["JUPYTERLAB_WORKSPACES_DIR"] = str(folder / "workspaces")
    server = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{address}/api?token={token}", timeout=1)
            break
        except OSError:
            time.sleep(0.25)
    yield lambda path: f"{address}/lab/tree/{path}?token={token}&reset"
    server.terminate()
    server.wait(20)


@pytest.fixture(scope="module")
def page():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=plots.browser(), args=FLAGS)
        yield chromium.new_page(viewport={"width": 1400, "height": 1000})
        chromium.close()


def run_all(page) -> None:
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").click()
    page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()


def test_the_start_page_runs_in_jupyterlab(lab, page):
    page.goto(lab("notebooks/000_start_here.ipynb"))
    page.wait_for_selector(".jp-NotebookPanel", timeout=120_000)
    page.wait_for_selector("h1", timeout=60_000)
    run_all(page)
    page.wait_for_timeout(2000)
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=120_000)
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTEFACTS / "000_start_here.png")
    assert (
        page.locator(
            ".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr'], .jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']"
        ).count()
        == 0
    )
    assert page.locator("table").count() >= 2


@pytest.mark.parametrize(
    "book", [b for b in BOOKS if not b.stem.startswith("0")], ids=lambda p: p.stem
)
def test_a_papers_committed_figures_show_without_running(lab, page, book):
    page.goto(lab(f"notebooks/{book.name}"))
    page.wait_for_selector(".jp-NotebookPanel", timeout=120_000)
    page.wait_for_selector("h1", timeout=60_000)
    figure = page.locator(".js-plotly-plot, .jp-RenderedPlotly, .jp-RenderedImage img")
    for _ in range(80):  # cells out of sight are not rendered: scroll to the first figure
        if figure.count():
            break
        page.locator(".jp-NotebookPanel .jp-WindowedPanel-outer").first.evaluate(
            "panel => panel.scrollBy(0, 500)"
        )
        page.wait_for_timeout(250)
    assert figure.count(), "no figure in the whole notebook"
    figure.first.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"{book.stem}.png")
