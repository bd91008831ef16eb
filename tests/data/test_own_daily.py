"""Clicks by day and streams of one's own: earlier days, order, ids, and what is refused."""

import numpy as np
import polars as pl
import pytest
from helpers.own_files import written
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import data
from paperlab.data import sources
from paperlab.data.own import daily, shelf
from paperlab.feedback import real_videos

NOW, DAY = 1_700_000_000 // 86_400 * 86_400, 86_400
PARTS = ("train", "valid", "test")
OURS = {"user": "who", "item": "what", "time": "ts", "user_fields": "city", "min_count": 1}


def clicks(rows: int = 500, days: int = 8, seed: int = 0) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    who = draw.integers(0, 25, rows)
    return pl.DataFrame(
        {
            "who": [f"u{k}" for k in who],
            "what": draw.integers(0, 15, rows),
            "ts": NOW + draw.integers(0, days * DAY, rows),
            "city": draw.choice(list("abcd"), 25)[who],
            "topic": draw.choice(list("xyz"), rows),
            "price": draw.exponential(20, rows).round(2),
            "click": (draw.random(rows) < 0.4).astype(int),
        }
    )


def slow(frame: pl.DataFrame, key: str) -> list[tuple[float, float]]:
    """Rows of the same key on earlier days, and the share with a click; row by row."""
    found, rows = [], frame.to_dicts()
    for row in rows:
        before = [
            r["click"] for r in rows if r[key] == row[key] and r["ts"] // DAY < row["ts"] // DAY
        ]
        found.append((len(before), sum(before) / len(before)) if before else (np.nan, np.nan))
    return found


