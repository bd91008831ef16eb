"""Manifests of little projects."""

from pathlib import Path

FIELDS = {
    "name": '"Small"',
    "question": '"does it work?"',
    "title": '"A Small Paper"',
    "authors": '"One, Two"',
    "venue": '"ICML 2024"',
    "arxiv": '["2401.00001"]',
    "claim": '"Small is enough"',
    "status": '"partial"',
    "family": '"ctr"',
    "module": '"ctr.small"',
    "quick_data": '"a planted log"',
    "data": "[]",
}


def manifest_text(more: str = "", **changes: str | None) -> str:
    """A manifest's TOML; changes: other values as TOML, None leaves a key out; more: tables at the end."""
    fields = {k: v for k, v in (FIELDS | changes).items() if v is not None}
    return "".join(f"{k} = {v}\n" for k, v in fields.items()) + more


def write_manifest(notebook: Path, more: str = "", **changes: str | None) -> Path:
    """The manifest of a notebook, beside it."""
    path = notebook.with_suffix(".toml")
    path.write_text(manifest_text(more, **changes))
    return path
