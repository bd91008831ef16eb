"""Every loader on official-format files that the tests make, and on the real sets where present."""

import gzip
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from paperlab import data
from paperlab.data import catalogue, fetch, sets


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty shelf of copies: nothing of this machine's data is seen."""
    monkeypatch.setenv("PAPERLAB_DATA", str(tmp_path))
    monkeypatch.setenv("PAPERLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "data_root", lambda: tmp_path / "none")
    return tmp_path


def put(shelf: Path, name: str, file: str, content: bytes) -> None:
    (shelf / name).mkdir(exist_ok=True)
    (shelf / name / file).write_bytes(content)


def total(log) -> int:
    return len(log.train) + len(log.valid) + len(log.test)


def criteo_rows(n: int) -> bytes:
    draw = np.random.default_rng(0)
    rows = []
    for _ in range(n):
        integers = [str(draw.integers(0, 99)) if draw.random() < 0.7 else "" for _ in range(13)]
        hashes = [f"{draw.integers(30):08x}" if draw.random() < 0.9 else "" for _ in range(26)]
        rows.append("\t".join([str(draw.integers(2)), *integers, *hashes]))
    return ("\n".join(rows) + "\n").encode()


def test_criteo_both_layouts(shelf):
    put(shelf, "criteo-kaggle", "train.txt", criteo_rows(500))
    put(shelf, "criteo-terabyte", "day_0.gz", gzip.compress(criteo_rows(500)))
    plain, zipped = (
        data.load("criteo-kaggle", min_count=2),
        data.load("criteo-terabyte", min_count=2),
    )
    assert len(plain.schema.fields) == 39
    assert total(plain) == 500
    assert plain.train.ids.equal(zipped.train.ids)
    assert data.load("criteo-kaggle", min_count=500).schema.fields[20].size == 1


def test_avazu(shelf):
    heads = "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
    rows = [f"{k},{k % 2},141025{k % 24:02d}," + ",".join(["1005"] * 21) for k in range(300)]
    put(shelf, "avazu", "train.gz", gzip.compress("\n".join([heads, *rows]).encode()))
    log = data.load("avazu")
    names = [f.name for f in log.schema.fields]
    assert names[:3] == ["hour", "weekday", "weekend"]
    assert "id" not in names
    assert len(names) == 24
    assert total(log) == 300
    assert log.schema.fields[0].size == 25
    assert log.schema.fields[2].size == 2  # a Saturday only


def test_movielens_archives(shelf):
    draw = np.random.default_rng(0)
    triples = [
        (draw.integers(1, 20), draw.integers(1, 30), draw.integers(1, 6), 880_000_000 + k)
        for k in range(400)
    ]
    with zipfile.ZipFile(_open(shelf, "movielens-100k", "ml-100k.zip"), "w") as z:
        z.writestr("ml-100k/u.data", "\n".join("\t".join(map(str, t)) for t in triples))
        z.writestr("ml-100k/u.user", "\n".join(f"{u}|24|M|technician|85711" for u in range(1, 20)))
        flags = "|".join(["0"] * 5 + ["1"] + ["0"] * 13)
        z.writestr(
            "ml-100k/u.item", "\n".join(f"{i}|T|01-Jan-1995||u|{flags}" for i in range(1, 30))
        )
    with zipfile.ZipFile(_open(shelf, "movielens-1m", "ml-1m.zip"), "w") as z:
        z.writestr("ml-1m/ratings.dat", "\n".join("::".join(map(str, t)) for t in triples))
        z.writestr("ml-1m/users.dat", "\n".join(f"{u}::M::25::7::55117" for u in range(1, 20)))
        z.writestr(
            "ml-1m/movies.dat",
            "\n".join(f"{i}::Caf\xe9 (1995)::Drama|War" for i in range(1, 30)).encode("latin-1"),
        )
    for name in ("movielens-100k", "movielens-1m"):
        log = data.load(name)
        assert total(log) == 400
        assert log.schema.user == "user_id"
        assert log.train.labels.mean().item() == pytest.approx(
            np.mean([t[2] >= 4 for t in triples]), abs=0.05
        )
        genre = next(f for f in log.schema.fields if f.name == "genre")
        assert genre.size == 2


def _open(shelf, name, file) -> Path:
    put(shelf, name, file, b"")
    return shelf / name / file


def test_frappe_nfm_files(shelf, monkeypatch):
    lines = [
        f"{1 if k % 3 == 0 else -1} " + " ".join(f"{10 * c + k % 4}:1" for c in range(10))
        for k in range(60)
    ]
    entry = catalogue.entry("frappe")
    for file in entry.files:
        put(shelf, "frappe", file.name, "\n".join(lines).encode())
    with pytest.raises(ValueError, match="instead of 4,163,044"):
        data.load("frappe", split="nfm")
    plain = [catalogue.File(f.name, "unverified") for f in entry.files]
    changed = replace(entry, files=tuple(plain))
    monkeypatch.setitem(catalogue.entries(), "frappe", changed)
    log = data.load("frappe", split="nfm")
    assert (len(log.train), len(log.valid), len(log.test)) == (60, 60, 60)
    assert [f.size for f in log.schema.fields] == [5] * 10


WRONG = [
    ("avazu", {"count": 3}, "avazu takes min_count, seed, not count"),
    ("avazu", {"min_count": 0}, "min_count must be at least 1, got 0"),
    ("avazu", {"min_count": 2.5}, "min_count must be a whole number, got 2.5"),
    ("avazu", {"min_count": True}, "min_count must be a whole number, got True"),
    ("avazu", {"min_count": None}, "min_count must be a whole number, got None"),
    ("avazu", {"seed": -1}, "seed must be at least 0, got -1"),
    ("avazu", {"seed": 2**32}, "seed must be at most 4294967295, got 4294967296"),
    ("avazu", {"seed": float("nan")}, "seed must be a whole number, got nan"),
    ("frappe", {"split": "random"}, "split must be one of sampled, nfm, not 'random'"),
    ("frappe", {"split": ["nfm"]}, "split must be one of"),
    ("retailrocket", {"length": "10"}, "length must be a whole number, got '10'"),
    ("retailrocket", {"negatives": "hard"}, "negatives must be one of uniform, popular"),
    ("kuairand", {"part": "2k"}, "part must be one of explicit, pure, 1k, 27k, not '2k'"),
    ("amazon-sasrec", {"part": "books"}, "part must be one of beauty, video_games, not 'books'"),
    ("alpaca-eval-preferences", {"least": float("inf")}, r"least must be in \[0, 1\], got inf"),
    ("alpaca-eval-preferences", {"least": 1.5}, r"least must be in \[0, 1\], got 1.5"),
    ("hh-rlhf-harmless-test", {"part": "test"}, "takes no options, not part"),
    ("gsm8k", {"part": "valid"}, "part must be one of train, test, not 'valid'"),
]


def test_names_options_and_missing_files_are_one_line(shelf):
    with pytest.raises(ValueError, match="there are: .*avazu, census-income, code-verifiable"):
        data.load("criteo")
    for name, options, message in WRONG:
        with pytest.raises(ValueError, match=message) as error:
            data.load(name, **options)
        assert "\n" not in str(error.value)
    for name in ("criteo-kaggle", "avazu", "criteo-terabyte-80k"):
        with pytest.raises(FileNotFoundError, match=rf"put it in data/{name}/, or name its folder"):
            data.load(name)


def test_every_entry_has_a_kind_a_loader_terms_and_an_honest_hash():
    folder = Path(sets.__file__).parent
    files = {p.stem for p in folder.glob("*.py")} - {"__init__"}
    assert {e.loader for e in catalogue.entries().values()} == files
    assert {e.kind for e in catalogue.entries().values()} == set(catalogue.KINDS)
    for entry in catalogue.entries().values():
        assert callable(import_module(entry.module).load)
        assert entry.terms
        assert entry.citation
        for file in (*entry.files, *entry.local):
            assert file.sha256 == "unverified" or len(bytes.fromhex(file.sha256)) == 32


def test_loading_one_set_imports_no_other_loader(shelf):
    code = """if True:
        import sys
        from paperlab import data
        try:
            data.load("gsm8k")
        except FileNotFoundError:
            print([m for m in sys.modules if m.startswith("paperlab.data.sets.")])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['paperlab.data.sets.gsm8k']"


REAL = {  # rows and positive rate as the publishers or the copies' own notes give them
    "movielens-100k": (100_000, 0.554),
    "movielens-1m-sample100k": (100_000, 0.575),
    "criteo-terabyte-80k": (80_000, 0.0322),
    "criteo-kaggle-10k": (10_000, 0.2182),
    "census-income": (99_762, 6186 / 99_762),
    "frappe": (3 * 96_203, 1 / 3),
}


@pytest.mark.parametrize("name", REAL)
def test_real_sets_where_present(name):
    if not os.environ.get("PAPERLAB_DATA"):
        pytest.skip("PAPERLAB_DATA is not set: no real data on this machine")
    try:
        log = data.load(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    rows, rate = REAL[name]
    assert total(log) == rows
    positives = sum(float(getattr(log, p).labels.sum()) for p in ("train", "valid", "test"))
    assert positives / rows == pytest.approx(rate, abs=0.001)
    for part in ("train", "valid", "test"):
        ids = getattr(log, part).ids
        assert ids.min() >= 0
        sizes = np.array([f.size for f in log.schema.categorical])
        assert (ids.amax(0).numpy() < sizes).all()
    assert log.train.ids.amin(0).min() >= 0
    assert data.load(name).train.ids.equal(log.train.ids)
