"""Archives that are cut, damaged or hostile: one line that names the file, nothing written or left."""

import gzip
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from paperlab import data
from paperlab.data import fetch
from paperlab.data.sets import avazu
from paperlab.lm import preferences

CRITEO = b"".join(b"%d\t" % (k % 2) + b"\t".join([b"7"] * 39) + b"\n" for k in range(3000))
AVAZU = ",".join(["id", "click", "hour", *avazu.FEATURES]).encode() + b"\n"
AVAZU += b"".join(
    b"%d,%d,14102500," % (k, k % 2) + b",".join([b"5"] * 21) + b"\n" for k in range(2000)
)
REVIEWS = b"".join(
    b'{"reviewerID": "u%d", "asin": "i%d", "unixReviewTime": %d}\n' % (k % 40, k * 7 % 310, k)
    for k in range(2000)
)
PRODUCTS = b"".join(b'{"asin": "i%d", "category": ["a", "b%d"]}\n' % (k, k % 3) for k in range(310))
DIALOGUES = b"".join(
    b'{"chosen": "\\n\\nHuman: %d\\n\\nAssistant: yes", "rejected": "\\n\\nHuman: %d\\n\\nAssistant: no"}\n'
    % (k, k)
    for k in range(2000)
)
ZIPPED = {  # data set, file -> its content
    ("criteo-terabyte", "day_0.gz"): CRITEO,
    ("avazu", "train.gz"): AVAZU,
    ("amazon-2018", "Electronics_5.json.gz"): REVIEWS,
    ("amazon-2018", "meta_Electronics.json.gz"): PRODUCTS,
    ("hh-rlhf-helpful", "train.jsonl.gz"): DIALOGUES,
}
TABLES = {
    "ratings.dat": "".join(f"{k % 9 + 1}::{k % 7 + 1}::{k % 5 + 1}::{k}\n" for k in range(400)),
    "users.dat": "".join(f"{k}::F::25::7::55117\n" for k in range(1, 10)),
    "movies.dat": "".join(f"{k}::Film::Drama|War\n" for k in range(1, 8)),
}


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of copies, a cache, and nothing else of this machine."""
    monkeypatch.setenv("PAPERLAB_DATA", str(tmp_path / "shelf"))
    monkeypatch.setenv("PAPERLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "data_root", lambda: tmp_path / "none")
    for (name, file), content in ZIPPED.items():
        put(tmp_path, name, file, gzip.compress(content, mtime=0))
    put(tmp_path, "movielens-1m", "ml-1m.zip", archive(TABLES))
    return tmp_path


def put(folder: Path, name: str, file: str, content: bytes) -> Path:
    path = folder / "shelf" / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def archive(tables: dict[str, str | bytes], *others: str | zipfile.ZipInfo) -> bytes:
    """A zip file with tables in a folder ml-1m, and with members of other names."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as into:
        for name, content in tables.items():
            into.writestr(f"ml-1m/{name}", content)
        for other in others:
            into.writestr(other, "/etc/passwd")
    return packed.getvalue()


def load(name: str):
    kind = data.catalogue.entry(name).kind
    return preferences.load(name) if kind == "preferences" else data.load(name)


def broken(shelf: Path, name: str, file: str) -> None:
    """Loading says in one line which file it is, and leaves neither a store nor half of one."""
    before = sorted(p for p in shelf.rglob("*") if "cache" not in p.parts)
    with pytest.raises(ValueError, match=rf"^{file} ") as raised:
        load(name)
    assert "\n" not in str(raised.value)
    assert sorted(p for p in shelf.rglob("*") if "cache" not in p.parts) == before
    assert not [p for p in shelf.glob("cache/*") if p.suffix != ".lock"]


@pytest.mark.parametrize(("name", "file"), [*ZIPPED, ("movielens-1m", "ml-1m.zip")])
def test_they_are_read_when_they_are_whole(shelf, name, file):
    assert load(name)


@pytest.mark.parametrize(("name", "file"), ZIPPED)
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda whole: whole[:-1], id="the last byte is missing"),
        pytest.param(lambda whole: whole[: len(whole) // 2], id="half is missing"),
        pytest.param(lambda whole: whole[:5], id="cut in the header"),
        pytest.param(lambda whole: whole[:-8] + b"\0\0\0\0" + whole[-4:], id="another checksum"),
        pytest.param(lambda whole: whole[:20] + b"\xff" * 40 + whole[60:], id="overwritten"),
        pytest.param(lambda whole: gzip.decompress(whole), id="not zipped"),
        pytest.param(lambda whole: b"<html>Not found</html>", id="a page"),
    ],
)
def test_a_damaged_gzip(shelf, name, file, damage):
    path = shelf / "shelf" / name / file
    path.write_bytes(damage(path.read_bytes()))
    broken(shelf, name, file)


