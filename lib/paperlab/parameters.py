"""Typed parameters of a notebook, read from its one cell tagged ``parameters``.

The cell has one parameter a line, or over several lines for a long list:

    name: type = literal  # meaning (unit, lowest..highest)

The range, or either end of it, may be missing. Its ends are written like 10, 1_000, 1,000, -0.5 or
1e-5. A range that cannot be read is refused: it would otherwise bound nothing, or something else.
"""

from __future__ import annotations

import ast
import difflib
import io
import json
import math
import re
import tokenize
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

TYPES = {"int": int, "float": float, "str": str, "bool": bool}
LONGEST = 10_000  # of a list written as first..last
NUMBER = r"[-+]?(?:\d[\d_]*(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?"
# at a comment's end; a digit before the blank or comma may belong to the number: 1 000..2 000, 0,5..1
RANGE = re.compile(rf"(?:^|\(|(?<!\d)[\s,])({NUMBER})?\s*\.\.(?!\.)\s*({NUMBER})?\)?\s*$")
LIKE_A_RANGE = re.compile(r"\([^()]*(?:\d\s*\.\.|\.\.\s*[-+]?\d)[^()]*\)")


class BadInput(ValueError):
    """A user's mistake: one line that names what is right."""


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell. ``low`` and ``high`` bound numbers, also inside lists."""

    name: str
    type: str
    default: Any
    meaning: str
    low: float | None = None
    high: float | None = None

    @property
    def span(self) -> str:
        """The range as text, like 1..10,000 or 0..; empty where there is none."""
        low, high = ("" if v is None else f"{v:,.10g}" for v in (self.low, self.high))
        return f"{low}..{high}" if low or high else ""

    @property
    def words(self) -> str:
        """The meaning without the range; a unit stays, in brackets."""
        found = RANGE.search(self.meaning)
        if not found:
            return self.meaning
        text = self.meaning[: found.start()].rstrip(" ,(")
        return f"{text})" if text.count("(") > text.count(")") else text

    def cast(self, text: Any) -> Any:
        """A value from the command line or from a manifest; raises BadInput."""
        inside = self.type.removeprefix("list[").removesuffix("]")
        value = text
        if isinstance(text, str) and self.type != "str":
            span = re.fullmatch(r"(\d{1,12})\.\.(\d{1,12})", text)
            if span and self.type == "list[int]":
                first, last = int(span[1]), int(span[2])
                if not 0 <= last - first < LONGEST:
                    raise self._bad(text)
                value = list(range(first, last + 1))
            else:
                value = _literal(text)
        if inside != self.type and isinstance(value, (list, tuple)):
            value = [self._one(v, inside, text) for v in value]
            if not value and self.default:  # only what is empty by default may be empty
                raise self._bad(text)
        elif inside != self.type:
            raise self._bad(text)
        else:
            value = self._one(value, inside, text)
        if isinstance(value, list) and (self.name == "seeds" or inside == "str"):
            twice = [v for v, n in Counter(value).items() if n > 1]
            if twice:  # equal seeds are one run, not two of evidence
                which = str(twice[0])[:60]
                raise BadInput(f"{self.name}={str(text)[:60]}: {which!r} is repeated")
        return value

    def _one(self, value: Any, kind: str, text: Any) -> Any:
        wanted = TYPES[kind]
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            try:
                value = float(value)
            except OverflowError:
                raise self._bad(text) from None
        if type(value) is not wanted:
            raise self._bad(text)
        if wanted in (int, float):
            inside = (self.low is None or value >= self.low) and (
                self.high is None or value <= self.high
            )
            if not inside or (wanted is float and not math.isfinite(value)):
                raise self._bad(text)
        return value

    def _bad(self, text: Any) -> BadInput:
        span = f" in {self.span}" if self.span else ""
        return BadInput(
            f"{self.name}={str(text)[:60]}: {self.name} takes {self.type}{span}, like {self.default!r}"
        )


def inspect(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook by name; raises BadInput for a cell that is not as described above."""
    return _parameters(notebook.name, notebook.read_bytes()).copy()


