"""What is written from the manifests and the README, so that no two places drift apart.

A card is a notebook's first cell. The README holds the table of papers between ``<!-- papers -->``
and ``<!-- /papers -->``, and shows pictures as ``figures/NNN_slug_NAME.png``, which are copied from
the outputs of that notebook. The start page, 000, has the list of papers in the cell with the id
``papers``, and in the cell ``findings`` what the README says between ``<!-- findings -->`` and
``<!-- /findings -->``, without the pictures. Tests hold the numbers there against the records.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

from .manifest import FAMILIES, Manifest, every
from .parameters import BadInput
from .plots import figures_of

SHOWN = re.compile(r"\(figures/((\d{3}_[a-z0-9_]+)\.png)\)")


def written(root: Path) -> dict[Path, bytes | None]:
    """Every file that is written from others, as it should be; None for one that should not be there.

    Raises BadInput for a faulty manifest, a place that is missing, a picture that no notebook draws.
    """
    manifests = every(root)
    books = {m.stem: root / f"notebooks/{m.stem}.ipynb" for m in manifests}
    files: dict[Path, bytes | None] = {
        books[m.stem]: with_cell(books[m.stem].read_text(), card(m)).encode() for m in manifests
    }
    listed = [m for m in manifests if m.status != "draft"]
    start = root / "notebooks/000_start_here.ipynb"
    readme = between((root / "README.md").read_text(), "papers", readme_table(listed))
    page = with_cell(start.read_text(), start_list(listed), "papers")
    files[start] = with_cell(page, findings(readme), "findings").encode()
    files[root / "README.md"] = readme.encode()
    pictures = {root / "figures" / name: stem for name, stem in SHOWN.findall(readme)}
    for path, stem in pictures.items():
        files[path] = _picture(stem, books)
    for path in (root / "figures").glob("*"):
        files.setdefault(path, None)
    return files


def write(root: Path) -> list[Path]:
    """Bring every file of `written` up to date; returns those that changed."""
    changed = drifted(root)
    for path, content in changed.items():
        if content is None:
            path.unlink()
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
    return list(changed)


def drifted(root: Path) -> dict[Path, bytes | None]:
    """Those of `written` that differ from what is there."""
    return {
        path: content
        for path, content in written(root).items()
        if content != (path.read_bytes() if path.exists() else None)
    }


def card(manifest: Manifest) -> str:
    """The first cell of a notebook, as Markdown."""
    venue = "; ".join(
        [manifest.venue] * bool(manifest.venue) + [f"arXiv {a}" for a in manifest.arxiv]
    )
    real = f" (quick); {', '.join(manifest.data)} (full)" if manifest.data else ""
    rows = {
        "Paper": manifest.title and f"*{manifest.title}*",
        "Authors": manifest.authors,
        "Venue": venue,
        "Claim": manifest.claim,
        "Data": f"{manifest.quick_data}{real}",
        "Run time": run_time(manifest),
        "Status": manifest.status,
    }
    table = [f"| {key} | {text} |" for key, text in rows.items() if text]
    head = [f"# {manifest.heading}", "", "| | |", "|---|---|", *table]
    return "\n".join([*head, *(["", manifest.note.strip()] if manifest.note.strip() else [])])


def run_time(manifest: Manifest) -> str:
    """Seconds and peak memory of every profile, where they are measured."""
    parts = []
    for profile in ("quick", *manifest.profiles):
        numbers = manifest.measured.get(profile, {})
        if "seconds" not in numbers:
            parts.append(f"{profile}: not measured yet")
            continue
        seconds = numbers["seconds"]
        written = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
        memory = f", {numbers['memory_mb'] / 1000:.1f} GB" if "memory_mb" in numbers else ""
        parts.append(f"{profile}: {written}{memory}")
    return "; ".join(parts) + " (two CPU cores)"


def start_list(manifests: list[Manifest]) -> str:
    """The start page's list: a table of questions a family."""
    lines = ["## The papers"]
    for caption, group in by_family(manifests):
        lines += ["", f"**{caption}**", "", "| notebook | question | status |", "|---|---|---|"]
        lines += [
            f"| [{m.number} {m.name}]({m.stem}.ipynb) | {m.question} | {m.status} |" for m in group
        ]
    return "\n".join(lines)


def readme_table(manifests: list[Manifest]) -> str:
    """The README's table: a row a family, a link a paper."""
    lines = ["| family | papers |", "|---|---|"]
    for caption, group in by_family(manifests):
        links = ", ".join(f"[{m.number} {m.name}](notebooks/{m.stem}.ipynb)" for m in group)
        lines.append(f"| {caption} | {links} |")
    return "\n".join(lines)


def findings(readme: str) -> str:
    """The start page's findings: the README's, without pictures, with links from notebooks/."""
    _, text, _ = parts(readme, "findings")
    lines = [line for line in text.strip().splitlines() if not line.startswith("![")]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return text.replace("](notebooks/", "](").replace("](data/", "](../data/")


def by_family(manifests: list[Manifest]) -> list[tuple[str, list[Manifest]]]:
    """Captions and manifests of the families that have any, in the order of FAMILIES."""
    groups = [
        (f.caption, [m for m in manifests if m.family == f.folder]) for f in FAMILIES.values()
    ]
    return [(caption, group) for caption, group in groups if group]


def between(text: str, marker: str, body: str) -> str:
    """A text with ``body`` between ``<!-- marker -->`` and ``<!-- /marker -->``; see `parts`."""
    before, _, after = parts(text, marker)
    return f"{before}\n{body}\n{after}"


def parts(text: str, marker: str) -> tuple[str, str, str]:
    """A text up to ``<!-- marker -->``, what follows, and the rest from ``<!-- /marker -->`` on.

    Raises BadInput where one of them is missing.
    """
    opening, closing = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, opened, rest = text.partition(opening)
    inside, closed, after = rest.partition(closing)
    if not (opened and closed):
        raise BadInput(f"the page holds no {opening} and {closing}")
    return before + opening, inside, closing + after


def with_cell(text: str, source: str, cell_id: str | None = None) -> str:
    """A notebook's JSON with another source in its first cell, or in the cell of that id."""
    book = json.loads(text)
    cell = next((c for c in book["cells"] if cell_id in (None, c["id"])), None)
    if cell is None:
        raise BadInput(f"the start page has no cell with the id {cell_id!r}")
    if "".join(cell["source"]) == source:
        return text
    cell["source"] = source
    return json.dumps(book, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _picture(name: str, books: dict[str, Path]) -> bytes:
    """The PNG of a figure NNN_slug_NAME in the outputs of its notebook."""
    for stem, path in books.items():
        if name.startswith(f"{stem}_"):
            for figure, output in figures_of(json.loads(path.read_text())):
                if name == f"{stem}_{figure}" and "image/png" in output["data"]:
                    return base64.b64decode(output["data"]["image/png"])
    raise BadInput(f"README.md shows figures/{name}.png, which no notebook draws")