def test_earlier_days_against_a_slow_version():
    frame = clicks(200)
    for key in ("who", "what"):
        table = frame.select(key=key, day=pl.col("ts") // DAY, label="click")
        np.testing.assert_allclose(daily.earlier(table).to_numpy(), slow(frame, key))


def test_earlier_days_are_those_of_the_notebooks_real_section():
    """`real_videos.past_days`, whose columns have other names and whose days are dates."""
    frame = clicks(300).with_columns(day=pl.col("ts") // DAY)
    events = frame.select(
        "day", user_id="who", date="day", is_click="click", long_view="click", is_comment="click"
    )
    theirs = events.join(
        real_videos.past_days(events, "user_id"), on=["user_id", "date"], maintain_order="left"
    )
    mine = daily.earlier(frame.select(key="who", day="day", label="click"))
    names = ["past_user_id_rows", "past_user_id_is_click"]
    expected = theirs.select(pl.col(names).cast(float).fill_null(np.nan))
    np.testing.assert_allclose(mine.to_numpy(), expected.to_numpy())


def test_days_fields_and_sides():
    frame = clicks()
    log = data.from_frame(frame, "daily", days=2, **OURS)
    day = (frame["ts"] // DAY).to_numpy()
    last = sorted(set(day))
    counts = [(day < last[-3]).sum(), (day == last[-3]).sum(), (day >= last[-2]).sum()]
    assert [len(getattr(log, part)) for part in PARTS] == counts
    past = ["past who rows", "past who click", "past what rows", "past what click"]
    assert [f.name for f in log.schema.fields] == ["city", "topic", "price", *past]
    assert log.schema.labels == ("click",)
    assert log.notes["side"] == ["city", *past[:2]]
    assert log.notes["statistics"] == ["price", *past]
    keys = {u: k for k, u in enumerate(sorted(set(frame["who"])))}
    tested = frame.filter(day >= last[-2])
    assert log.user("test").tolist() == [keys[u] for u in tested["who"]]
    first = frame.filter(day == last[0]).height  # nothing is known on a key's first day
    assert (log.train.ids[:, 3] == 0).sum() >= first
    more = log.train.ids[:, 3].max()
    assert log.test.ids[:, 3].float().mean() > more / 2  # rows so far grow with the days


def test_a_later_day_changes_no_earlier_row():
    frame = clicks()
    day = pl.col("ts") // DAY
    other = frame.with_columns(
        click=pl.when(day == day.max()).then(1 - pl.col("click")).otherwise("click")
    )
    a, b = (data.from_frame(f, "daily", **OURS) for f in (frame, other))
    for part in PARTS:
        assert getattr(a, part).ids.equal(getattr(b, part).ids)
    assert not a.test.labels.equal(b.test.labels)


def test_reasons_and_clocks(tmp_path):
    frame = clicks().cast(pl.String)
    odd = [("u1", "1", "soon", "a", "x", "1", "0"), ("", "1", str(NOW), "a", "x", "1", "0")]
    odd += [("u1", " ", str(NOW), "a", "x", "1", "0"), ("u1", "1", str(NOW), "a", "x", "1", "2")]
    path = written(
        pl.concat([pl.DataFrame(odd, frame.schema, orient="row"), frame]), tmp_path, "csv"
    )
    made = shelf.add([path], "daily", **OURS)
    assert made.reasons() == {
        "ts is no time": 1, "who is empty": 1, "what is empty": 1, "click is not 0 or 1": 1,
    }  # fmt: skip
    milli = clicks().with_columns(pl.col("ts") * 1000)
    plain, same = data.load(made.name), data.from_frame(milli, "daily", **OURS)
    assert plain.test.ids.equal(same.test.ids)


EVENTS = {"user": "who", "item": "what", "time": "ts"}


def test_a_stream_is_in_the_order_of_time_and_of_the_file():
    frame = {"who": ["b", "a", "b", "c"], "what": [7, 7, 30, 7], "ts": [5, 9, 5, 1]}
    stream = data.from_frame(frame, "stream", name="x", **EVENTS)
    assert stream.pairs.tolist() == [[3, 2], [2, 2], [2, 1], [1, 2]]  # "30" before "7": texts
    assert stream.labels is None
    assert repr(stream) == "EventStream(x: 4 events, 3 users, 2 items)"
    labelled = data.from_frame(frame | {"y": [1, 0, 1, 0]}, "stream", label="y", **EVENTS)
    assert labelled.pairs.tolist() == stream.pairs.tolist()
    assert labelled.labels.tolist() == [0, 1, 1, 0]
    assert repr(labelled) == "EventStream(frame: 4 rows with labels, 3 users, 2 items)"


@pytest.mark.parametrize("kind", ["daily", "stream"])
def test_bytes_do_not_depend_on_chunks(tmp_path, monkeypatch, kind):
    path = written(clicks(), tmp_path, "csv")
    path.write_text(path.read_text() + "torn\n")
    options = OURS if kind == "daily" else EVENTS | {"label": "click"}

    def add(name: str) -> dict[str, bytes]:
        folder = shelf.add([path], kind, name=name, **options).folder
        return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}

    whole = add("whole")
    monkeypatch.setattr(sources, "CHUNK_BYTES", 1500)
    assert len([*sources.TextSource.with_header(path, ()).chunks()]) > 2
    assert add("chunks") == whole and "rejected.tsv" in whole


def test_a_stream_from_a_file_is_that_of_the_table(tmp_path):
    made = shelf.add([written(clicks(), tmp_path, "jsonl.gz")], "stream", **EVENTS)
    stream, same = data.load(made.name), data.from_frame(clicks(), "stream", **EVENTS)
    assert (data.kind(made.name), made.notes["rows"]) == ("stream", 500)
    assert (stream.pairs == same.pairs).all()


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(*[st.integers(0, 5)] * 4), min_size=1, max_size=40))
def test_a_stream_keeps_every_row_in_order(rows):
    frame = {k: [r[i] for r in rows] for i, k in enumerate(("user", "item", "time"))}
    stream = data.from_frame(frame, "stream")
    ids = [{v: k for k, v in enumerate(sorted({r[i] for r in rows}), 1)} for i in (0, 1)]
    wanted = [[ids[0][r[0]], ids[1][r[1]]] for r in sorted(rows, key=lambda r: r[2])]
    assert stream.pairs.tolist() == wanted


SOME = clicks(60).to_dict(as_series=False)


@pytest.mark.parametrize(
    ("kind", "frame", "options", "message"),
    [
        ("daily", SOME, OURS | {"days": 0}, "days must be at least 1, got 0"),
        ("daily", SOME, OURS | {"days": 6}, "^8 days are too few: 6 to test, 2 to validate and two to train"),
        ("daily", SOME, OURS | {"label": "price"}, "60 of the first 60 rows cannot be used: price is not 0 or 1"),
        ("daily", SOME, OURS | {"user_fields": "town"}, "--user-fields town: no field; there are: city, topic, price"),
        ("daily", SOME, OURS | {"time": "when"}, "no column 'when' for --time; there are: who, what, ts"),
        ("daily", SOME | {"click": [1] * 60}, OURS, "all .. rows of the train part have click 1: nothing can be"),
        ("stream", SOME, EVENTS | {"time": "city"}, "60 of the first 60 rows cannot be used: city is no time"),
        ("stream", SOME | {"click": [1] * 60}, EVENTS | {"label": "click"}, "all 60 rows have click 1: .* leave --label out"),
        ("stream", SOME, EVENTS | {"item": "sku"}, "no column 'sku' for --item; there are: who, what"),
        ("stream", SOME, EVENTS | {"split": "time"}, "stream takes user, item, time, label, not split"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_one_line(kind, frame, options, message):
    with pytest.raises(ValueError, match=message) as error:
        data.from_frame(frame, kind, **options)
    assert "\n" not in str(error.value)
