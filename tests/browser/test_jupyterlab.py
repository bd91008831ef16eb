"""The real JupyterLab, as `make lab` starts it, in headless Chromium: pages open and sliders answer.

The start page and the first notebook of every family are driven, the others by `make test-browser`.
A slider is moved in a copy of its notebook that has only the cells that its explorer needs: nbval
runs the whole. Pictures of what is seen are kept in test-artefacts.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import symtable
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from paperlab import plots, records, runs

ROOT = records.project_root(Path(__file__))
START, *PAPERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
ARTEFACTS = ROOT / "test-artefacts"


def has_explorer(book: Path) -> bool:
    return "widgets.explore(" in book.read_text()


FIRST = {}  # notebook of every family, which is its first digit
for path in filter(has_explorer, PAPERS):
    FIRST.setdefault(path.name[0], path)
on_demand = pytest.mark.on_demand
every = pytest.mark.parametrize(
    "book",
    [
        pytest.param(p, id=p.stem, marks=() if p in FIRST.values() else on_demand)
        for p in filter(has_explorer, PAPERS)
    ],
)
# All cells are in the page, also those out of sight.
TRACKER = "lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
# Resolves when, after the next key, the figure of cell i holds other data, to true, or after 20
# seconds to false. While a figure is drawn anew there may be none.
ANSWER = """i => {
  const cell = jupyterapp.shell.currentWidget.content.widgets[i].node;
  const held = () => {
    const figure = cell.querySelector('.js-plotly-plot');
    return figure?.data && JSON.stringify([figure.data, figure.layout.title.text, figure.layout.shapes]);
  };
  const before = held();
  window.answer = new Promise(resolve => document.addEventListener('keydown', event => {
    const look = () => {
      const now = held();
      if (now && now !== before) resolve(true);
      else if (performance.now() - event.timeStamp > 20000) resolve(false);
      else setTimeout(look, 5);
    };
    look();
  }, { capture: true, once: true }));
}"""

if plots.browser() is None:
    assert not os.environ.get("CI"), "CI must have a Chromium: see .ci/run"
    pytest.skip("no Chrome or Chromium on this machine", allow_module_level=True)


class Lab:
    """A running `make lab`: its process, the project's copy that it serves, and what it printed."""

    def __init__(self, process: subprocess.Popen, folder: Path, printed: str):
        self.process, self.folder, self.printed = process, folder, printed
        self.address = printed.split()[-1]
        pattern = r"(http://127\.0\.0\.1:\d+)/lab/workspaces/paperlab\?token=(\w+)"
        found = re.fullmatch(pattern, self.address)
        assert found, printed
        self.base, self.token = found.groups()

    def ask(self, path: str, method: str = "GET", token: str | None = None) -> tuple[int, list]:
        """Status and content of an answer of the server's interface."""
        headers = {"Authorization": f"token {self.token if token is None else token}"}
        request = urllib.request.Request(f"{self.base}/api/{path}", method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read() or "[]")
        except urllib.error.HTTPError as refused:
            return refused.code, []

    def shut_down(self) -> None:
        """End all kernels and terminals."""
        for kernel in self.ask("kernels")[1]:
            self.ask(f"kernels/{kernel['id']}", "DELETE")
        for terminal in self.ask("terminals")[1]:
            self.ask(f"terminals/{terminal['name']}", "DELETE")
        assert self.ask("kernels") == self.ask("terminals") == (200, [])


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """`make lab` in a copy of the project and with settings of its own, so that nothing is changed."""
    home = tmp_path_factory.mktemp("lab")
    folder, settings = home / "project", home / "config" / TRACKER
    shutil.copytree(
        ROOT / "notebooks",
        folder / "notebooks",
        ignore=shutil.ignore_patterns(".ipynb_checkpoints"),
    )
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    for name in ("data", "lib"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"windowingMode": "none"}))
    (home / "config/jupyter_lab_config.json").write_text(
        json.dumps({"LabApp": {"expose_app_in_browser": True}})
    )
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "BROWSER": "true",  # the program of that name: no window of the user's browser is opened
    }
    log = home / "printed.txt"
    with log.open("w") as output:
        server = subprocess.Popen(
            ["make", "--assume-old=.venv/.ready", "lab"], cwd=folder, env=environment,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        limit = time.monotonic() + 120
        while "token=" not in log.read_text().rpartition("\n")[0]:
            assert server.poll() is None and time.monotonic() < limit, log.read_text()
            time.sleep(0.25)
        yield Lab(server, folder, log.read_text())
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


@pytest.fixture
def page(lab, chromium):
    """A page of its own; what it started is shut down afterwards."""
    page = chromium.new_page(viewport={"width": 1400, "height": 900})
    yield page
    page.close()
    lab.shut_down()


def listening(pid: int) -> dict[int, set]:
    """The addresses at which a process' descendants take connections, by process."""
    found = {}
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # one that has ended meanwhile
            for socket in child.net_connections("inet"):
                if socket.status == psutil.CONN_LISTEN:
                    found.setdefault(child.pid, set()).add(socket.laddr)
    return found


def names(source: str) -> tuple[set[str], set[str]]:
    """The global names that a cell defines, and those that it or its functions use."""
    top = symtable.symtable(source, "cell", "exec")
    defined = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    used, inner = {s.get_name() for s in top.get_symbols() if s.is_referenced()}, [top]
    while inner:
        scope = inner.pop()
        used |= {s.get_name() for s in scope.get_symbols() if s.is_global()}
        inner += scope.get_children()
    return defined, used


def cut(book: Path, folder: Path) -> tuple[Path, int]:
    """Write a notebook of the explorer and the cells it needs; its path, and the explorer's place."""
    content = json.loads(book.read_text())
    title, *cells = content["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    sources = ["".join(c["source"]) for c in code]
    (last,) = [k for k, source in enumerate(sources) if "widgets.explore(" in source]
    kept, needed = [], {"widgets"}
    for k in range(last, -1, -1):
        defined, used = names(sources[k])
        if k == last or defined & needed:
            kept.insert(0, code[k] | {"outputs": [], "execution_count": None})
            needed = needed - defined | used - defined
    path = folder / f"cut_{book.name}"
    path.write_text(json.dumps(content | {"cells": [title, *kept]}))
    return path, len(kept)


def open_notebook(page, lab, book: Path) -> None:
    page.goto(f"{lab.base}/lab/tree/notebooks/{book.name}?token={lab.token}&reset")
    page.wait_for_selector(".jp-NotebookPanel h1", timeout=120_000)


def wait_for_kernel(page) -> None:
    page.get_by_text(re.compile(r" \| Idle$")).wait_for(timeout=120_000)  # in the status bar


def cell_at(page, index: int):
    return page.locator(".jp-NotebookPanel .jp-Cell").nth(index)


def run_all(page) -> None:
    """Run all cells from the menu; the end is when JupyterLab's own command says so."""
    wait_for_kernel(page)
    page.evaluate(
        """() => { window.ran = new Promise(done => jupyterapp.commands.commandExecuted.connect(
            (_, { id, result }) => id === 'notebook:run-all-cells' && done(result))); }"""
    )
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").click()
    page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
    ran = page.evaluate("window.ran")
    cells = page.evaluate("jupyterapp.shell.currentWidget.content.model.toJSON().cells")
    code = [c for c in cells if c["cell_type"] == "code"]
    outputs = [o for c in code for o in c["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert ran is True
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))


def test_make_lab_prints_an_address_that_needs_its_token_and_stays_on_this_machine(lab):
    assert lab.printed.rstrip().splitlines()[-1].strip() == lab.address
    for path in ("kernels", "terminals", "contents"):
        assert lab.ask(path)[0] == 200
        assert lab.ask(path, token="")[0] == 403
        assert lab.ask(path, token="0" * len(lab.token))[0] == 403
    for path in ("kernels", "terminals"):
        assert lab.ask(path, "POST", token="")[0] == 403
        assert lab.ask(path, "POST")[0] in (200, 201)
    limit = time.monotonic() + 60
    while len(found := listening(lab.process.pid)) < 2:  # the server, and the kernel when it is up
        assert time.monotonic() < limit
        time.sleep(0.25)
    assert {place.ip for places in found.values() for place in places} == {"127.0.0.1"}
    assert int(lab.base.rpartition(":")[2]) in {p.port for places in found.values() for p in places}
    lab.shut_down()


def test_the_address_opens_the_start_page_beside_its_table_of_contents(lab, page):
    from PIL import Image

    page.goto(lab.address)
    page.wait_for_selector(".jp-NotebookPanel h1", timeout=120_000)
    wait_for_kernel(page)
    tab = page.locator("#jp-main-dock-panel .lm-TabBar-tab.lm-mod-current .lm-TabBar-tabLabel")
    assert tab.inner_text() == START.name
    texts = [c for c in json.loads(START.read_text())["cells"] if c["cell_type"] == "markdown"]
    lines = "".join("".join(c["source"]) + "\n" for c in texts).splitlines()
    wanted = [line.lstrip("# ") for line in lines if re.match("#+ ", line)]
    seen = page.locator("#jp-left-stack .jp-tocItem-content:visible")
    assert [text.strip() for text in seen.all_inner_texts()] == wanted
    picture = ARTEFACTS / "000_start_here_lab.png"
    page.screenshot(path=picture)
    Image.open(picture).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(
        picture, optimize=True
    )


def test_the_start_page_runs(lab, page):
    open_notebook(page, lab, START)
    run_all(page)
    assert page.locator(".jp-OutputArea table").count() >= 2
    page.screenshot(path=ARTEFACTS / f"{START.stem}.png")


@every
def test_an_explorers_committed_figure_shows_without_a_kernel(lab, page, book):
    page.route(  # where a kernel would be started
        "**/api/sessions*",
        lambda route: route.abort() if route.request.method == "POST" else route.continue_(),
    )
    open_notebook(page, lab, book)
    page.locator(".jp-Dialog .jp-mod-accept", has_text="Ok").click()
    page.locator(".jp-Dialog .jp-mod-reject", has_text="No Kernel").click()
    page.mouse.move(0, 0)  # under the mouse a picture becomes a graph that can be turned and zoomed
    cells = json.loads(book.read_text())["cells"]
    (index,) = [k for k, c in enumerate(cells) if "widgets.explore(" in "".join(c["source"])]
    figure = cell_at(page, index).locator(".jp-RenderedPlotly img").first
    figure.scroll_into_view_if_needed()
    assert figure.is_visible()
    assert figure.evaluate("picture => picture.decode().then(() => picture.width)") > 500
    assert lab.ask("kernels") == (200, [])
    page.screenshot(path=ARTEFACTS / f"{book.stem}_committed.png")


@every
def test_an_explorer_answers_every_slider(lab, page, book):
    path, index = cut(book, lab.folder / "notebooks")
    open_notebook(page, lab, path)
    run_all(page)
    panel = cell_at(page, index)
    panel.scroll_into_view_if_needed()
    panel.locator(".noUi-handle").first.wait_for()
    names = panel.locator(".widget-slider .widget-label").all_inner_texts()
    assert all(names)
    for name, handle in zip(names, panel.locator(".noUi-handle").all(), strict=True):
        handle.focus()
        last = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        for key in ("ArrowLeft", "ArrowRight") if last else ("ArrowRight", "ArrowLeft"):
            page.evaluate(ANSWER, index)
            page.keyboard.press(key)
            assert page.evaluate("window.answer"), f"{name}, {key}: the figure stays as it is"
    page.screenshot(path=ARTEFACTS / f"{book.stem}.png")
    page.evaluate("jupyterapp.commands.execute('docmanager:save')")
    saved = json.loads(path.read_text())
    assert "widgets" not in saved["metadata"]  # JupyterLab keeps no state of them
    assert "widget-view" in json.dumps(saved)
    runs.clean(saved, code="")
    assert "widget-view" not in json.dumps(saved)


def test_a_page_loaded_anew_shows_what_its_sliders_say(lab, page):
    """The kernel lives on, and its sliders with it; of the figure a saved picture is left."""
    path, index = cut(next(filter(has_explorer, PAPERS)), lab.folder / "notebooks")
    open_notebook(page, lab, path)
    run_all(page)
    figure = cell_at(page, index).locator(".js-plotly-plot").first
    title = "figure => figure.layout.title.text"
    figure.locator(".main-svg").first.wait_for()
    start = figure.evaluate(title)
    cell_at(page, index).locator(".noUi-handle").first.focus()
    page.evaluate(ANSWER, index)
    page.keyboard.press("ArrowRight")
    assert page.evaluate("window.answer")
    moved = figure.evaluate(title)
    assert moved != start
    page.wait_for_function(  # JupyterLab's own picture, which it makes when it has drawn
        """i => jupyterapp.shell.currentWidget.content.model.toJSON().cells[i].outputs
        .some(output => output.data?.['image/png'])""",
        arg=index,
    )
    page.evaluate("jupyterapp.commands.execute('docmanager:save')")
    page.mouse.move(0, 0)
    page.reload()
    wait_for_kernel(page)
    cell_at(page, index).scroll_into_view_if_needed()
    is_now = """([i, title]) => jupyterapp.shell.currentWidget?.content.widgets[i]?.node
        .querySelector('.js-plotly-plot')?.layout?.title.text === title"""
    page.wait_for_function(is_now, arg=[index, moved])
    cell_at(page, index).locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(is_now, arg=[index, start])
