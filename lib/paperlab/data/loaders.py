"""Loaders of the real data sets: official files or local forms to a `Log`, prepared once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from . import catalogue, fetch, movielens, sequence_loaders
from .prepare import FrameSource, Recipe, TextSource, prepare
from .schema import Field, Schema
from .store import Log, from_arrays, open_store

VERSION = 1  # raise when a loader's result changes: prepared stores are then made anew

CRITEO = tuple(f"i{k}" for k in range(1, 14)), tuple(f"c{k}" for k in range(1, 27))


def load(name: str, **options) -> Log:
    """A real data set as a log in three parts, prepared at the first call and mapped afterwards.

    name: a key of data/catalogue.toml. options: ``min_count`` (>= 1) for the Criteo sets, Avazu and
    census-income; ``split="nfm"`` for frappe; ``seed`` for the split of 8:1:1 by row number. Sets of
    histories: see `sequence_loaders.load`.
    Raises ValueError for an unknown name or option, FileNotFoundError when the files are neither
    here nor to be had, with where to get them and where to put them.
    """
    entry = catalogue.entry(name)
    if name in sequence_loaders.MAKERS:
        return sequence_loaders.load(entry, cache_root(), **options)
    if name not in MAKERS:
        known = ", ".join(sorted((*MAKERS, *sequence_loaders.MAKERS)))
        raise ValueError(f"{name} is not read as a log; these are: {known}")
    maker = MAKERS[name]
    allowed = maker.__code__.co_varnames[2 : maker.__code__.co_argcount]
    wrong = sorted(set(options) - {*allowed, "seed"})
    if wrong:
        raise ValueError(f"{name} takes {', '.join((*allowed, 'seed'))}, not {', '.join(wrong)}")
    if options.get("min_count", 1) < 1:
        raise ValueError(f"min_count must be at least 1, got {options['min_count']}")
    seed = options.pop("seed", 0)
    made = maker(entry, seed, **options)
    if isinstance(made, Log):
        return made
    source, recipe = made
    key = json.dumps([VERSION, name, seed, repr(recipe), source.stamp])
    folder = cache_root() / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
    if not (folder / "schema.json").is_file():
        notes = {"title": entry.title, "terms": entry.terms, "citation": entry.citation}
        prepare(source, recipe, folder, notes, seed)
    return open_store(folder, name)


def cache_root() -> Path:
    """PAPERLAB_CACHE, or data/cache of the project."""
    return Path(os.environ.get("PAPERLAB_CACHE") or catalogue.data_root() / "cache")


def _criteo(entry, seed, min_count: int = 10):
    integers, categorical = CRITEO
    recipe = Recipe("label", categorical, integers, min_count)
    found = fetch.local_form(entry)
    if found:
        return FrameSource(pl.read_parquet(next(iter(found.values())))), recipe
    if not entry.files:
        raise fetch.missing(entry)
    path = fetch.official(entry, entry.files[0].name)
    return TextSource(path, ("label", *integers, *categorical)), recipe


def _criteo_small(entry, seed, min_count: int = 2):
    return _criteo(entry, seed, min_count)


def _avazu(entry, seed, min_count: int = 2):
    path = fetch.official(entry, "train.gz")
    names = [
        "id",
        "click",
        "hour",
        "C1",
        "banner_pos",
        "site_id",
        "site_domain",
        "site_category",
        "app_id",
        "app_domain",
        "app_category",
        "device_id",
        "device_ip",
        "device_model",
        "device_type",
        "device_conn_type",
        "C14",
        "C15",
        "C16",
        "C17",
        "C18",
        "C19",
        "C20",
        "C21",
    ]
    keep = tuple(n for n in names if n not in ("id", "click", "hour"))
    recipe = Recipe("click", ("hour", "weekday", "weekend", *keep), min_count=min_count)
    return AvazuSource(path, tuple(names), separator=",", header=True), recipe


class AvazuSource(TextSource):
    """Avazu's rows with ``hour`` (YYMMDDHH) taken apart into hour, weekday and weekend."""

    def chunks(self, position: int = 0, line: int = 0):
        from dataclasses import replace

        for chunk in super().chunks(position, line):
            day = pl.col("hour").str.slice(0, 6).str.to_date("%y%m%d", strict=False).dt.weekday()
            frame = chunk.frame.with_columns(
                day.cast(pl.String).alias("weekday"),
                (day >= 6).cast(pl.Int8).cast(pl.String).alias("weekend"),
                pl.col("hour").str.slice(6, 2),
            )
            yield replace(chunk, frame=frame)


def _census(entry, seed, min_count: int = 1):
    found = fetch.local_form(entry)
    if found:
        frame = pl.read_parquet(next(iter(found.values())))
    else:
        frame = pl.read_csv(
            fetch.official(entry, "census-income.test.gz"), has_header=False, new_columns=_CENSUS
        )
    frame = frame.with_columns(
        pl.col("income_50k").cast(pl.String).str.contains("50000+", literal=True).cast(pl.Int8)
    ).drop("instance_weight")
    frame = frame.with_columns(pl.col(pl.String).str.strip_chars())
    amounts = ("wage_per_hour", "capital_gains", "capital_losses", "stock_dividends")
    frame = frame.with_columns(pl.col(a).cast(pl.Int64, strict=False) for a in amounts)
    features = tuple(c for c in frame.columns if c != "income_50k" and c not in amounts)
    return FrameSource(frame), Recipe("income_50k", features, amounts, min_count)


