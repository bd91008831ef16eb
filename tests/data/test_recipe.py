"""Labels, times, buckets and parts: worked numbers, and what holds for every column."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.data import recipe
from paperlab.data.sources import Chunk, moments

numbers = st.lists(st.integers(-50, 50), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("text", "threshold", "label"),
    [
        ("0", None, 0), ("1", None, 1), ("1.0", None, 1), (" TRUE", None, 1), ("False", None, 0),
        ("-1", None, None), ("yes", None, None), ("", None, None), ("nan", None, None),
        ("2", None, None), ("4", 4, 1), ("3.9", 4, 0), ("-1", 0.5, 0), ("inf", 4, None),
        ("1e400", 4, None), ("true", 1, None),
    ],
)  # fmt: skip
def test_labels(text, threshold, label):
    assert recipe.label_of(pl.Series([text]), threshold).to_list() == [label]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12", 12), ("-1.5", -1.5), (" 1.7e9 ", 1.7e9), ("nan", None), ("inf", None),
        ("1e400", None), ("", None), ("now", None), ("1970-01-02", 86400),
        ("1970-01-01 00:01", 60), ("1970-01-01 00:00:01.5", 1.5), ("1970-01-01T00:00:07Z", 7),
        ("1970-01-01T02:00:00+02:00", 0), ("1970-01-01 00:00:09.000000 UTC", 9),
        ("1970-13-01", None), ("01/02/1970", None),
    ],
)  # fmt: skip
def test_times(text, seconds):
    assert moments(pl.Series([text])).to_list() == [seconds]


def test_cuts_of_ten_moments_and_of_ties():
    assert recipe.cut(np.arange(10.0)).tolist() == [8, 9]
    assert recipe.cut(np.array([1.0, 2, 3])).tolist() == [2, 3]
    assert recipe.cut(np.repeat([1.0, 2, 3], [1, 1, 98])).tolist() == [2, 3]
    assert recipe.cut(np.repeat([1.0, 2, 3], [98, 1, 1])).tolist() == [2, 3]
    with pytest.raises(ValueError, match="at least three different times"):
        recipe.cut(np.array([1.0, 2, 2, 1]))


@given(numbers.filter(lambda x: len(set(x)) > 2))
def test_parts_by_time_are_in_order_and_none_is_empty(times):
    plan = recipe.Recipe("y", ("a",), split="time", time="t")
    times = np.array(times, float)
    frame = pl.DataFrame({recipe.TIME: times})
    part = recipe.parts(frame, np.arange(len(times)), plan, 0, recipe.cut(times))
    assert set(part) == {0, 1, 2}
    assert times[part == 0].max() < times[part == 1].min()
    assert times[part == 1].max() < times[part == 2].min()
    if len(set(times)) == len(times) >= 30:
        assert (part == 2).sum() == len(times) - int(0.9 * len(times))


def test_parts_by_user_hold_whole_users_at_eight_to_one_to_one():
    plan = recipe.Recipe("y", ("u",), split="user", user="u")
    users = pl.DataFrame({"u": [f"u{k % 4000}" for k in range(12_000)]})
    lines = np.arange(12_000)
    part = recipe.parts(users, lines, plan, 0, None)
    assert (part[:4000] == part[4000:8000]).all() and (part[:4000] == part[8000:]).all()
    assert np.bincount(part[:4000]) / 4000 == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    back = recipe.parts(users[::-1], lines, plan, 0, None)
    assert (back[::-1] == part).all()  # neither lines nor chunks matter
    assert (recipe.parts(users, lines, plan, 1, None) != part).any()
    nobody = pl.DataFrame({"u": [""] * 12_000})
    assert (recipe.parts(nobody, lines, plan, 0, None) == recipe.by_line(lines, 0)).all()


def test_buckets_of_equal_counts():
    values = np.random.default_rng(0).permutation(640) + 1.0
    ends = recipe.edges(values)
    assert ends.tolist() == [20.0 * k + 1 for k in range(1, 32)]
    ids = recipe.bucket_ids(np.array([1.0, 21, 22, 640, 1e9, -5, np.nan]), ends)
    assert ids.tolist() == [1, 1, 2, 32, 32, 1, 0]
    assert recipe.edges(np.array([np.nan] * 50)).tolist() == []
    assert recipe.edges(np.ones(900)).tolist() == []
    assert recipe.edges(np.repeat([0.0, 1.0], 400)).tolist() == [0.0]


@given(numbers)
def test_every_bucket_has_training_rows_and_order_is_kept(values):
    values = np.array(values, float)
    ids = recipe.bucket_ids(values, ends := recipe.edges(values))
    assert set(ids) == set(range(1, len(ends) + 2))
    order = np.argsort(values)
    assert (np.diff(ids[order]) >= 0).all()
    assert all(len(set(ids[values == v])) == 1 for v in values)


def test_standardised_numbers():
    sample = np.array([1.0, 3.0, np.nan])
    got = recipe.standardised(np.array([1.0, 2, 5, 1e30, np.nan]), sample)
    assert got.tolist() == [-1, 0, 3, 10, 0]
    assert recipe.standardised(np.array([2.0, 7]), np.array([2.0, 2.0])).tolist() == [0, 5]
    assert recipe.standardised(np.array([2.0]), np.array([np.nan])).tolist() == [2]


@settings(max_examples=30)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_a_sample_does_not_depend_on_the_chunks(sizes):
    total = sum(sizes)
    column = pl.Series(np.arange(total) * 1.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "SAMPLE", 40)
        sample, start = None, 0
        for size in sizes:
            lines = np.arange(start, start := start + size)
            sample = recipe.sampled(sample, lines, [column[lines.tolist()]])
        whole = recipe.sampled(None, np.arange(total), [column])
    assert sample.equals(whole)
    assert whole.height == min(total, 40)


def test_rows_that_cannot_be_used_and_numbers_that_are_missing():
    frame = pl.DataFrame(
        {
            "y": ["1", "2", "0", "true", None],
            "p": ["1.5", "1", " inf", "1e39", "3"],
            "t": ["5", "5", "6", "soon", "7"],
        }
    )
    plan = recipe.Recipe("y", (), numeric=("p",), split="time", time="t")
    chunk = Chunk(frame, np.arange(10, 15), [(3, "before", "x")], 0, 0)
    good, lines, rejected = recipe.clean(chunk, plan)
    assert lines.tolist() == [10, 12]
    assert good["y"].to_list() == ["1", "0"]
    assert str(good["p"].to_list()) == "[1.5, nan]"
    assert good[recipe.TIME].to_list() == [5, 6]
    assert [r[:2] for r in rejected] == [
        (3, "before"),
        (11, "label is not 0 or 1"),
        (13, "t is neither a number nor a date"),
        (14, "label is not 0 or 1"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "time"}, "split 'time' needs the option time"),
        ({"split": "user"}, "split 'user' needs the option user"),
        ({"split": "luck"}, "split must be one of random, user, time, not 'luck'"),
        ({"numeric": ("a",)}, "duplicate columns: a"),
        ({"min_count": 0}, "min_count must be at least 1"),
    ],
)
def test_recipes_that_cannot_be_followed(options, message):
    with pytest.raises(ValueError, match=message):
        recipe.Recipe("y", ("a",), **options)
