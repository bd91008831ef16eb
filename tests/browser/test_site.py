"""The static site in headless Chromium, from its folder, with every other request refused."""

import json
import os
from pathlib import Path

import pytest
from paperlab import book, plots, records

ROOT = records.project_root(Path(__file__))
ARTEFACTS = ROOT / "test-artefacts"
SHOWN = ["000_start_here", "101_ssr", "601_otpo", "900_ledger"]

if plots.browser() is None:
    assert not os.environ.get("CI"), "CI must have a Chromium: see .ci/run"
    pytest.skip("no Chrome or Chromium on this machine", allow_module_level=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("book")
    book.build(ROOT, folder / "site")
    return folder / "site"


@pytest.fixture
def opened(site, chromium):
    """Opens a page of the site at a width; what it asks of others and its errors must stay empty."""
    asked, errors = [], []

    def refuse(route):
        if route.request.url.startswith(("file://", "data:", "blob:")):
            route.continue_()
        else:
            asked.append(route.request.url)
            route.abort()

    def open_(name: str, width: int = 1400, **context):
        page = chromium.new_context(viewport={"width": width, "height": 1000}, **context).new_page()
        page.route("**", refuse)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: line.type == "error" and errors.append(line.text))
        page.goto(f"file://{site}/{name}")
        return page

    yield open_
    assert asked == []
    assert errors == []
    for context in chromium.contexts:
        context.close()


@pytest.mark.parametrize("name", SHOWN)
def test_a_page_draws_its_figures_and_formulas(opened, name):
    page = opened(f"{name}.html")
    cells = json.loads((ROOT / f"notebooks/{name}.ipynb").read_text())
    figures = plots.figures_of(cells)
    for place in page.locator(".drawn").all():
        place.scroll_into_view_if_needed()
        place.locator(".main-svg").first.wait_for(timeout=60_000)
    assert page.locator(".drawn .js-plotly-plot").count() == len(figures)
    assert page.locator(".drawn img").count() == 0
    page.wait_for_function(
        "document.querySelectorAll('.math').length"
        " == document.querySelectorAll('.math mjx-container svg').length",
        timeout=60_000,
    )
    assert (page.locator(".math").count() >= 10) == (name != "000_start_here")
    assert page.locator("[data-mml-node=merror]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 1400
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=ARTEFACTS / f"book_{name}.png")


def test_without_scripts_and_on_a_phone_figures_are_pictures(opened):
    for page in (
        opened("101_ssr.html", java_script_enabled=False),
        opened("101_ssr.html", width=420),
    ):
        picture = page.locator(".drawn img").first
        picture.scroll_into_view_if_needed()
        box = picture.bounding_box()
        assert box["width"] > 300 and box["height"] > 150
        assert page.locator(".js-plotly-plot").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 420
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 700


def test_search_finds_pages_from_a_folder(opened):
    page = opened("index.html")
    page.locator("input[name=q]").first.fill("kurtosis")
    page.keyboard.press("Enter")
    found = page.locator("#search-results li a")
    found.first.wait_for(timeout=60_000)
    assert any("101_ssr.html" in a.get_attribute("href") for a in found.all())