_CENSUS = [
    "age",
    "class_worker",
    "det_ind_code",
    "det_occ_code",
    "education",
    "wage_per_hour",
    "hs_college",
    "marital_stat",
    "major_ind_code",
    "major_occ_code",
    "race",
    "hisp_origin",
    "sex",
    "union_member",
    "unemp_reason",
    "full_or_part_emp",
    "capital_gains",
    "capital_losses",
    "stock_dividends",
    "tax_filer_stat",
    "region_prev_res",
    "state_prev_res",
    "det_hh_fam_stat",
    "det_hh_summ",
    "instance_weight",
    "mig_chg_msa",
    "mig_chg_reg",
    "mig_move_reg",
    "mig_same",
    "mig_prev_sunbelt",
    "num_emp",
    "fam_under_18",
    "country_father",
    "country_mother",
    "country_self",
    "citizenship",
    "own_or_self",
    "vet_question",
    "vet_benefits",
    "weeks_worked",
    "year",
    "income_50k",
]


def _movielens(entry, seed, min_count: int = 1):
    """Clicks are ratings of 4 and 5; the hour and the weekday are UTC."""
    ratings, users, items = movielens.tables(entry)
    time = pl.from_epoch("timestamp")
    frame = (
        ratings.join(users, on="user_id", how="left")
        .join(items.select("item_id", "genres"), on="item_id", how="left")
        .sort("timestamp", "user_id", "item_id")
        .select(
            "user_id", "item_id", "gender", "age", "occupation", "zip",
            movielens.FIRST_GENRE.alias("genre"),
            time.dt.hour().alias("hour"), time.dt.weekday().alias("weekday"),
            (pl.col("rating") >= 4).cast(pl.Int8).alias("label"),
        )
    )  # fmt: skip
    features = tuple(c for c in frame.columns if c != "label")
    return FrameSource(frame), Recipe("label", features, min_count=min_count, user="user_id")


def _frappe(entry, seed, split: str = "sampled"):
    """Positives of the log, each with two apps that its user never used, in the same context.

    split="nfm": the rows and the split of NFM's published files instead.
    """
    if split == "nfm":
        return _frappe_nfm(entry)
    if split != "sampled":
        raise ValueError(f"frappe: split is sampled or nfm, not {split!r}")
    found = fetch.local_form(entry)
    if not found:
        raise fetch.missing(entry)
    log = pl.read_parquet(found["frappe_log.parquet"])
    used = set(zip(log["user"].to_list(), log["item"].to_list(), strict=True))
    items = np.sort(log["item"].unique().to_numpy())
    draw = np.random.default_rng([seed, 7])
    users = np.repeat(log["user"].to_numpy(), 2)
    drawn = draw.choice(items, len(users))
    again = np.flatnonzero(
        [pair in used for pair in zip(users.tolist(), drawn.tolist(), strict=True)]
    )
    while len(again):
        drawn[again] = draw.choice(items, len(again))
        again = again[
            [
                pair in used
                for pair in zip(users[again].tolist(), drawn[again].tolist(), strict=True)
            ]
        ]
    features = [c for c in log.columns if c != "cnt"]
    negatives = log.select(features)[np.repeat(np.arange(log.height), 2)]
    negatives = negatives.with_columns(pl.Series("item", drawn), label=pl.lit(0))
    frame = pl.concat([log.select(features).with_columns(label=pl.lit(1)), negatives])
    return FrameSource(frame), Recipe("label", tuple(features), user="user")


def _frappe_nfm(entry) -> Log:
    parts = []
    for k, file in enumerate(entry.files):
        rows = [line.split() for line in fetch.official(entry, file.name).read_text().splitlines()]
        ids = np.array([[int(cell.split(":")[0]) for cell in row[1:]] for row in rows])
        parts.append((ids, np.array([float(row[0]) > 0 for row in rows]), np.full(len(rows), k)))
    ids, labels, part = (np.concatenate(column) for column in zip(*parts, strict=True))
    fields, local = [], np.zeros_like(ids)
    for c in range(ids.shape[1]):
        known = np.unique(ids[part == 0, c])
        place = np.searchsorted(known, ids[:, c]).clip(max=len(known) - 1)
        local[:, c] = np.where(known[place] == ids[:, c], place + 1, 0)
        fields.append(Field(f"f{c + 1}", size=len(known) + 1))
    schema = Schema(tuple(fields), user="f1")
    return from_arrays("frappe-nfm", schema, local, labels[:, None], part)


MAKERS: dict[str, Callable] = {
    "frappe": _frappe,
    "movielens-100k": _movielens,
    "movielens-1m": _movielens,
    "movielens-1m-sample100k": _movielens,
    "criteo-kaggle": _criteo,
    "criteo-kaggle-10k": _criteo_small,
    "criteo-terabyte": _criteo,
    "criteo-terabyte-80k": _criteo_small,
    "avazu": _avazu,
    "census-income": _census,
}
