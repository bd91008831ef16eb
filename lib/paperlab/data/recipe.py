"""From rows of text to the columns of a log: labels, buckets, numbers, and train, valid or test part.

Everything works on one chunk at a time; the result does not depend on the size of the chunks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from .. import checks
from .sources import Chunk, moments, rejected_rows, splitmix

if TYPE_CHECKING:
    from jaxtyping import Float, Int

TIME = "\0time"  # the parsed time of a row, beside the columns of the source
SAMPLE = 1 << 16  # rows from which quantiles, means and standard deviations are taken
BUCKETS = 32  # at most, of a numeric column
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Recipe:
    """Which columns of a source become what.

    categorical: columns whose values become ids. integers: columns of counts that are bucketised,
    x > 2 to floor(ln(x)^2), and become ids too (the x4 protocol of BARS; missing is a bucket).
    min_count: a value seen less often in the training part is out-of-vocabulary, id 0.
    user: the column whose values are the groups of grouped metrics.
    numeric: columns of numbers. They become ids of at most 32 buckets with equal numbers of training
    rows (0 where missing), or, with ``standardised``, numeric fields of mean 0 and standard deviation
    1 in the training part, within -10..10 (0 where missing). Quantiles, means and deviations are
    those of 65,536 training rows drawn by a hash.
    split: of rows at 8:1:1 by a hash of the line or of the user, or by ``time``: the last tenth is the
    test part, the tenth before it validation.
    threshold: the label is 1 from this number on; None where it is 0/1 or false/true already.
    Raises ValueError for duplicate columns, or when the split lacks its column.
    """

    label: str
    categorical: tuple[str, ...]
    integers: tuple[str, ...] = ()
    min_count: int = 1
    user: str | None = None
    numeric: tuple[str, ...] = ()
    standardised: bool = False
    split: Literal["random", "user", "time"] = "random"
    time: str | None = None
    threshold: float | None = None

    def __post_init__(self):
        names = [self.label, *self.columns, *self.numeric]
        if doubled := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"recipe: duplicate columns: {', '.join(doubled)}")
        checks.whole(min_count=self.min_count)
        checks.one_of(("random", "user", "time"), split=self.split)
        if self.split != "random" and getattr(self, self.split) is None:
            raise ValueError(f"split {self.split!r} needs the option {self.split}")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns whose values are counted: each has a vocabulary."""
        return (*self.integers, *self.categorical)

    @property
    def bucketed(self) -> tuple[str, ...]:
        return () if self.standardised else self.numeric

    @property
    def needed(self) -> set[str]:
        """The columns that a source must have."""
        keys = {self.user, self.time if self.split == "time" else None} - {None}
        return {self.label, *self.columns, *self.numeric, *keys}


def clean(chunk: Chunk, recipe: Recipe) -> tuple[pl.DataFrame, Int[np.ndarray, " n"], list]:
    """Rows that can be used, their lines, and the refused ones.

    The label is "0" or "1", counts are buckets, numeric columns are floats (NaN where missing), and
    the column `TIME` holds the time of a split by time.
    """
    frame = chunk.frame.with_columns(pl.all().fill_null(""))
    truth = label_of(frame[recipe.label], recipe.threshold).cast(pl.String)
    number = "0 or 1" if recipe.threshold is None else "a number"
    bad = [(pl.lit(truth.is_null()), f"label is not {number}")]
    changed = [truth]
    for c in recipe.integers:
        count = pl.col(c).cast(pl.Float64, strict=False)
        whole = count.is_finite() & (count == count.floor()) & (count.abs() < 2**53)
        # "nan", "inf" and "1e400" as well
        bad.append(((pl.col(c) != "") & ~whole.fill_null(False), f"{c} is not a whole number"))
        changed.append(_bucket(count).alias(c))
    for c in recipe.numeric:
        value = pl.col(c).str.strip_chars().cast(pl.Float64, strict=False)
        usable = value.is_finite() & (value.abs() <= LARGEST)
        changed.append(pl.when(usable).then(value).otherwise(float("nan")).alias(c))
    if recipe.split == "time":
        time = pl.lit(moments(frame[recipe.time]))
        bad.append((time.is_null(), f"{recipe.time} is neither a number nor a date"))
        changed.append(time.alias(TIME))
    reason = pl.coalesce(*(pl.when(is_bad).then(pl.lit(why)) for is_bad, why in bad), pl.lit(""))
    reasons = frame.select(reason).to_series()
    keep = reasons == ""
    rejected = chunk.rejected + rejected_rows(frame, chunk.lines, reasons)
    return frame.with_columns(changed).filter(keep), chunk.lines[keep.to_numpy()], rejected