@lru_cache(maxsize=16)  # a sweep inspects one text at every run, and tests at every value
def _parameters(name: str, text: bytes) -> dict[str, Parameter]:
    """`inspect` of a file's name and text."""
    try:
        cells = json.loads(text)["cells"]
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{name} is not a notebook: its JSON has no cells") from None
    cells = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise BadInput(f"{name}: {len(cells)} cells tagged parameters, there must be one")
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(cells[0]).readline))
        lines = ast.parse(cells[0]).body
    except (SyntaxError, tokenize.TokenError) as error:
        raise BadInput(f"{name}, parameters: not Python: {error.args[0]}") from None
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    found: dict[str, Parameter] = {}
    spent: set[int] = set()  # lines whose comments belong to a parameter
    for line in lines:
        typed = isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        kind = ast.unparse(line.annotation) if typed else ""
        if kind.removeprefix("list[").removesuffix("]") not in TYPES or line.value is None:
            raise BadInput(
                f"{name}, parameters: '{ast.unparse(line)}' is not 'name: type = literal' "
                f"with a type of {', '.join(TYPES)} or list[...] of one"
            )
        known = line.target.id
        where = f"{name}, parameters: {known}"
        if known.lower() in map(str.lower, found) or line.lineno in spent:
            raise BadInput(f"{where}: write one parameter a line, each name once")
        own = [comments[n] for n in (line.lineno, line.end_lineno) if n in comments]
        spent |= {line.lineno, line.end_lineno}
        ranged = [c for c in dict.fromkeys(own) if RANGE.search(c)]
        low, high = _range(where, ranged, own)
        try:
            default = ast.literal_eval(line.value)
        except (ValueError, TypeError):
            raise BadInput(f"{where} is not a literal") from None
        found[known] = Parameter(known, kind, default, [*ranged, *own[::-1], ""][0], low, high)
        found[known].cast(default)
    for number, comment in comments.items():
        if number not in spent and (RANGE.search(comment) or LIKE_A_RANGE.search(comment)):
            raise BadInput(
                f"{name}, parameters: '{comment[:60]}' is a range, but follows no parameter's value"
            )
    return found


def _range(where: str, ranged: list[str], own: list[str]) -> tuple[float | None, float | None]:
    """Both ends of the one range in a parameter's comments."""
    if len(ranged) > 1:
        raise BadInput(f"{where}: two ranges, '{ranged[0][:60]}' and '{ranged[1][:60]}'")
    if not ranged:
        if unread := next(filter(LIKE_A_RANGE.search, own), None):
            raise BadInput(
                f"{where}: the range in '{unread[:80]}' cannot be read: end the comment with "
                "(unit, lowest..highest), like (rows, 10..1_000), (1e-5..0.1) or (..1e6)"
            )
        return None, None
    low, high = (float(re.sub("[_,]", "", g)) if g else None for g in RANGE.search(ranged[0]).groups())  # fmt: skip
    if any(v is not None and math.isinf(v) for v in (low, high)):
        raise BadInput(f"{where}: an end of '{ranged[0][:80]}' is too large for a float")
    if None not in (low, high) and low > high:
        raise BadInput(f"{where}: the range in '{ranged[0][:80]}' is empty: its ends are reversed")
    return low, high


def pick(known: dict[str, Parameter], name: str, slug: str) -> Parameter:
    """The parameter of that name, in whatever case; raises BadInput with the nearest one."""
    match = next((n for n in known if n.lower() == str(name).lower()), None)
    if match is None:
        near = difflib.get_close_matches(str(name).lower(), known, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise BadInput(f"{slug} has no parameter {name!r}{hint}; it has: {', '.join(known)}")
    return known[match]


def as_text(value: Any) -> str:
    """A value as one writes it after --set; whole numbers in a row as first..last."""
    if type(value) is list and len(value) > 2 and all(type(v) is int and v >= 0 for v in value):
        first, last = value[0], value[-1]
        if value == list(range(first, last + 1)):
            return f"{first}..{last}"
    if isinstance(value, str) and value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _literal(text: str) -> Any:
    """A value as `_word` reads it; a list may hold words without quotes (shells remove them), no lists."""
    value = _word(text)
    if value == text and re.fullmatch(r"\[[^][{}'\"]*\]", text):
        return [_word(part.strip()) for part in text[1:-1].split(",") if part.strip()]
    return value


def _word(text: str) -> Any:
    """A Python literal, true or false in whatever case, or the text itself."""
    try:
        with warnings.catch_warnings():  # of odd escapes and numbers: only the value matters
            warnings.simplefilter("ignore")
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text.lower() == "true" if text.lower() in ("true", "false") else text
