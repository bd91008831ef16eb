"""Labels of rows of text: amounts, funnels, late conversions, events; and why a row has none.

Each kind is a function of some columns' names and a table of texts. It gives one column a label and a
reason for each row, "" where the row can be used; labels of other rows mean nothing.
"""

from __future__ import annotations

from itertools import pairwise

import polars as pl

from ..recipe import LARGEST, label_of
from ..sources import moments

DAY = 86_400  # seconds
NONE = ("", "null", "none", "nan", "nat")  # texts of a time that is not there


def amount(column: str, length: str | None, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """Numbers of at least 0; a length, where it is known, is above 0."""
    value = number(frame[column])
    wrong = [(value.is_null(), f"{column} is no number"), (value < 0, f"{column} is below 0")]
    if length:
        wrong.append((number(frame[length]) <= 0, f"{length} is not above 0"))
    return value.alias(column).to_frame(), _reasons(frame.height, wrong)


def funnel(columns: tuple[str, ...], frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """Labels of 0 and 1, none of which is above the one before it."""
    labels = [label_of(frame[name], None) for name in columns]
    wrong = [(y.is_null(), f"{y.name} is not 0 or 1") for y in labels]
    wrong += [(b > a, f"{b.name} without {a.name}") for a, b in pairwise(labels)]
    return pl.DataFrame(labels), _reasons(frame.height, wrong)


def event(
    user: str, item: str, time: str, label: str | None, frame: pl.DataFrame
) -> tuple[pl.DataFrame, pl.Series]:
    """0 and 1 of what a user did with an item at a time; 1 for all without a label."""
    one = pl.repeat(1, frame.height, eager=True, dtype=pl.Int8).alias("event")
    known = one if label is None else label_of(frame[label], None)
    wrong = [(frame[c].str.strip_chars() == "", f"{c} is empty") for c in (user, item)]
    wrong.append((seconds(frame[time]).is_null(), f"{time} is no time"))
    wrong.append((known.is_null(), f"{label} is not 0 or 1"))
    return known.to_frame(), _reasons(frame.height, wrong)


def candidate(
    request: str, user: str, item: str, time: str, label: str, frame: pl.DataFrame
) -> tuple[pl.DataFrame, pl.Series]:
    """0 and 1 of an item that was shown to a user in a request."""
    known, reasons = event(user, item, time, label, frame)
    empty = pl.when(frame[request].str.strip_chars() == "").then(pl.lit(f"{request} is empty"))
    return known, pl.select(empty.otherwise(reasons)).to_series()


def delay(
    click: str,
    conversion: str,
    time: str | None,
    end: str | float,
    days: int,
    young: str,
    frame: pl.DataFrame,
) -> tuple[pl.DataFrame, pl.Series]:
    """The labels that `outcomes.delays` describes.

    end: a column, or seconds. young: the reason of a row whose ``days`` days are not over.
    """
    clicked, bought = seconds(frame[click]), seconds(frame[conversion])
    ends = seconds(frame[end]) if isinstance(end, str) else pl.repeat(end, frame.height, eager=True)
    shown = seconds(frame[time]) if time else clicked
    no_click, no_purchase = (
        frame[c].str.strip_chars().str.to_lowercase().is_in(NONE) for c in (click, conversion)
    )
    first = clicked.zip_with(clicked.is_not_null(), shown)
    age, left = ((ends - at) // DAY for at in (first, bought))  # whole days before the end
    late = age - left
    wrong = [
        (clicked.is_null() & ~(no_click & (time is not None)), f"{click} is no time"),
        (bought.is_null() & ~no_purchase, f"{conversion} is no time"),
        (ends.is_null(), f"{end} is no time"),
        (shown.is_null(), f"{time} is no time"),
        (no_click & ~no_purchase, f"{conversion} without {click}"),
        (clicked < shown, f"{click} before {time}"),
        (bought < clicked, f"{conversion} before {click}"),
        (first > ends, f"{click} after the end"),
        (bought > ends, f"{conversion} after the end"),
        (age < days, young),
    ]
    within = ~no_purchase & (late <= days).fill_null(False)
    labels = {
        click: ~no_click,
        conversion: within,
        f"days to {conversion}": pl.select(pl.when(within).then(late).otherwise(0)).to_series(),
        f"days since {click}": (age - days).clip(0, days),
    }
    labels = {name: values.cast(pl.Float64) for name, values in labels.items()}
    return pl.DataFrame(labels), _reasons(frame.height, wrong)


def seconds(texts: pl.Series) -> pl.Series:
    """Times in seconds, from seconds, milliseconds (above 1e11), microseconds (above 1e14) or ISO dates.

    Null for other texts.
    """
    time = moments(texts)
    milli, micro = time / 1e3, time / 1e6
    return micro.zip_with(time > 1e14, milli.zip_with(time > 1e11, time))


def number(texts: pl.Series) -> pl.Series:
    """Numbers; null for other texts and where one is not finite or too large for 32 bits."""
    value = texts.str.strip_chars().cast(pl.Float64, strict=False)
    return pl.select(pl.when(value.is_finite() & (value.abs() <= LARGEST)).then(value)).to_series()


def _reasons(rows: int, wrong: list[tuple[pl.Series, str]]) -> pl.Series:
    """The first reason that holds for each row, else ""."""
    reasons = pl.Series([""] * rows, dtype=pl.String)
    for is_wrong, why in reversed(wrong):
        reasons = pl.select(pl.when(is_wrong).then(pl.lit(why)).otherwise(reasons)).to_series()
    return reasons
