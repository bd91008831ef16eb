"""Every loader of histories on official-format files that the tests make, and on real sets where present."""

import gzip
import json
import os
import zipfile
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from paperlab import data
from paperlab.data import catalogue, fetch, next_items, sources


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty shelf of copies: nothing of this machine's data is seen, nothing is downloaded."""
    monkeypatch.setenv("PAPERLAB_DATA", str(tmp_path))
    monkeypatch.setenv("PAPERLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "data_root", lambda: tmp_path / "none")
    plain = {}
    for name, entry in catalogue.entries().items():
        files, local = (
            tuple(catalogue.File(f.name, "unverified") for f in form)
            for form in (entry.files, entry.local)
        )
        plain[name] = replace(entry, files=files, local=local)
    monkeypatch.setattr(catalogue, "entries", lambda: plain)
    return tmp_path


def put(shelf, name: str, file: str, content: bytes) -> None:
    (shelf / name).mkdir(exist_ok=True)
    (shelf / name / file).write_bytes(content)


def triples(n: int = 400) -> list[tuple[int, int, int]]:
    """User, item, second; no pair twice."""
    draw = np.random.default_rng(0)
    pairs = {(int(u), int(i)) for u, i in draw.integers(1, [25, 40], (2 * n, 2))}
    return [(u, i, 1_511_600_000 + k) for k, (u, i) in enumerate(sorted(pairs)[:n])]


def fields(log) -> list[str]:
    return [f.name for f in log.schema.categorical]


REVIEWS = [
    {"reviewerID": f"A{u}", "asin": f"B{i}", "overall": 5.0, "reviewText": "a\tb", "unixReviewTime": t}
    for u, i, t in triples()
]  # fmt: skip


@pytest.mark.parametrize("year", [2014, 2018])
def test_amazon(shelf, year, monkeypatch):
    lines = [json.dumps(r) for r in REVIEWS]
    lines[5:5] = ["{cut", '{"asin": "B1", "unixReviewTime": 3}', "[]"]
    before = "reviews_" if year == 2014 else ""
    name = f"amazon-{year}"
    put(shelf, name, f"{before}Toys_and_Games_5.json.gz", gzip.compress("\n".join(lines).encode()))
    products = []
    for i in range(1, 60):
        path = ["Toys", f"leaf {i % 3}"]
        row = {"asin": f"B{i}", "title": "it's"}
        row |= {"categories": [["x"], path]} if year == 2014 else {"category": path}
        products.append(repr(row) if year == 2014 else json.dumps(row))
    products[0] = "{'asin': 'B1', cut"
    put(shelf, name, "meta_Toys_and_Games.json.gz", gzip.compress("\n".join(products).encode()))
    with pytest.warns(UserWarning, match="3 malformed rows"):
        log = data.load(name, part="toys_and_games")
    assert log.name == f"{name}-toys_and_games"
    assert fields(log) == ["item", "category"]
    assert [f.size for f in log.schema.categorical][1] == 4
    assert log.notes["events"] == len(REVIEWS)
    every = log.events.ids.unique(dim=0)
    assert (every[:, 1] == 0).sum() == 1  # the product that could not be read
    monkeypatch.setattr(sources, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(next_items, "VERSION", 0)
    with pytest.warns(UserWarning, match="3 malformed rows"):
        again = data.load(name, part="toys_and_games")
    assert again.train.ids.equal(log.train.ids) and again.events.ids.equal(log.events.ids)


def test_taobao_userbehavior(shelf):
    rows = [f"{u},{i},{i % 5},pv,{t}" for u, i, t in triples()]
    rows[7:7] = ["1,2,3,pv", "1,2,3,pv,-17", "1,2,3,pv,1600000000", "1,2,3,pv,1511539199"]
    put(shelf, "taobao-userbehavior", "UserBehavior.csv", "\n".join(rows).encode())
    with pytest.warns(UserWarning, match="4 malformed rows"):
        log = data.load("taobao-userbehavior")
    assert log.notes["events"] == 400
    assert [f.size for f in log.schema.categorical] == [40, 6]
    assert log.events.times.min() >= 1_511_600_000


def test_retailrocket(shelf):
    rows = [f"{1000 * t + 250},{u},view,{i}," for u, i, t in triples()]
    text = "\n".join(["timestamp,visitorid,event,itemid,transactionid", *rows])
    put(shelf, "retailrocket", "events.csv", text.encode())
    log = data.load("retailrocket")
    assert fields(log) == ["item"]
    assert log.events.times.max() < 1_511_601_000
    put(shelf, "retailrocket", "events.csv", b"timestamp,visitorid,event\n")
    with pytest.raises(ValueError, match=r"events\.csv has no column itemid"):
        data.load("retailrocket")


def test_kuairand_logs(shelf):
    mine = triples()
    for half, file in enumerate(("4_08_to_4_21", "4_22_to_5_08")):
        rows = ["user_id,video_id,date,hourmin,time_ms,is_click"]
        rows += [f"{u},{i},20220408,1200,{1000 * t},1" for u, i, t in mine[half::2]]
        rows += [f"{u},77,20220408,1200,{1000 * t},0" for u, _, t in mine[half::2]]
        rows += ["1,2,3"] * (half + 1)
        put(shelf, "kuairand", f"log_standard_{file}_1k.csv", "\n".join(rows).encode())
    videos = ["video_id,author_id,tag", *(f'{i},9,"{i % 4},8"' for i in range(1, 30)), "30,9,"]
    put(shelf, "kuairand", "video_features_basic_1k.csv", "\n".join(videos).encode())
    with pytest.warns(UserWarning, match="3 malformed rows"):
        log = data.load("kuairand", part="1k")
    assert log.notes["events"] == 400
    assert [f.size for f in log.schema.categorical] == [40, 5]
    assert (log.events.ids.unique(dim=0)[:, 1] == 0).sum() == 10  # videos 30..39 have no tag


def test_movielens_archive(shelf):
    (shelf / "movielens-100k").mkdir()
    with zipfile.ZipFile(shelf / "movielens-100k/ml-100k.zip", "w") as z:
        z.writestr("ml-100k/u.data", "\n".join(f"{u}\t{i}\t3\t{t}" for u, i, t in triples()))
        z.writestr("ml-100k/u.user", "1|24|M|technician|85711")
        flags = "|".join(["0"] * 5 + ["1"] + ["0"] * 13)
        z.writestr(
            "ml-100k/u.item", "\n".join(f"{i}|T|01-Jan-1995||u|{flags}" for i in range(1, 40))
        )
    log = data.load("movielens-100k-sequences")
    assert log.notes["events"] == 400
    assert [f.size for f in log.schema.categorical] == [40, 2]


def test_local_forms(shelf):
    frame = pl.DataFrame(triples(), schema=["user", "item", "timestamp"], orient="row")
    lists = frame.sort("timestamp").group_by("user", maintain_order=True).agg(items="item")
    items = pl.DataFrame({"item": range(1, 40), "attributes": [[5, i % 6] for i in range(1, 40)]})

    def write(name, file, frame):
        (shelf / name).mkdir(exist_ok=True)
        frame.write_parquet(shelf / name / file)

    write("amazon-5core-s3rec", "beauty_sequences.parquet", lists)
    write("amazon-5core-s3rec", "beauty_item_attributes.parquet", items)
    write("amazon-sasrec", "video_games.parquet", frame.select("user", "item"))
    write("taobao-multibehavior", "train_events.parquet", frame)
    write("retailrocket-multibehavior", "train_events.parquet", frame)
    write("session-sequences", "tmall_train_sessions.parquet", lists.rename({"user": "session"}))
    clicks = frame.select(SessionId="user", ItemId="item", Time=pl.col("timestamp") + 0.5)
    write("yoochoose-100k", "train_full.parquet", clicks[:300])
    write("yoochoose-100k", "test.parquet", clicks[300:])
    likes = frame.select(
        user_id="user", video_id="item", time_ms=pl.col("timestamp") * 1000, label=1
    )
    hates = likes.with_columns(label=pl.lit(0, pl.Int32))
    likes = likes.with_columns(pl.col("label").cast(pl.Int32))
    write("kuairand", "kuairand27k_explicit_kcore15.parquet", pl.concat([likes, hates]))
    for name, part, has in (
        ("amazon-5core-s3rec", "beauty", ["item", "category"]),
        ("amazon-sasrec", "video_games", ["item"]),
        ("taobao-multibehavior", None, ["item"]),
        ("retailrocket-multibehavior", None, ["item"]),
        ("session-sequences", "tmall", ["item"]),
        ("yoochoose-100k", None, ["item"]),
        ("kuairand", "explicit", ["item"]),
    ):
        log = data.load(name, **({"part": part} if part else {}))
        assert log.notes["events"] == 400, name
        assert fields(log) == has
        timed = name not in ("amazon-5core-s3rec", "amazon-sasrec", "session-sequences")
        assert (log.events.times is not None) == timed


def test_movielens_1m_joins_its_parts(shelf):
    """Training items, then the two of validation where a user has them, then the test's."""
    users = pl.DataFrame(
        {
            "user": [1, 2],
            "items": [[1, 2, 3], [3, 1, 2, 7]],
            "val_items": [[4, 5], None],
            "test_item": [6, 4],
        },
        schema_overrides={k: pl.List(pl.Int32) for k in ("items", "val_items")},
    )
    (shelf / "movielens-1m-sequences").mkdir()
    users.write_parquet(shelf / "movielens-1m-sequences" / "sequences.parquet")
    log = data.load("movielens-1m-sequences")
    assert log.events.times is None and fields(log) == ["item"]
    code = {item: log.events.ids[k, 0].item() for k, item in enumerate([1, 2, 3, 4, 5, 6])}
    assert len(set(code.values())) == 6
    second = log.events.ids[6:, 0].tolist()
    assert second[:3] + second[4:] == [code[i] for i in (3, 1, 2, 4)]
    assert second[3] not in code.values()


def test_names_parts_options_and_missing_files_are_one_line(shelf):
    for name, options, message in (
        (
            "amazon-2014",
            {"part": "Books"},
            "part must be one of electronics, beauty, .*, not 'Books'",
        ),
        ("retailrocket", {"part": "x"}, "takes length, negatives, seed, not part"),
        ("retailrocket", {"min_count": 2}, "takes length, negatives, seed, not min_count"),
        ("kuairand", {"size": 2}, "takes part, length, negatives, seed, not size"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            data.load(name, **options)
        assert "\n" not in str(error.value)
    for name, entry in catalogue.entries().items():
        if entry.package:
            continue  # tests/lm/test_models.py
        with pytest.raises(FileNotFoundError, match=rf"put it in data/{name}/") as error:
            data.load(name)
        assert "\n" not in str(error.value)
        assert entry.home in str(error.value)


REAL = {  # users, items, events; as published, or as the copy's notes count what is left
    ("amazon-5core-s3rec", "beauty"): (22_363, 12_101, 198_502),
    ("amazon-5core-s3rec", "sports_and_outdoors"): (35_598, 18_357, 296_337),
    ("amazon-5core-s3rec", "toys_and_games"): (19_412, 11_924, 167_597),
    ("amazon-sasrec", "beauty"): (40_174, 54_502, 353_494),
    ("movielens-100k-sequences", None): (943, 1682, 100_000),
    ("movielens-1m-sequences", None): (6040, 3416, 994_083),
    ("amazon-sasrec", "video_games"): (None, 23_715, 287_107),
    ("session-sequences", "diginetica"): (None, 43_097, 906_140),
    ("session-sequences", "nowplaying"): (None, 60_416, 953_381),
    ("session-sequences", "tmall"): (None, 40_727, 416_554),
    ("yoochoose-100k", None): (None, None, 70_278 + 13_568),
    ("kuairand", "explicit"): (664, None, round(0.807 * 41_828)),
    ("taobao-multibehavior", None): (31_882, 30_985, 357_412),
    ("retailrocket-multibehavior", None): (2174, 29_905, 97_381),
}


@pytest.mark.parametrize(("name", "part"), REAL)
def test_real_sets_where_present(name, part, monkeypatch):
    if not os.environ.get("PAPERLAB_DATA"):
        pytest.skip("PAPERLAB_DATA is not set: no real data on this machine")
    seen = {}
    order = next_items._order

    def counting(work, dealt, what):
        seen["items"], seen["events"] = (
            dealt.items,
            sum(p.stat().st_size // next_items.EVENT.itemsize for p in work.glob("*.share")),
        )
        return order(work, dealt, what)

    monkeypatch.setattr(next_items, "_order", counting)
    try:
        log = data.load(name, **({"part": part} if part else {}))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    users, items, events = REAL[name, part]
    assert seen["events"] == pytest.approx(events, rel=0.001 if name == "kuairand" else 0)
    assert items in (None, seen["items"])
    assert users in (None, log.notes["users"] + log.notes["users left out"])
    kept = log.notes["events"], log.notes["users"]
    assert len(log.train) == 2 * (kept[0] - 3 * kept[1])
    assert len(log.valid) == len(log.test) == 2 * kept[1]
    assert log.notes["rejected"] == 0
    sizes = np.array([f.size for f in log.schema.categorical])
    for ids in (log.events.ids, log.train.ids, log.valid.ids, log.test.ids):
        assert ids.min() >= 1
        assert (ids.amax(0).numpy() < sizes).all()
