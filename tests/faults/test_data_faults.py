"""Downloads that break, hashes that differ, disks that fill: one line, and no half file."""

import errno
import hashlib
import http.server
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from paperlab.data import catalogue, fetch, prepare, recipe, sources

BODY = b"label\n" * 1000
asked = []  # paths of the requests to the server


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.delenv("PAPERLAB_DATA", raising=False)
    monkeypatch.setattr(fetch, "data_root", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def server():
    """A file server on loopback: /whole sends all, /cut promises all and sends half."""
    asked.clear()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/gone":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY[: len(BODY) // 2] if self.path == "/cut" else BODY)

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def entry(url: str | None, sha256="unverified", size=None) -> catalogue.Entry:
    file = catalogue.File("x.tsv", sha256, url, size)
    return catalogue.Entry(
        "x", "clicks", "criteo", "X", "https://x.example", "terms", "cite", (file,)
    )


def leftovers(shelf) -> list[str]:
    return sorted(p.name for p in shelf.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_a_download_is_checked_and_pinned(shelf, server, capsys):
    path = fetch.official(entry(f"{server}/whole"), "x.tsv")
    assert path.read_bytes() == BODY
    digest = hashlib.sha256(BODY).hexdigest()
    assert path.with_name("x.tsv.sha256").read_text() == digest
    said = capsys.readouterr().err
    assert digest in said
    assert "terms" in said
    path.write_bytes(BODY + b"more")
    with pytest.raises(ValueError, match="another SHA-256"):
        fetch.official(entry(f"{server}/whole"), "x.tsv")


@pytest.mark.parametrize(
    ("place", "sha256", "size", "error", "message"),
    [
        ("/cut", "unverified", None, FileNotFoundError, "put it in data/x/"),
        ("/gone", "unverified", None, FileNotFoundError, "get it from https://x.example"),
        ("/whole", "0" * 64, None, ValueError, "another SHA-256 than 000000000000"),
        ("/whole", "unverified", 17, ValueError, "6,000 bytes instead of 17"),
    ],
)
def test_a_bad_download_leaves_nothing(shelf, server, place, sha256, size, error, message):
    with pytest.raises(error, match=message) as raised:
        fetch.official(entry(server + place, sha256, size), "x.tsv")
    assert "\n" not in str(raised.value)
    assert leftovers(shelf) == []


def test_no_network_says_what_to_do(shelf):
    closed = "http://127.0.0.1:9/x"
    for url in (closed, None):
        with pytest.raises(
            FileNotFoundError, match=r"x\.tsv not found; get it from .* put it in data/x/"
        ):
            fetch.official(entry(url), "x.tsv")
    assert leftovers(shelf) == []


def test_a_full_disk_while_downloading_leaves_nothing(shelf, server, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch, "sha256", full)
    with pytest.raises(OSError, match="No space left"):
        fetch.official(entry(f"{server}/whole"), "x.tsv")
    assert leftovers(shelf) == []


def test_a_full_disk_while_preparing_can_be_gone_on_from(tmp_path, monkeypatch):
    rows = "\n".join(f"{k % 2}\t{k % 7}" for k in range(2000)) + "\n"
    (tmp_path / "x.tsv").write_text(rows)
    plan, source = (
        recipe.Recipe("label", ("a",)),
        sources.TextSource(tmp_path / "x.tsv", ("label", "a")),
    )
    prepare.prepare(source, plan, tmp_path / "whole", {})
    monkeypatch.setattr(sources, "CHUNK_BYTES", 1000)
    calls, sync = [], prepare.os.fsync

    def full(number):
        calls.append(number)
        if len(calls) == 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(number)

    monkeypatch.setattr(prepare.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        prepare.prepare(source, plan, tmp_path / "cut", {})
    assert not (tmp_path / "cut").exists()
    prepare.prepare(source, plan, tmp_path / "cut", {})
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "cut" / path.name).read_bytes() == path.read_bytes()


# Several processes ---------------------------------------------------------------------------------


def test_four_who_need_one_file_download_it_once(shelf, server):
    one = entry(f"{server}/whole")
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch.official(one, "x.tsv"), range(4)))
    assert {p.read_bytes() for p in paths} == {BODY}
    assert asked == ["/whole"]


WORKER = """
import sys, time
from paperlab import data
from paperlab.data import sources
sources.CHUNK_BYTES = 1 << 12
chunks = sources.TextSource.chunks
def slow(self, *place):
    for chunk in chunks(self, *place):
        time.sleep(.01)
        yield chunk
sources.TextSource.chunks = slow
print("ready", flush=True)
sys.stdin.readline()
for name in sys.argv[1:]:
    log = data.load(name)
    print(name, *(len(getattr(log, p)) for p in ("train", "valid", "test")), flush=True)
"""


def bytes_of(cache) -> dict[str, bytes]:
    files = [p for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock"]
    return {str(p.relative_to(cache)): p.read_bytes() for p in files}


def test_two_processes_that_prepare_one_set_make_one_right_store(tmp_path):
    draw = np.random.default_rng(0)
    for name, file in (("retailrocket", "events.csv"), ("criteo-kaggle", "train.txt")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    with (tmp_path / "retailrocket/events.csv").open("w") as file:
        file.write("timestamp,visitorid,event,itemid,transactionid\n")
        for k in range(4000):
            file.write(f"{10**12 + 1000 * k},{draw.integers(300)},view,{draw.integers(900)},\n")
    with (tmp_path / "criteo-kaggle/train.txt").open("w") as file:
        for k in range(2000):
            file.write(f"{k % 2}\t" + "\t".join(map(str, draw.integers(9, size=39))) + "\n")

    def run(cache: str, count: int) -> list[list[str]]:
        environment = {"PAPERLAB_DATA": str(tmp_path), "PAPERLAB_CACHE": str(tmp_path / cache)}
        command = [sys.executable, "-c", WORKER, "retailrocket", "criteo-kaggle"]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        workers = [
            subprocess.Popen(command, env=os.environ | environment, text=True, **pipes)
            for _ in range(count)
        ]
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        said = [worker.communicate() for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * count, said
        return [out.splitlines() for out, _ in said]

    (alone,) = run("alone", 1)
    assert run("shared", 2) == [alone, alone]
    assert bytes_of(tmp_path / "shared") == bytes_of(tmp_path / "alone")
    assert not list(tmp_path.glob("*/*.part"))
