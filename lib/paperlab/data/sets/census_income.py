"""Census-Income (KDD): does a person earn more than 50,000 dollars?"""

from __future__ import annotations

import polars as pl

from .. import fetch, prepare
from ..catalogue import Entry
from ..formats import parquet
from ..recipe import Recipe
from ..sources import FrameSource
from ..store import Log

AMOUNTS = ("wage_per_hour", "capital_gains", "capital_losses", "stock_dividends")
COLUMNS = (
    "age", "class_worker", "det_ind_code", "det_occ_code", "education", "wage_per_hour",
    "hs_college", "marital_stat", "major_ind_code", "major_occ_code", "race", "hisp_origin", "sex",
    "union_member", "unemp_reason", "full_or_part_emp", "capital_gains", "capital_losses",
    "stock_dividends", "tax_filer_stat", "region_prev_res", "state_prev_res", "det_hh_fam_stat",
    "det_hh_summ", "instance_weight", "mig_chg_msa", "mig_chg_reg", "mig_move_reg", "mig_same",
    "mig_prev_sunbelt", "num_emp", "fam_under_18", "country_father", "country_mother",
    "country_self", "citizenship", "own_or_self", "vet_question", "vet_benefits", "weeks_worked",
    "year", "income_50k",
)  # fmt: skip


def load(entry: Entry, *, min_count: int = 1, seed: int = 0) -> Log:
    """The official test part as a log; amounts of money are bucketised as counts.

    min_count: occurrences below which a value has no id of its own.
    """
    if fetch.local_form(entry):
        (frame,) = parquet.local(entry)
    else:
        path = fetch.official(entry, entry.files[0].name)
        with fetch.reading(path):
            frame = pl.read_csv(path, has_header=False, new_columns=COLUMNS)
    frame = frame.with_columns(
        pl.col("income_50k").cast(pl.String).str.contains("50000+", literal=True).cast(pl.Int8)
    ).drop("instance_weight")
    frame = frame.with_columns(pl.col(pl.String).str.strip_chars())
    frame = frame.with_columns(pl.col(a).cast(pl.Int64, strict=False) for a in AMOUNTS)
    features = tuple(c for c in frame.columns if c != "income_50k" and c not in AMOUNTS)
    recipe = Recipe("income_50k", features, AMOUNTS, min_count)
    return prepare.load(entry, FrameSource(frame), recipe, seed)