def label_of(texts: pl.Series, threshold: float | None) -> pl.Series:
    """0 and 1 of labels 0, 1, false, true, or of numbers below and from a threshold; null for others."""
    texts = texts.str.strip_chars().str.to_lowercase()
    number = texts.cast(pl.Float64, strict=False)
    if threshold is not None:
        return (
            pl.select(pl.when(number.is_finite()).then(number >= threshold))
            .to_series()
            .cast(pl.Int8)
            .alias(texts.name)
        )
    number = texts.replace_strict({"false": 0.0, "true": 1.0}, default=number)
    return (
        pl.select(pl.when(number.is_in([0.0, 1.0])).then(number))
        .to_series()
        .cast(pl.Int8)
        .alias(texts.name)
    )


def _bucket(count: pl.Expr) -> pl.Expr:
    """A count as it is up to 2, above 2 as floor(ln(x)^2), "missing" where there is none."""
    log = (count.clip(lower_bound=1).log() ** 2).floor().cast(pl.Int64, strict=False)
    return (
        pl.when(count.is_null())
        .then(pl.lit("missing"))
        .when(count <= 2)
        .then(count.cast(pl.Int64, strict=False).cast(pl.String))
        .otherwise("b" + log.cast(pl.String))
    )


# parts -------------------------------------------------------------------------------------------


def parts(
    frame: pl.DataFrame,
    lines: Int[np.ndarray, " n"],
    recipe: Recipe,
    seed: int,
    cuts: Float[np.ndarray, " 2"] | None,
) -> Int[np.ndarray, " n"]:
    """0, 1, 2 for train, valid, test; ``cuts`` are the first times of valid and test."""
    if recipe.split == "time":
        return np.searchsorted(cuts, frame[TIME].to_numpy(), side="right")
    if recipe.split == "random":
        return by_line(lines, seed)
    users = frame[recipe.user]
    known = users.unique()
    hashes = pl.Series([_hash(u, seed) for u in known], dtype=pl.UInt64)
    hashes = users.replace_strict(known, hashes, return_dtype=pl.UInt64).to_numpy()
    return np.where((users == "").to_numpy(), by_line(lines, seed), _eight_one_one(hashes))


def by_line(lines: Int[np.ndarray, " n"], seed: int) -> Int[np.ndarray, " n"]:
    """0, 1, 2 for train, valid, test at 8:1:1 by the line's hash."""
    return _eight_one_one(splitmix(lines, seed))


def _eight_one_one(hashes: np.ndarray) -> Int[np.ndarray, " n"]:
    digit = hashes % np.uint64(10)
    return np.where(digit < 8, 0, digit.astype(np.int64) - 7)


def _hash(text: str, seed: int) -> int:
    digest = hashlib.blake2b(f"{seed} {text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def cut(times: Float[np.ndarray, " n"]) -> Float[np.ndarray, " 2"]:
    """The first times of validation and test, so that each has about a tenth of the rows, the latest.

    Rows of one moment stay in one part. Raises ValueError where there are fewer than three moments.
    """
    if len(moments_ := np.unique(times)) < 3:
        raise ValueError("a split by time needs at least three different times")
    times = np.sort(times)
    test = max(times[int(0.9 * len(times))], moments_[2])
    valid = min(times[int(0.8 * len(times))], moments_[moments_ < test].max())
    return np.array([max(valid, moments_[1]), test])


# numbers -----------------------------------------------------------------------------------------


def sampled(
    sample: pl.DataFrame | None, lines: Int[np.ndarray, " n"], columns: list[pl.Series]
) -> pl.DataFrame:
    """The sample with new rows: those with the smallest hashes of all rows so far."""
    columns = [c.alias(f"x{k}") for k, c in enumerate(columns)]
    new = pl.DataFrame([pl.Series("hash", splitmix(lines, 1)), *columns])
    both = new if sample is None else pl.concat([sample, new])
    return both.sort("hash").head(SAMPLE)


def edges(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " e"]:
    """The upper ends of all buckets but the last: 32 of equal count, fewer for less than 640 values."""
    values = np.sort(values[np.isfinite(values)])
    if not len(values):
        return np.empty(0)
    count = min(max(len(values) // 20, 1), BUCKETS)
    ends = np.unique(values[np.arange(1, count) * len(values) // count])
    return ends[ends < values[-1]]


def bucket_ids(values: Float[np.ndarray, " n"], ends: np.ndarray) -> Int[np.ndarray, " n"]:
    """1 + the number of ends below each value, 0 where it is NaN."""
    return np.where(np.isnan(values), 0, 1 + np.searchsorted(ends, values)).astype(np.int32)


def standardised(
    values: Float[np.ndarray, " n"], sample: Float[np.ndarray, " s"]
) -> Float[np.ndarray, " n"]:
    """(x - mean) / standard deviation of the sample, within -10..10; 0 where x is NaN."""
    sample = sample[np.isfinite(sample)]
    mean, spread = (sample.mean(), sample.std()) if len(sample) else (0.0, 0.0)
    return np.nan_to_num(np.clip((values - mean) / (spread or 1.0), -10, 10))
