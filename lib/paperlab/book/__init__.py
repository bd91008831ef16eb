"""All notebooks as a static site, made from their committed outputs without running them.

Sphinx and MyST-NB write the pages. The site carries all it needs, plotly.js and MathJax included:
it reads the same from a folder, without a network, as from a server.
"""

from __future__ import annotations

import base64
import html
import importlib.util
import io
import json
import shutil
import tempfile
from pathlib import Path

from .. import plots, runs
from ..index import by_family
from ..manifest import Manifest, every

NO_KERNEL = (
    "*These pages have no kernel, so the sliders are not here: this is the figure at their start "
    "values. `make lab` opens the notebook with them.*"
)
SETTINGS = {
    "project": "Paperlab",
    "html_title": "Paperlab",
    "extensions": ["myst_nb", "sphinx.ext.mathjax"],
    "nb_execution_mode": "off",
    "nb_merge_streams": True,
    "nb_render_markdown_format": "myst",  # tables and links in outputs
    "myst_enable_extensions": ["dollarmath"],
    "myst_update_mathjax": False,
    "mathjax_path": "tex-svg.js",  # one file, with its font inside
    "html_theme": "furo",
    "html_css_files": ["book.css"],
    "html_js_files": [("figures.js", {"defer": "defer"})],
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "html_show_copyright": False,
    "html_show_search_summary": False,  # it would be fetched, which a browser refuses for files
    "html_use_index": False,
    "html_domain_indices": False,
}


def build(root: Path, target: Path) -> list[Path]:
    """Write the site of root/notebooks into the folder ``target``, which is replaced as a whole.

    Returns the pages, one a notebook; index.html is the first of them once more. Raises BadInput
    where the packages of the extra ``book`` or a figure's PNG are missing, and ValueError with the
    first of Sphinx's warnings, such as a link that leads nowhere; then ``target`` stays as it was.
    """
    try:
        from sphinx.application import Sphinx
        from sphinx.util.console import strip_colors
        from sphinx.util.docutils import docutils_namespace
    except ModuleNotFoundError:
        raise runs.BadInput("Sphinx is not installed: pip install -r requirements.lock") from None

    notebooks = runs.notebooks(root)
    start = notebooks[0].stem
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        source, site = Path(folder, "source"), Path(folder, "site")
        source.mkdir()
        (site / "figures").mkdir(parents=True)
        for path in notebooks:
            book = json.loads(path.read_text())
            for name, output in plots.figures_of(book):
                if "image/png" not in output["data"]:
                    raise runs.BadInput(f"{path.name}: {name} has no picture: paperlab refresh")
                picture = base64.b64decode(output["data"]["image/png"])
                (site / "figures" / f"{path.stem}_{name}.png").write_bytes(picture)
            if path.stem == start:
                book["cells"].append(contents(every(root)))
            (source / path.name).write_text(json.dumps(page(book, path.stem)))
        warnings = io.StringIO()
        settings = SETTINGS | {"root_doc": start, "html_static_path": _static()}
        with docutils_namespace():  # else a second build in one process warns
            Sphinx(
                source, None, site, Path(folder, "doctrees"), "html", settings,
                status=None, warning=warnings, freshenv=True,
            ).build()  # fmt: skip
        written = strip_colors(warnings.getvalue()).replace(f"{source}/", "").splitlines()
        if written:
            raise ValueError(written[0])
        shutil.copy(site / f"{start}.html", site / "index.html")
        shutil.rmtree(target, ignore_errors=True)
        site.rename(target)
    return [target / f"{path.stem}.html" for path in notebooks]


def page(book: dict, stem: str) -> dict:
    """A notebook as JSON, changed in place for the site.

    Figures become HTML: the picture, and the plotly figure that book/figures.js draws in its place.
    Solutions are folded; explorers say that their sliders need a kernel.
    """
    for name, output in plots.figures_of(book):
        output["data"] = {"text/html": _figure(name, output["data"], stem)}
    for cell in book["cells"]:
        if "solution" in cell["metadata"].get("tags", []):
            cell["metadata"]["tags"].append("hide-cell")
            cell["metadata"]["mystnb"] = {
                "code_prompt_show": "Show the solution",
                "code_prompt_hide": "Hide the solution",
            }
        if "widgets.explore(" in "".join(cell["source"]) and cell.get("outputs"):
            data = {"text/markdown": NO_KERNEL}
            note = {"output_type": "display_data", "data": data, "metadata": {}}
            cell["outputs"].append(note)
    return book


def contents(manifests: list[Manifest]) -> dict:
    """The cell that names all pages but the first, in order, for the list beside every page."""
    lines = []
    for caption, group in by_family(manifests):
        lines += ["```{toctree}", ":hidden:", f":caption: {caption}", ""]
        lines += [f"{m.number} · {m.name} <{m.stem}>" for m in group]
        lines += ["```", ""]
    cell = {"id": "contents", "cell_type": "markdown", "metadata": {}}
    return cell | {"source": "\n".join(lines)}


def _figure(name: str, data: dict, stem: str) -> str:
    figure = data[plots.PLOTLY]
    layout = figure["layout"]
    text = json.dumps({"data": figure["data"], "layout": layout})
    text = text.replace("<", "\\u003c")  # no tag inside may end the script
    title = html.escape(layout["title"]["text"])
    size = f'width="{plots.SIZE["width"]}" height="{layout["height"]}"'
    return (
        f'<div class="drawn"><a href="figures/{stem}_{name}.png">'
        f'<img src="figures/{stem}_{name}.png" {size} alt="{title}" loading="lazy"></a>'
        f'<script type="application/json">{text}</script></div>'
    )


def _static() -> list[str]:
    """Own and installed files that every page may load."""
    import plotly

    here = Path(__file__).parent
    mathjax = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent
    files = [here / "book.css", here / "figures.js"]
    files += [Path(plotly.__file__).parent / "package_data/plotly.min.js"]
    files += [mathjax / "static/mathjax/tex-svg.js"]
    return [str(path) for path in files]
