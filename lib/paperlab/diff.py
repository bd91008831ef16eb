"""Comparison of two runs: code, machine, parameters, results; in the terminal or on a page."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from html import escape
from pathlib import Path

from . import ledger, records, runs

ABOUT = ("notebook", "profile", "status", "seconds", "peak_memory_mb", "machine", "device")
LONGEST = 200  # characters of a value that are shown
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1480px; padding: 0 1em; }
table { border-collapse: collapse; margin: .6em 0; }
th, td { border: 1px solid #ddd; padding: .25em .6em; text-align: left; vertical-align: top; }
td { overflow-wrap: break-word; }
tr.differs { background: #fff3d6; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1em; align-items: start; }
.pair img { max-width: 100%; border: 1px solid #ddd; }
"""


@dataclass(frozen=True)
class Run:
    """A record, the name that it goes by, and the folder of its figures and per-unit files."""

    name: str
    record: dict
    folder: Path

    def picture(self, figure: str) -> bytes | None:
        """The PNG of a figure; None where none is kept."""
        path = self.folder / f"{self.record['notebook']}_{figure}.png"
        return path.read_bytes() if path.is_file() else None

    def figures(self) -> list[str]:
        """The names of the run's figures."""
        start = f"{self.record['notebook']}_"
        return [Path(f).stem.removeprefix(start) for f in self.record.get("figures") or []]


@dataclass(frozen=True)
class Section:
    """A table of both runs: lines are (whether it differs, cells); ``note`` counts the equal ones."""

    title: str
    columns: list[str]
    lines: list[tuple[bool, list[str]]]
    note: str


def find(word: str, root: Path) -> Run:
    """A run by its folder, its name under data/runs or how that begins, or a record in data/reference.

    Raises BadInput where that is no run, or several.
    """
    folder = Path(word)
    if (folder / "record.json").is_file():
        record = records.read_final(folder / "record.json")
        if record is None:
            raise runs.BadInput(f"{word}: its record.json is not a record")
        return Run(folder.resolve().name, record, folder)
    if "=" in word:
        raise runs.BadInput(f"{word}: name one run; paperlab results compares many")
    every = records.every(root)
    (record,) = ledger.pick(every, folder.name.removesuffix(".json"), root)
    name = next(n for n, r in every.items() if r is record)
    return Run(name, record, records.place(root, name))


def sections(a: Run, b: Run) -> list[Section]:
    """What each was, parameters, metrics (`ledger.compare`), other results, claims and figures."""
    parameters = [run.record["parameters"] for run in (a, b)]
    return [
        _paired("Runs", *map(_about, (a, b))),
        _paired("Parameters", *parameters),
        _metrics(a, b),
        _paired("Other results", *map(_others, (a, b))),
        _paired("Claims", *(ledger.outcomes(run.record, run.folder) for run in (a, b))),
        _figures(a, b),
    ]


def page(a: Run, b: Run) -> str:
    """All sections and both runs' pictures as one HTML page that needs no other file and no network."""
    row = lambda tag, cells: "".join(f"<{tag}>{escape(c)}</{tag}>" for c in cells)  # noqa: E731
    body = [f"<h1>Two runs side by side</h1><p>a = {escape(a.name)}<br>b = {escape(b.name)}</p>"]
    for section in sections(a, b):
        body.append(f"<h2>{escape(section.title)}</h2>")
        if section.lines:
            body.append(f"<table><tr>{row('th', section.columns)}</tr>")
            for differs, cells in section.lines:
                mark = ' class="differs"' if differs else ""
                body.append(f"<tr{mark}>{row('td', cells)}</tr>")
            body.append("</table>")
        body.append(f"<p>{escape(section.note)}</p>")
    for figure in dict.fromkeys(a.figures() + b.figures()):
        shown = [f"<div>{side}: {_shown(run, figure)}</div>" for side, run in (("a", a), ("b", b))]
        body.append(f'<h3>{escape(figure)}</h3><div class="pair">{"".join(shown)}</div>')
    head = f'<meta charset="utf-8"><title>{escape(a.name)} | {escape(b.name)}</title>'
    whole = f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n'
    return whole + "\n".join(body) + "\n</body></html>\n"


def _about(run: Run) -> dict:
    code = run.record.get("code") or {}
    about = {key: run.record.get(key) for key in ABOUT}
    about["error"] = (run.record.get("error") or {}).get("message")
    about |= {"code digest": code.get("digest"), "commit": code.get("commit")}
    about["committed"] = None if "dirty" not in code else not code["dirty"]
    sets, versions = run.record.get("own_sets") or {}, run.record.get("versions") or {}
    about |= {f"content of {name}": content[:12] for name, content in sets.items()}
    about |= {f"version of {name}": version for name, version in versions.items()}
    return {k: v for k, v in about.items() if v is not None}


def _others(run: Run) -> dict:
    """What a record holds beside its declared tables: numbers, lists, rows without roles."""
    tables = run.record.get("tables") or {}
    return {k: v for k, v in run.record["metrics"].items() if k not in tables}


def _metrics(a: Run, b: Run) -> Section:
    try:
        table = ledger.compare([a.record], [b.record])
    except ValueError as error:
        return Section("Metrics", ledger.COMPARED, [], str(error))
    lines, equal = ledger.compared(table), (table["a - b"] == 0).sum()
    close = sum(not differs for differs, _ in lines)
    note = f"{close} of {len(lines)} cannot be told apart (intervals hold together at 95 %); {equal} are equal"
    return Section("Metrics", ledger.COMPARED, lines, note)


def _figures(a: Run, b: Run) -> Section:
    lines = []
    for figure in dict.fromkeys(a.figures() + b.figures()):
        pictures = [run.picture(figure) for run in (a, b)]
        has = [figure in run.figures() for run in (a, b)]
        same = "unknown" if all(has) and None in pictures else "no"
        same = "yes" if all(has) and None not in pictures and len({*pictures}) == 1 else same
        states = ["no such figure" if not h else "kept" if p else "no picture kept" for h, p in zip(has, pictures, strict=True)]  # fmt: skip
        lines.append((same != "yes", [figure, *states, same]))
    unknown = sum(cells[-1] == "unknown" for _, cells in lines)
    note = _equal(lines) + (f"; {unknown} unknown, for want of pictures" if unknown else "")
    return Section("Figures", ["figure", "a", "b", "equal?"], lines, note)


def _paired(title: str, a: dict, b: dict) -> Section:
    """A line for each key: whether its values differ, the key, and both values as text."""
    lines = []
    for key in a | b:
        differs = key not in a or key not in b or a[key] != b[key]
        lines.append((differs, [key, _text(a, key), _text(b, key)]))
    return Section(title, ["", "a", "b"], lines, _equal(lines))


def _text(side: dict, key: str) -> str:
    if key not in side:
        return "not there"
    value = side[key]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _equal(lines: list[tuple[bool, list[str]]]) -> str:
    return f"{sum(not differs for differs, _ in lines)} of {len(lines)} are equal"


def _shown(run: Run, figure: str) -> str:
    picture = run.picture(figure)
    if picture is None:
        return "no picture kept" if figure in run.figures() else "no such figure"
    data = base64.b64encode(picture).decode()
    return f'<br><img alt="{escape(figure)}" src="data:image/png;base64,{data}">'
