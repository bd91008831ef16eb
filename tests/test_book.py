"""The static site: every notebook a page with what it printed and drew, nothing from elsewhere."""

import base64
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from helpers.manifests import write_manifest
from paperlab import book, manifest, plots, records, runs

ROOT = records.project_root(Path(__file__))
BOOKS = runs.notebooks(ROOT)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    target = tmp_path_factory.mktemp("book") / "site"
    assert [p.stem for p in book.build(ROOT, target)] == [b.stem for b in BOOKS]
    return target


@pytest.fixture(scope="module")
def pages(site):
    return {
        path.stem: BeautifulSoup(path.read_text(), "html.parser") for path in site.glob("*.html")
    }


def little(root, **texts):
    """A project whose notebooks are a markdown cell each, and a code cell with a committed output."""
    (root / "notebooks").mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        code = nbformat.v4.new_code_cell("raise SystemExit", execution_count=1)
        code.outputs = [nbformat.v4.new_output("stream", text="as it was committed\n")]
        cells = [nbformat.v4.new_markdown_cell(text), code]
        made = nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
        path = root / f"notebooks/{name.strip('_')}.ipynb"
        nbformat.write(made, path)
        if not path.stem.startswith("000"):
            write_manifest(path)
    return root


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_a_page_has_the_notebooks_figures_cells_and_marks(site, pages, path):
    notebook = json.loads(path.read_text())
    drawn = pages[path.stem].select(".drawn")
    figures = plots.figures_of(notebook)
    assert len(drawn) == len(figures)
    for place, (name, output) in zip(drawn, figures, strict=True):
        figure = json.loads(place.script.string)
        committed = output["data"]["application/vnd.plotly.v1+json"]
        assert figure == {key: committed[key] for key in ("data", "layout")}
        picture = site / place.img["src"]
        assert picture.name == f"{path.stem}_{name}.png"
        assert picture.read_bytes() == base64.b64decode(output["data"]["image/png"])
        assert place.img["alt"] == committed["layout"]["title"]["text"]
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    tags = [tag for c in notebook["cells"] for tag in c["metadata"].get("tags", [])]
    assert len(pages[path.stem].select("div.cell")) == len(code)
    assert len(pages[path.stem].select(".tag_parameters")) == 1
    folded = [d for d in pages[path.stem].select("details") if "Show the solution" in d.text]
    assert len(folded) == tags.count("solution")
    explorers = sum("widgets.explore(" in "".join(c["source"]) for c in code)
    assert str(pages[path.stem]).count("These pages have no kernel") == explorers
    shown = [
        "".join(o.get("data", {}).get("text/markdown", "")) for c in code for o in c["outputs"]
    ]
    tables = sum(bool(re.search(r"\|\n\|---", text)) for text in shown)
    assert len(pages[path.stem].select(".cell_output table")) == tables


def test_nothing_is_loaded_from_elsewhere(site, pages):
    loads = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
    found = 0
    for name, page in pages.items():
        for tag, attribute in loads.items():
            for element in page.find_all(tag, {attribute: True}):
                file = element[attribute].split("?")[0].removesuffix("#") or f"{name}.html"
                assert (site / file).is_file(), (name, element)
                found += 1
        for style in page.find_all("style"):
            assert "//" not in style.text
    assert found > 100
    sheets = list(site.rglob("*.css"))
    assert sheets
    for sheet in sheets:
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", sheet.read_text()), sheet


def test_links_inside_lead_somewhere(site, pages):
    found = 0
    for name, page in pages.items():
        for link in page.find_all("a", href=True):
            file, _, anchor = link["href"].partition("#")
            if re.match(r"[a-z]+:", file):
                continue
            found += 1
            assert not file or (site / file).is_file(), (name, link)
            if anchor:
                there = pages[Path(file).stem if file else name]
                assert there.find(id=anchor), (name, link)
    assert found > 300


def test_pages_are_in_order_and_grouped_by_family(pages):
    start = BOOKS[0].stem
    assert pages["index"].title.text == pages[start].title.text
    page, seen = start, [start]
    while next_page := pages[page].select_one("a.next-page"):
        page = Path(next_page["href"]).stem
        seen.append(page)
    assert seen == [b.stem for b in BOOKS]
    sidebar = pages[start].select_one(".sidebar-tree")
    shown = [c.text.strip() for c in sidebar.select(".caption")]
    families = {m.family for m in manifest.every(ROOT)}
    assert shown == [f.caption for f in manifest.FAMILIES.values() if f.folder in families]


def test_nothing_is_run_and_outputs_are_the_committed_ones(tmp_path):
    root = little(tmp_path, _000_start="# 000 · Start", _101_one="# 101 · One: a question?")
    book.build(root, tmp_path / "site")
    page = (tmp_path / "site/101_one.html").read_text()
    assert "as it was committed" in page


def test_a_figure_cannot_end_its_script_early():
    figure = {
        "data": [{"name": "</script><b>"}],
        "layout": {"title": {"text": 'a "b" <c>'}, "height": 9},
    }
    output = {"data": {"application/vnd.plotly.v1+json": figure, "image/png": ""}}
    output |= {"metadata": {"paperlab": {"figure": "f"}}}
    cell = {"cell_type": "code", "source": "", "metadata": {}, "outputs": [output]}
    made = book.page({"cells": [cell]}, "101_x")["cells"][0]["outputs"][0]["data"]["text/html"]
    place = BeautifulSoup(made, "html.parser")
    assert json.loads(place.script.string) == figure
    assert place.img["alt"] == 'a "b" <c>'
    assert not place.find("b")


def test_a_link_that_leads_nowhere_is_refused_and_the_old_site_stays(tmp_path):
    root = little(
        tmp_path, _000_start="# 000 · Start\n\n[x](101_one.ipynb)", _101_one="# 101 · One"
    )
    book.build(root, tmp_path / "site")
    before = (tmp_path / "site/index.html").read_text()
    little(tmp_path, _000_start="# 000 · Start again\n\n[x](102_two.ipynb)")
    with pytest.raises(ValueError, match=r"000_start\.ipynb.*102_two\.ipynb") as refused:
        book.build(root, tmp_path / "site")
    assert str(tmp_path) not in str(refused.value)
    assert (tmp_path / "site/index.html").read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notebooks", "site"]


def test_without_sphinx_the_command_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sphinx.application", None)
    with pytest.raises(runs.BadInput, match=r"pip install -r requirements\.lock"):
        book.build(little(tmp_path, _000_start="# 000 · Start"), tmp_path / "site")


def test_a_figure_without_a_picture_is_named(tmp_path):
    root = little(tmp_path, _000_start="# 000 · Start")
    path = root / "notebooks/000_start.ipynb"
    notebook = json.loads(path.read_text())
    output = {"output_type": "display_data", "data": {}, "metadata": {"paperlab": {"figure": "f"}}}
    notebook["cells"][1]["outputs"] = [output]
    path.write_text(json.dumps(notebook))
    with pytest.raises(runs.BadInput, match=r"000_start\.ipynb: f has no picture"):
        book.build(root, tmp_path / "site")
