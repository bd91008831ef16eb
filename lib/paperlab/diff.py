"""Two runs side by side: what was run, on what, and what came out; in the terminal or on a page."""

from __future__ import annotations

import base64
import html
import json
import os
from dataclasses import dataclass
from pathlib import Path

from . import ledger, records, runs

ABOUT = ("notebook", "profile", "status", "error", "seconds", "notebook_seconds", "peak_memory_mb")
ABOUT += ("machine", "device", "threads", "started")
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
    """A record, the name that it goes by, and its pictures: figure -> PNG, or None where none is kept."""

    name: str
    record: dict
    pictures: dict[str, Path | None]


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
        name, record = folder.resolve().name, records.told(folder / "record.json")
        if record is None:
            raise runs.BadInput(f"{word}: its record.json is not a record")
    elif "=" in word:
        raise runs.BadInput(f"{word}: name one run; paperlab results compares many")
    else:
        every = records.every(root)
        (record,) = ledger.pick(every, folder.name.removesuffix(".json"), root)
        name = next(n for n, r in every.items() if r is record)
        folder = root / "data/runs" / name
    pictures = {}
    for file in record.get("figures") or []:
        path = folder / Path(file).name
        figure = path.stem.removeprefix(f"{record['notebook']}_")
        pictures[figure] = path if path.is_file() else None
    return Run(name, record, pictures)


def sections(a: Run, b: Run) -> list[Section]:
    """About, parameters, measures (`ledger.compare`, a minus b), other results, verdicts and figures."""
    parts = (_about, _parameters, _measures, _others, _verdicts, _figures)
    return [part(a, b) for part in parts]


def page(a: Run, b: Run) -> str:
    """All sections and both runs' pictures as one HTML page that needs no other file and no network."""
    told = html.escape
    body = [f"<h1>Two runs side by side</h1><p>a = {told(a.name)}<br>b = {told(b.name)}</p>"]
    for section in sections(a, b):
        body.append(f"<h2>{told(section.title)}</h2>")
        if section.lines:
            body.append(
                f"<table><tr>{''.join(f'<th>{told(c)}</th>' for c in section.columns)}</tr>"
            )
            for differs, cells in section.lines:
                mark = ' class="differs"' if differs else ""
                body.append(f"<tr{mark}>{''.join(f'<td>{told(c)}</td>' for c in cells)}</tr>")
            body.append("</table>")
        body.append(f"<p>{told(section.note)}</p>")
    for figure in a.pictures | b.pictures:
        body.append(f'<h3>{told(figure)}</h3><div class="pair">')
        body += [
            f"<div>{side}: {_picture(run, figure)}</div>" for side, run in (("a", a), ("b", b))
        ]
        body.append("</div>")
    head = f'<meta charset="utf-8"><title>{told(a.name)} | {told(b.name)}</title>'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n'
        + ("\n".join(body) + "\n</body></html>\n")
    )


def _about(a: Run, b: Run) -> Section:
    sides = []
    for record in (a.record, b.record):
        code = record.get("code") or {}
        side = {key: record.get(key) for key in ABOUT}
        side["error"] = (record.get("error") or {}).get("message")
        side |= {"code digest": code.get("digest"), "commit": code.get("commit")}
        side["committed"] = None if "dirty" not in code else not code["dirty"]
        sides.append(
            side | {f"version of {k}": v for k, v in (record.get("versions") or {}).items()}
        )
    lines = [line for line in _pairs(*sides) if line[1][1:] != ["", ""]]
    return Section("Runs", ["", "a", "b"], lines, _equal(lines))


def _parameters(a: Run, b: Run) -> Section:
    lines = _pairs(a.record["parameters"], b.record["parameters"])
    return Section("Parameters", ["parameter", "a", "b"], lines, _equal(lines))


def _measures(a: Run, b: Run) -> Section:
    columns = ["table", "rows", "measure", "a", "b", "a - b, paired", "seeds"]
    try:
        table = ledger.compare([a.record], [b.record])
    except ValueError as error:
        return Section("Measures", columns, [], str(error))
    lines, same = [], 0
    for *names, x, y, gap, low, high, seeds, apart in table.iter_rows():
        told = f"{gap:+.3g} [{low:+.3g}, {high:+.3g}]"
        lines.append((apart != "no", [*names, f"{x:.4g}", f"{y:.4g}", told, str(seeds)]))
        same += gap == low == high == 0 or (seeds == 1 and x == y)
    close = sum(not differs for differs, _ in lines)
    note = f"{close} of {len(lines)} cannot be told apart (95 % intervals); {same} are equal"
    return Section("Measures", columns, lines, note)


def _others(a: Run, b: Run) -> Section:
    """What a record holds beside tables with seeds: single numbers, lists, tables without seeds."""
    sides = []
    for record in (a.record, b.record):
        apart = ledger.tables(record)
        sides.append({k: v for k, v in record["metrics"].items() if k not in apart})
    lines = _pairs(*sides)
    return Section("Other results", ["name", "a", "b"], lines, _equal(lines))


def _verdicts(a: Run, b: Run) -> Section:
    sides = [{v["text"]: v for v in run.record.get("verdicts") or []} for run in (a, b)]
    lines = []
    for text in sides[0] | sides[1]:
        x, y = (side.get(text) for side in sides)
        told = [f"{v['outcome']}: {v['evidence']}" if v else "no such claim" for v in (x, y)]
        lines.append((x is None or y is None or x["outcome"] != y["outcome"], [text, *told]))
    return Section("Verdicts", ["claim", "a", "b"], lines, _equal(lines))


def _figures(a: Run, b: Run) -> Section:
    lines = []
    for figure in a.pictures | b.pictures:
        paths = [run.pictures.get(figure) for run in (a, b)]
        lacks = [figure not in run.pictures for run in (a, b)]
        told = [
            "no such figure" if lack else os.path.relpath(path) if path else "no picture kept"
            for path, lack in zip(paths, lacks, strict=True)
        ]
        same = "unknown"
        if any(lacks):
            same = "no"
        elif all(paths):
            same = "yes" if paths[0].read_bytes() == paths[1].read_bytes() else "no"
        lines.append((same != "yes", [figure, *told, same]))
    unknown = sum(cells[-1] == "unknown" for _, cells in lines)
    note = _equal(lines) + (f"; {unknown} unknown, for want of pictures" if unknown else "")
    return Section("Figures", ["figure", "a", "b", "equal?"], lines, note)


def _pairs(a: dict, b: dict) -> list[tuple[bool, list[str]]]:
    """A line a key: whether its values differ, the key, and both values as text."""
    lines = []
    for key in a | b:
        differs = key not in a or key not in b or a[key] != b[key]
        lines.append((differs, [key, _text(a, key), _text(b, key)]))
    return lines


def _text(side: dict, key: str) -> str:
    value = side.get(key)
    if value is None:
        return "" if key in side else "not set"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _equal(lines: list[tuple[bool, list[str]]]) -> str:
    return f"{sum(not differs for differs, _ in lines)} of {len(lines)} are equal"


def _picture(run: Run, figure: str) -> str:
    path = run.pictures.get(figure)
    if path is None:
        return "no picture kept" if figure in run.pictures else "no such figure"
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<br><img alt="{html.escape(figure)}" src="data:image/png;base64,{data}">'
