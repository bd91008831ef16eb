"""Infer from a sample of rows what each column holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import polars as pl

from ..sources import Files, Source

Names = str | Sequence[str]  # of columns: a list, or one text with commas

ROWS = 20_000  # of the sample
PLACES = 5  # files from which it is taken, where there are several
FEW = 20  # different numbers up to which a column of numbers is categorical
ID = re.compile(  # the last word of a name like user_id, itemId, campaign
    r"(^|[_\W])(ids?|uuid|hash|code|zip|zipcode|user|visitor|customer|session|item|product|sku|video"
    r"|movie|song|article|ad|creative|campaign|advertiser|brand|shop|store|seller|site|app|device"
    r"|category|cate|genre|tag|city|region|country)$|(?-i:[a-z]I[dD]s?)$",
    re.IGNORECASE,
)


class NoColumn(ValueError):
    """An option names a column that is not there."""


@dataclass(frozen=True)
class Column:
    """A column and its role in the log.

    kind: label, user, time, ... (by option), categorical, numeric, dropped, or text, which is refused.
    why: the reason for the kind.
    """

    name: str
    kind: str
    why: str
    distinct: int
    empty: int


def sample(source: Source) -> pl.DataFrame:
    """The first rows of a source; of several files, the first of five of them.

    Raises ValueError where there is no row.
    """
    files = source.sources if isinstance(source, Files) else (source,)
    chosen = files[:: -(-len(files) // PLACES)]
    firsts = [next(islice(f.chunks(), 1), None) for f in chosen]
    rows = [c.frame.select(source.columns).head(ROWS // len(chosen)) for c in firsts if c]
    if not rows or not (frame := pl.concat(rows)).height:
        bad = next((c.rejected[0] for c in firsts if c and c.rejected), None)
        why = f": line {bad[0] + 1}: {bad[1]}" if bad else ""
        raise ValueError(f"no row could be read{why or ': there is none'}")
    return frame.with_columns(pl.all().fill_null(""))


def named(columns: Iterable[str], **options: str | tuple[str, ...] | None) -> None:
    """Check that the columns that options name are there, each named once.

    Raises NoColumn, which lists the columns, and ValueError where two options name one column.
    """
    columns, owner = tuple(columns), {}
    for option, names in options.items():
        for name in (names,) if isinstance(names, str) else names or ():
            flag = f"--{option.replace('_', '-')}"
            if name not in columns:
                raise NoColumn(f"no column {name!r} for {flag}; there are: {', '.join(columns)}")
            if name in owner:
                raise ValueError(f"column {name!r} is named by {owner[name]} and by {flag}")
            owner[name] = flag


def listed(names: Names) -> tuple[str, ...]:
    """Names of columns, in a list or separated by commas."""
    names = names.split(",") if isinstance(names, str) else names
    return tuple(n.strip() for n in names if n.strip())


def columns(
    frame: pl.DataFrame,
    roles: dict[str, str],
    *,
    numeric: tuple[str, ...] = (),
    categorical: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
) -> list[Column]:
    """Every column of a sample with its kind; ``roles`` (column to kind) and lists come first.

    Raises ValueError where a column is said to be numeric and holds no number.
    """
    given = dict.fromkeys(numeric, "numeric") | dict.fromkeys(categorical, "categorical")
    given |= dict.fromkeys(drop, "dropped") | roles
    found = []
    for values in frame:
        kept = values.filter(values.str.strip_chars() != "")
        distinct = values.n_unique()
        if values.name in given:
            kind, why = given[values.name], "by option"
            if (
                kind == "numeric"
                and not kept.str.strip_chars().cast(pl.Float64, strict=False).is_finite().any()
            ):
                raise ValueError(f"--numeric {values.name}: no number in {values.len():,} rows")
        else:
            kind, why = _judged(kept, distinct, values.len())
        found.append(Column(values.name, kind, why, distinct, values.len() - len(kept)))
    return found


def refuse_text(found: list[Column]) -> None:
    """Raise ValueError where a column is text."""
    if texts := [c.name for c in found if c.kind == "text"]:
        names = ",".join(texts)
        raise ValueError(
            f"text cannot be used ({', '.join(texts)}: long, nearly unique, with spaces): "
            f"leave it out by --drop {names}, or take each text as a category by --categorical {names}"
        )


def of_kind(found: list[Column], kind: str) -> tuple[str, ...]:
    return tuple(c.name for c in found if c.kind == kind)


def _judged(values: pl.Series, distinct: int, rows: int) -> tuple[str, str]:
    """Kind and reason of a column, by its values that are not empty."""
    if distinct < 2:
        return "dropped", "constant" if len(values) else "empty"
    words = values.str.strip_chars()
    number = words.cast(pl.Float64, strict=False)
    share = 1 - number.null_count() / len(words)
    finite = number.filter(number.is_finite())
    if share >= 0.95 and len(finite):
        broken = bool((finite != finite.floor()).any())
        if bool(words.str.contains(r"^-?0\d").any()):
            return "categorical", "numbers with leading zeros"
        if not broken and ID.search(values.name):
            return "categorical", "whole numbers, named like ids"
        if distinct <= FEW:
            return "categorical", f"{distinct} different numbers"
        if not broken and distinct == rows >= 1000 and finite.is_sorted():
            return "dropped", "numbers its rows"
        return "numeric", "numbers"
    if distinct > rows / 2 and rows >= 10:
        length, spaced = words.str.len_chars().mean(), words.str.contains(r"\S\s+\S").mean()
        if length > 20 and spaced > 0.5 and not _dates(words):
            return "text", "long, nearly unique, with spaces"
        if distinct == rows >= 1000:
            return "dropped", "another value in every row"
    return "categorical", "dates, as categories" if _dates(words) else "texts that repeat"


def _dates(words: pl.Series) -> bool:
    return bool(words.str.contains(r"^\d{4}-\d\d-\d\d([T ]|$)").all())
