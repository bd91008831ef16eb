"""Files with a JSON object in each line: what can be read, and why the rest cannot."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import fetch


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, unpacked where it ends in .gz."""
    with fetch.reading(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield from file


def parse(line: bytes) -> dict | str:
    """The object of one line, or what is wrong with it."""
    try:
        row = json.loads(line)
    except RecursionError:
        return "nested too deeply"
    except ValueError:  # of UnicodeDecodeError too
        return "not JSON"
    return row if isinstance(row, dict) else "not an object"


def texts(line: bytes, fields: Sequence[str]) -> tuple[str, ...] | str:
    """The named texts of one line, or what is wrong with it."""
    row = parse(line)
    if isinstance(row, str):
        return row
    bad = [f for f in fields if not isinstance(row.get(f), str)]
    if bad:
        return f"{', '.join(bad)} missing or not text"
    bad = [f for f in fields if not is_unicode(row[f])]
    return f"{', '.join(bad)} not valid Unicode" if bad else tuple(row[f] for f in fields)


def is_unicode(text: str) -> bool:
    """Whether a text can be written: JSON may hold half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