def encrypted(whole: bytes) -> bytes:
    return whole.replace(b"PK\x01\x02\x14\x03\x14\0\0", b"PK\x01\x02\x14\x03\x14\0\x01")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(archive(TABLES)[:-1], id="the last byte is missing"),
        pytest.param(archive(TABLES)[:400], id="cut"),
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>Not found</html>", id="a page"),
        pytest.param(archive(TABLES)[:60] + b"\xff" * 40 + archive(TABLES)[100:], id="overwritten"),
        pytest.param(archive({k: TABLES[k] for k in ("ratings.dat", "users.dat")}), id="no films"),
        pytest.param(archive(TABLES | {"movies.dat": "1::Film\n"}), id="a column is missing"),
        pytest.param(archive(TABLES | {"users.dat": ""}), id="an empty table"),
        pytest.param(
            archive(TABLES | {"users.dat": TABLES["users.dat"].encode("utf-16")}), id="UTF-16"
        ),
        pytest.param(encrypted(archive(TABLES)), id="encrypted"),
    ],
)
def test_a_damaged_zip(shelf, content):
    put(shelf, "movielens-1m", "ml-1m.zip", content)
    broken(shelf, "movielens-1m", "ml-1m.zip")


def test_a_zip_that_claims_to_unpack_to_gigabytes_is_not_unpacked(shelf):
    """The size that the archive declares is 3 GB; a real bomb would hold it in a few MB."""
    packed = archive(TABLES)
    size = len(TABLES["ratings.dat"]).to_bytes(4, "little")
    put(shelf, "movielens-1m", "ml-1m.zip", packed.replace(size, (3 << 30).to_bytes(4, "little")))
    broken(shelf, "movielens-1m", "ml-1m.zip")


def test_members_that_point_elsewhere_are_never_written(shelf):
    """Archives are read, not unpacked: names with .., absolute names and links write nothing."""
    names = [
        "../evil",
        "../../evil",
        "/tmp/paperlab-evil",
        "ml-1m/../../evil",
        "..\\evil",
        "C:\\evil",
    ]
    link = zipfile.ZipInfo("ml-1m/link")
    link.external_attr = 0o120777 << 16
    put(shelf, "movielens-1m", "ml-1m.zip", archive(TABLES, *names, link))
    before = sorted(p for p in shelf.rglob("*") if "cache" not in p.parts)
    assert len(data.load("movielens-1m").train) > 300
    assert sorted(p for p in shelf.rglob("*") if "cache" not in p.parts) == before
    assert not Path("/tmp/paperlab-evil").exists()


def test_rows_in_another_encoding_are_put_aside(shelf):
    rows = CRITEO.split(b"\n")
    rows[5:9] = [r.replace(b"7", "ü".encode("latin-1"), 1) for r in rows[5:9]]
    put(shelf, "criteo-terabyte", "day_0.gz", gzip.compress(b"\n".join(rows)))
    with pytest.warns(UserWarning, match="4 malformed rows set aside"):
        log = data.load("criteo-terabyte", min_count=2)
    assert len(log.train) + len(log.valid) + len(log.test) == 2996
    put(shelf, "hh-rlhf-helpful", "train.jsonl.gz", gzip.compress(b"\xff\xfe\n" + DIALOGUES))
    pairs = load("hh-rlhf-helpful")
    assert (len(pairs), pairs.problems) == (2000, ((1, "not JSON"),))


def test_the_command_says_it_in_one_line(shelf):
    path = shelf / "shelf/criteo-terabyte/day_0.gz"
    path.write_bytes(path.read_bytes()[:-30])
    command = [
        sys.executable,
        "-c",
        "from paperlab.cli import main; main()",
        "data",
        "criteo-terabyte",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("paperlab: day_0.gz is broken: delete and fetch it again (")
    assert len(done.stderr.splitlines()) == 1


def test_no_loader_unpacks_anything():
    """What reads an archive reads its members by name: nothing extracts, and nothing reads tar."""
    for module in (data, preferences):
        for path in Path(module.__file__).parent.rglob("*.py"):
            text = path.read_text()
            for word in (
                ".extract",
                "tarfile",
                "unpack_archive",
                "Unzip(",
                "Untar(",
                "Decompress(",
            ):
                assert word not in text, path
